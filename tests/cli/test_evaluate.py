"""``tubelet evaluate`` end to end on tiny videos, and imported probes against their origin."""

import json

import numpy as np
import pytest
import torch

from tubelet.benchmarks.frozen.features import average_views, probe_logits
from tubelet.benchmarks.frozen.protocol import FrozenProtocol, read_views
from tubelet.benchmarks.frozen.settings import EvaluateConfig
from tubelet.benchmarks.results import load_results
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError
from tubelet.datasets.decode import open_video
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.formats.checkpoint import Checkpoint
from tubelet.vjepa.formats.convert import load
from tubelet.vjepa.preprocess import normalised

SHOWN = ("--protocol.frames", "2", "--protocol.step", "1", "--protocol.segments", "1")
SHOWN += ("--protocol.views", "1", "--protocol.crop", "16", "--protocol.short-side", "16")
GRID = ("--heads.lrs", "1e-2", "1e-3", "--heads.decays", "0.01", "--heads.depth", "1")
GRID += ("--heads.epochs", "4", "--heads.batch", "16", "--seeds", "2", "--batch", "32")


@pytest.fixture
def corpus(tmp_path):
    """60 videos of three brightnesses, a folder for each."""
    rng = np.random.default_rng(0)
    for number in range(60):
        film = rng.integers(0, 60, (2, 16, 16, 3)) + 70 * (number % 3)
        path = tmp_path / "videos" / "abc"[number % 3] / f"{number}.mp4"
        write_video(path, film.astype(np.uint8), fps=10)
    return tmp_path / "videos"


@pytest.fixture
def model(tmp_path):
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=12, depth=1, heads=1, patch=8))
    Checkpoint(encoder).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def evaluate(model, data, out, *args):
    args = ("--encoder", model, "--data", data, "--out", out, *args)
    return main(["evaluate", *map(str, args)])


def test_the_table_has_the_encoder_and_three_floors(corpus, model, tmp_path, capsys):
    out = tmp_path / "out"
    export = tmp_path / "features.npz"
    film = corpus / "a" / "0.mp4"
    more = ("--export", export, "--film", film)
    assert evaluate(model, corpus, out, "--probe", "linear", *SHOWN, *GRID, *more) == 0
    assert "Wilson" in " ".join(capsys.readouterr().out.split())
    (stored,) = load_results(out)
    names = [row[0] for row in stored.value.rows]
    assert names == ["encoder", "untrained encoder", "pixel PCA", "most frequent class"]
    assert all(row[2] == 12 for row in stored.value.rows)
    assert "optimistic" in stored.value.columns[-1]
    numbers = json.loads((out / "evaluate.json").read_text())
    assert len(numbers["encoder"]) == 2  # seeds
    for outcome in numbers["encoder"]:
        best = max(outcome["validation"])
        assert outcome["validation"][outcome["chosen"]] == best
        assert outcome["test_accuracy"] == sum(outcome["test_right"]) / 12
    assert numbers["pixel PCA"][0]["test_accuracy"] > 0.6
    assert numbers["most frequent class"][0]["test_accuracy"] == pytest.approx(1 / 3)
    with np.load(export) as features:
        assert features["features"].shape == (60, 1, 1, 12)
    with open_video(out / "pca.mp4") as video:
        assert video.size == (16, 32)
    assert evaluate(model, corpus, out, "--probe", "linear", *SHOWN, *GRID) == 2
    assert "not empty" in capsys.readouterr().err
    before = (out / "evaluate.json").read_bytes()
    assert evaluate(model, corpus, out, "--probe", "linear", *SHOWN, *GRID, "--resume") == 0
    assert (out / "evaluate.json").read_bytes() == before


def test_attentive_heads_and_neighbours_with_lists_of_their_own(corpus, model, tmp_path):
    files = sorted(corpus.rglob("*.mp4"))
    parts = {"train": files[::2], "valid": files[1::4], "test": files[3::4]}
    for name, paths in parts.items():
        lines = [f"{path} {'abc'.index(path.parent.name)}\n" for path in paths]
        (tmp_path / f"{name}.csv").write_text("".join(lines))
    lists = ("--valid", tmp_path / "valid.csv", "--test", tmp_path / "test.csv")
    data = tmp_path / "train.csv"
    args = (*SHOWN, *lists)
    assert evaluate(model, data, tmp_path / "a", "--probe", "attentive", *args, *GRID) == 0
    assert evaluate(model, data, tmp_path / "k", "--probe", "knn", *args) == 0
    for folder in ("a", "k"):
        (stored,) = load_results(tmp_path / folder)
        assert [row[2] for row in stored.value.rows] == [len(parts["test"])] * 4
    assert load_results(tmp_path / "k")[0].value.rows[0][3] == 1  # no seeds without randomness


