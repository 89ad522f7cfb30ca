"""MC-JEPA from folders, through the command line: train, resume, probe; and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.benchmarks.frozen.features import reader
from tubelet.benchmarks.frozen.features import untrained as fresh
from tubelet.cli.main import main
from tubelet.core.errors import CheckpointError, ConfigError
from tubelet.core.run import read_metrics
from tubelet.datasets.synthetic.make import MovingShapesConfig, make_moving_shapes
from tubelet.vjepa.formats.convert import from_run, save
from tubelet.vjepa.motion import PyramidEncoder
from tubelet.vjepa.motion.presets import motion_clips, motion_preset
from tubelet.vjepa.pretrain_recipe import PretrainRunConfig, load_encoder, load_features

DEBUG = ["pretrain", "--preset", "mcjepa-debug", "--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Six films of moving shapes, eight pictures, and a run on the films."""
    root = tmp_path_factory.mktemp("motion")
    films = MovingShapesConfig(count=6, size=32, frames=8)
    make_moving_shapes(root / "films", films, processes=1, progress=False)
    (root / "pictures").mkdir()
    rng = np.random.default_rng(0)
    for number in range(8):
        pixels = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8).repeat(5, 0).repeat(5, 1)
        Image.fromarray(pixels).save(root / "pictures" / f"{number}.png")
    assert (
        main([*DEBUG, "--videos", str(root / "films" / "videos"), "--out", str(root / "run")]) == 0
    )
    return root


def test_a_run_logs_both_losses_and_a_verdict(root):
    lines = read_metrics(root / "run")
    assert sum("train/flow" in line for line in lines) == 5  # of 10, the first on content
    assert sum("train/content" in line for line in lines) == 5
    assert {"flow_size", "flow_inconsistency", "clip_std"} <= lines[-1].keys()
    assert (root / "run" / "verdict.txt").read_text().split(":")[0] in (
        *("healthy\n", "warning", "collapsed"),
    )


def test_films_for_motion_and_pictures_for_content(root, tmp_path):
    where = ["--videos", str(root / "films" / "videos"), "--images", str(root / "pictures")]
    out = ["--out", str(tmp_path / "two"), "--pixel-stats", "corpus"]
    assert main([*DEBUG, *where, *out]) == 0
    assert "6 videos usable" in (tmp_path / "two" / "corpus.txt").read_text()
    assert "8 images usable" in (tmp_path / "two" / "images" / "corpus.txt").read_text()
    assert main([*DEBUG, *where, *out, "--resume"]) == 0  # and there is nothing left to do


def test_pictures_alone_train_content(root, tmp_path):
    flags = ["--images", str(root / "pictures"), "--out", str(tmp_path / "content")]
    assert main([*DEBUG, *flags, "--train.motion.arm", "content"]) == 0
    assert all("train/flow" not in line for line in read_metrics(tmp_path / "content"))


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--clips.frames", "1"], "clips.frames = 1: flow is between two frames"),
        (["--clips.size", "36"], "height = 36"),
        (["--images", "x"], "images = 'x' without videos"),
        (["--objective", "ijepa"], "objective = 'ijepa'"),
        (["--train.loop.log-every", "2"], "log_every = 2"),
        (["--train.motion.head.finest", "7"], "head.finest = 7"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_there_is_a_run(flags, named, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main([*DEBUG, "--out", str(tmp_path / "run"), *flags])
    assert stop.value.code == 2
    assert named in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "run").exists()


def test_an_arm_with_one_loss_takes_one_corpus():
    train = motion_preset("mcjepa-debug")
    train = replace(train, motion=replace(train.motion, arm="flow"))
    clips = motion_clips("mcjepa-debug")
    with pytest.raises(ConfigError, match='the arm "flow" trains on one of them'):
        PretrainRunConfig(train=train, clips=clips, videos="a", images="b", augment=False)
    buckets = replace(clips, buckets=((2, 4.0, 1.0),))
    with pytest.raises(ConfigError, match="buckets"):
        PretrainRunConfig(train=train, clips=buckets, augment=False)
    content = replace(train, motion=replace(train.motion, arm="content"))
    odd = replace(clips, size=36)
    with pytest.raises(ConfigError, match="height = 36"):
        PretrainRunConfig(train=content, clips=odd, images="b", augment=False)


def test_probes_read_the_pyramid_and_dynamics_do_not(root):
    encoder = load_features(root / "run")
    assert isinstance(encoder, PyramidEncoder)
    video = torch.zeros(1, 2, 32, 32, 3, dtype=torch.uint8)
    assert encoder(video).shape == (1, 2 * 4 * 4, 16)
    assert type(fresh(encoder, 0)) is PyramidEncoder
    with pytest.raises(ConfigError, match=r"protocol\.layers = 2"):
        reader(encoder, layers=2)
    with pytest.raises(CheckpointError, match="convolutional pyramid"):
        load_encoder(root / "run")
    checkpoint, _ = from_run(root / "run")
    with pytest.raises(CheckpointError, match="convolutional pyramid"):
        save(checkpoint, root / "never", "tubelet")


def test_a_report_of_the_run(root):
    assert main(["report", "--run", str(root / "run"), "--out", str(root / "report.html")]) == 0
    page = (root / "report.html").read_text(encoding="utf-8")
    assert "Features" in page
    assert "Masks" not in page


def test_a_frozen_probe_through_the_command_line(root, tmp_path):
    pictures = sorted((root / "pictures").glob("*.png"))
    table = "".join(f"{path} {number % 2}\n" for number, path in enumerate(pictures))
    (tmp_path / "labels.txt").write_text(table)
    flags = ["--encoder", str(root / "run"), "--data", str(tmp_path / "labels.txt")]
    flags += ["--probe", "knn", "--protocol.frames", "2", "--protocol.crop", "32"]
    flags += ["--out", str(tmp_path / "out"), "--device", "cpu", "--threads", "1"]
    assert main(["evaluate", *flags]) == 0
    assert (tmp_path / "out" / "evaluate.json").exists()