def test_a_file_that_cannot_be_read_is_counted_and_leaves_the_rest(corpus, model, tmp_path):
    (corpus / "a" / "0.mp4").write_bytes(b"none")
    assert evaluate(model, corpus, tmp_path / "out", "--probe", "ridge", *SHOWN) == 0
    (stored,) = load_results(tmp_path / "out")
    assert "1 files could not be read" in stored.value.note


def test_errors_are_one_line(corpus, model, tmp_path, capsys):
    lists = tmp_path / "test.csv"
    lists.write_text(f"{corpus}/a/0.mp4 a\n{corpus}/b/1.mp4 b\n{corpus}/c/2.mp4 c\n")
    for args, said in (
        (("--test", lists), "3 files are in two of the lists"),
        (("--probe", "imported"), "holds no probe"),
    ):
        assert evaluate(model, corpus, tmp_path / said[:5], *SHOWN, *args) == 2
        assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match=r"two shares above 0.*chooses and trains nothing"):
        EvaluateConfig(split=(0.9, 0.2), probe="imported", test="x")
    assert main(["evaluate", "--data", str(corpus)]) == 2
    assert 'encoder = "": name a pretraining run' in capsys.readouterr().err


@pytest.fixture
def classifier(tmp_path):
    """A miniature of the published classifier as transformers has it, saved to a folder."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        crop_size=32,
        frames_per_clip=4,
        hidden_size=48,
        num_attention_heads=2,
        num_hidden_layers=2,
        num_pooler_layers=1,
        pred_hidden_size=24,
        pred_num_attention_heads=2,
        pred_num_hidden_layers=1,
        pred_num_mask_tokens=2,
        id2label={0: "a", 1: "b", 2: "c"},
        label2id={"a": 0, "b": 1, "c": 2},
    )
    config._attn_implementation = "sdpa"
    theirs = transformers.VJEPA2ForVideoClassification(config).eval()
    with torch.no_grad():  # fresh weights are so small that all logits would be alike
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    theirs.save_pretrained(tmp_path / "hf")
    return theirs


@torch.no_grad()
def test_an_imported_probe_gives_the_logits_of_its_origin(classifier, corpus, tmp_path, capsys):
    protocol = FrozenProtocol(
        frames=4, step=1, segments=1, views=3, crop=32, spacing="even", like="torchvision"
    )
    path = tmp_path / "wide.mp4"
    film = np.random.default_rng(1).integers(0, 255, (8, 48, 96, 3), np.uint8)
    write_video(path, film, fps=10)
    ours = load(tmp_path / "hf")[0]
    logits = probe_logits(ours.encoder, ours.probe, read_views(path, protocol))
    with open_video(path) as video:
        frames = torch.from_numpy(video.get_frames(range(4)))
    views = normalised(frames, protocol.transform())
    want = torch.cat([classifier(view[None].movedim(-1, 2)).logits for view in views])
    assert want.std() > 0.1
    torch.testing.assert_close(logits, want, atol=1e-5, rtol=1e-5)

    labels = [average_views(logits).argmax().item(), 0, 1]
    paths = [path, *sorted(corpus.rglob("*.mp4"))[:2]]
    lines = [f"{p} {'abc'[label]}\n" for p, label in zip(paths, labels, strict=True)]
    (tmp_path / "list.csv").write_text("".join(lines))
    shown = ("--protocol.frames", "4", "--protocol.step", "1", "--protocol.segments", "1")
    shown += ("--protocol.crop", "32", "--protocol.spacing", "even")
    shown += ("--protocol.like", "torchvision", "--probe", "imported")
    assert evaluate(tmp_path / "hf", tmp_path / "list.csv", tmp_path / "out", *shown) == 0
    numbers = json.loads((tmp_path / "out" / "evaluate.json").read_text())
    (outcome,) = numbers["imported probe"]
    assert outcome["test_right"][0] == 1
    assert len(outcome["test_right"]) == 3
