"""Recipes: files in, models out; damage listed, resume exact, wrong inputs named."""

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.core.errors import CheckpointError, ConfigError, DatasetError, TubeletError
from tubelet.core.run import read_metrics
from tubelet.datasets.clips import ClipConfig
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.trajectories import TrajectorySet, TrajectoryWriter
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa import presets
from tubelet.vjepa.debug_presets import DEBUG_MODELS
from tubelet.vjepa.device import prepare
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.formats.checkpoint import Checkpoint
from tubelet.vjepa.hierarchy_config import HierarchyConfig
from tubelet.vjepa.recipes import (
    PretrainRunConfig,
    TrainConfig,
    load_encoder,
    load_world_model,
    pixel_stats,
    pretrain_encoder,
    split_episodes,
    train_on_trajectories,
)

SIZE = 32
LOOP = LoopConfig(steps=4, log_every=1, report_every=3, save_every=2)


def moving_square(rng, count=17):
    """uint8 [T, SIZE, SIZE, 3]: a bright square that wanders over a pale ground, and its places."""
    places = np.cumsum(rng.integers(-2, 3, (count, 2)), 0) + rng.integers(6, SIZE - 12, 2)
    places = places.clip(0, SIZE - 8)
    frames = np.full((count, SIZE, SIZE, 3), 200, np.uint8)
    for frame, (y, x) in zip(frames, places, strict=True):
        frame[y : y + 8, x : x + 8] = (220, 40, 60)
    return frames, places


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """Eight good videos."""
    folder = tmp_path_factory.mktemp("videos")
    rng = np.random.default_rng(0)
    for i in range(8):
        write_video(folder / f"{i:02d}.mp4", moving_square(rng)[0], fps=25)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A trajectory set of six episodes; the action is the square's next move."""
    root = tmp_path_factory.mktemp("set") / "data"
    rng = np.random.default_rng(1)
    dims = {"proprio_dim": 2, "state_dim": 2, "action_dim": 2}
    writer = TrajectoryWriter.create(root, fps=25, image_size=SIZE, metadata={}, **dims)
    for i in range(6):
        frames, places = moving_square(rng)
        action = np.zeros((len(frames), 2), np.float32)
        action[:-1] = np.diff(places, axis=0) / 2
        writer.add_episode(i, frames, places.astype(np.float32), places.astype(float), action)
    writer.finalize()
    return root


def pretraining(videos, out, **changes):
    train = replace(presets.debug(), loop=LOOP)
    defaults = {"videos": str(videos), "out": str(out), "clips": presets.clips("debug")}
    return PretrainRunConfig(
        **{**defaults, "train": train, "threads": 1, "device": "cpu"} | changes
    )


TRAINED = [  # world models that train their encoder
    name
    for name in presets.WORLD_MODELS
    if not presets.world_model(name, presets.debug().encoder).freeze_encoder
]


SHORT = {"hjepa": {"hierarchy": HierarchyConfig(strides=(2,), first="joint")}}
"""A macro step fits the short horizon."""


def dynamics(name, data, out, encoder, **changes):
    train = presets.world_model(name, presets.debug().encoder)
    model = replace(train.model, image_size=SIZE)
    train = replace(train, model=model, loop=LOOP, horizon=2, batch_size=8, **SHORT.get(name, {}))
    given = "" if name in TRAINED else str(encoder)
    defaults = {"data": str(data), "out": str(out), "encoder": given, "train": train}
    return TrainConfig(**{**defaults, "threads": 1, "device": "cpu"} | changes)


@pytest.fixture(scope="module")
def encoder_run(videos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "encoder"
    pretrain_encoder(pretraining(videos, out))
    return out


def same_weights(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def losses(run):
    return [line["train/loss"] for line in read_metrics(run) if "train/loss" in line]


# --- pretraining -------------------------------------------------------------------------------


def test_pretraining_leaves_a_whole_run(encoder_run):
    assert (encoder_run / "corpus.txt").read_text().startswith("8 videos usable, 0 of 8 bad")
    facts = json.loads((encoder_run / "corpus.json").read_text())
    assert (facts["videos"], facts["frames"], facts["bad"]) == (8, 8 * 17, {})
    word = (encoder_run / "verdict.txt").read_text().split(":")[0].strip()
    assert word in ("healthy", "warning", "collapsed")
    assert len(losses(encoder_run)) == 4


def test_a_converted_checkpoint_is_an_encoder_too(encoder_run, data, tmp_path):
    encoder = load_encoder(encoder_run)
    Checkpoint(encoder=encoder).save_pretrained(tmp_path / "released")
    assert same_weights(load_encoder(tmp_path / "released"), encoder)
    world = train_on_trajectories(
        dynamics("vjepa_vector", data, tmp_path / "world", tmp_path / "released")
    )
    assert same_weights(world.encoder, encoder)


def test_image_folders_train_by_the_same_recipe(tmp_path):
    from PIL import Image

    (tmp_path / "photos").mkdir()
    rng = np.random.default_rng(0)
    for i in range(6):
        pixels = rng.integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{i}.png")
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    config = PretrainRunConfig(
        images=str(tmp_path / "photos"),
        out=str(tmp_path / "run"),
        clips=ClipConfig(size=SIZE),
        train=replace(
            presets.debug(),
            encoder=replace(presets.debug().encoder, patch=4),
            loop=LoopConfig(steps=2, report_every=2, save_every=2),
        ),
        objective="ijepa",
        augment=False,
        pixel_stats="corpus",
        device="cpu",
    )
    model = pretrain_encoder(config)
    assert "6 images usable, 1 of 7 bad" in (tmp_path / "run" / "corpus.txt").read_text()
    encoder = load_encoder(tmp_path / "run")
    assert same_weights(encoder, model.output)
    assert encoder.config.tubelet == 1
    with pytest.raises(ConfigError, match="name one"):
        replace(config, videos="also")


def test_a_frozen_teacher_comes_from_a_run_and_back_with_the_student(encoder_run, videos, tmp_path):
    config = pretraining(videos, tmp_path / "salt", objective="salt", teacher=str(encoder_run))
    model = pretrain_encoder(config)
    teacher = load_encoder(encoder_run)
    assert same_weights(model.target.teacher, teacher)
    student = load_encoder(tmp_path / "salt")
    assert same_weights(student, model.encoder)
    assert not same_weights(student, teacher)


def test_the_loaded_encoder_is_the_frozen_target(encoder_run, videos, tmp_path):
    model = pretrain_encoder(pretraining(videos, tmp_path / "again"))
    encoder = load_encoder(encoder_run)
    assert same_weights(encoder, model.output)
    assert not encoder.training
    assert not any(p.requires_grad for p in encoder.parameters())


@pytest.mark.parametrize("stats", ["imagenet", "corpus"])
def test_an_interrupted_run_resumes_to_the_same_bits(videos, tmp_path, stats):
    config = pretraining(videos, tmp_path / "whole", pixel_stats=stats)
    whole = pretrain_encoder(config)
    looks = []

    def die_at_the_second_look(encoder):
        looks.append(1)
        if len(looks) == 2:
            raise KeyboardInterrupt  # at step 3, after the checkpoint of step 2
        return {}

    config = replace(config, out=str(tmp_path / "cut"))
    with pytest.raises(KeyboardInterrupt):
        pretrain_encoder(config, probe=die_at_the_second_look)
    resumed = pretrain_encoder(replace(config, resume=True, cache=True))
    assert same_weights(resumed, whole)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_resumed_run_refuses_another_corpus(videos, tmp_path):
    folder = tmp_path / "videos"
    shutil.copytree(videos, folder)
    config = pretraining(folder, tmp_path / "run")
    pretrain_encoder(config)
    (folder / "00.mp4").unlink()
    with pytest.raises(DatasetError, match="held 8 usable videos with 136 frames, now 7 with 119"):
        pretrain_encoder(replace(config, resume=True))


def test_five_per_cent_of_damage_is_listed_and_changes_no_batch(videos, tmp_path):
    folder = tmp_path / "damaged"
    folder.mkdir()
    for copy in range(14):
        for path in sorted(videos.iterdir()):
            os.link(path, folder / f"{path.stem}-{copy:02d}.mp4")
    whole = (videos / "00.mp4").read_bytes()
    damage = {
        "00-00x.mp4": b"",
        "01-07x.mp4": whole[: len(whole) // 3],
        "02-03x.mp4": whole[: len(whole) * 9 // 10],
        "03-11x.mp4": np.random.default_rng(0).bytes(4000),
        "04-05x.mp4": b"not a video\n" * 300,
        "07-13x.mp4": b"\x89PNG\r\n\x1a\n" + bytes(500),
    }
    for name, content in damage.items():
        (folder / name).write_bytes(content)
    (folder / "05-00x.txt").write_bytes(whole)  # a video with another extension
    good = tmp_path / "good.txt"
    paths = sorted(str(p) for p in folder.iterdir() if "x" not in p.stem)
    good.write_text("\n".join(paths))

    damaged = pretrain_encoder(pretraining(folder, tmp_path / "a"))
    intact = pretrain_encoder(pretraining(good, tmp_path / "b"))
    assert same_weights(damaged, intact)
    report = (tmp_path / "a" / "corpus.txt").read_text()
    assert report.startswith("112 videos usable, 6 of 118 bad (5.1 %), 1 files with other")
    assert all(f"{name}: " in report for name in [*damage, "05-00x.txt"])
    bad = json.loads((tmp_path / "a" / "corpus.json").read_text())["bad"]
    assert sorted(os.path.basename(path) for path in bad) == sorted(damage)
    assert all(bad.values())


def test_pixel_statistics_of_a_known_corpus(tmp_path):
    for i in range(3):
        frames = np.full((10, 32, 32, 3), 60, np.uint8)
        frames[:, :16] = 180
        write_video(tmp_path / f"{i}.mp4", frames, fps=25)
    index = index_corpus(tmp_path, progress=False)
    mean, std = pixel_stats(index)
    assert mean == pytest.approx([120 / 255] * 3, abs=0.01)
    assert std == pytest.approx([60 / 255] * 3, abs=0.01)
    assert (mean, std) == pixel_stats(index)


def test_a_channel_that_never_changes_is_not_blown_up(tmp_path):
    write_video(tmp_path / "grey.mp4", np.full((4, 32, 32, 3), 128, np.uint8), fps=25)
    assert pixel_stats(index_corpus(tmp_path, progress=False))[1] == (0.05, 0.05, 0.05)


def test_corpus_statistics_reach_the_checkpoint(videos, tmp_path):
    pretrain_encoder(pretraining(videos, tmp_path / "run", pixel_stats="corpus"))
    mean, std = pixel_stats(index_corpus(videos, progress=False))
    encoder = load_encoder(tmp_path / "run")
    assert (encoder.config.pixel_mean, encoder.config.pixel_std) == (mean, std)


def test_clips_of_several_lengths_train_in_one_run(videos, tmp_path):
    clips = replace(presets.clips("debug"), buckets=((4, 25.0, 0.5), (8, 25.0, 0.5)))
    config = pretraining(videos, tmp_path / "run", clips=clips)
    pretrain_encoder(config)
    assert len(losses(tmp_path / "run")) == LOOP.steps
    odd = replace(clips, buckets=((4, 25.0, 0.5), (7, 25.0, 0.5)))
    with pytest.raises(ConfigError, match="nearest valid frames"):
        pretraining(videos, tmp_path / "x", clips=odd)


# --- world models ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", presets.WORLD_MODELS)
def test_every_kind_of_world_model_trains_and_loads(name, data, encoder_run, tmp_path):
    out = tmp_path / "run"
    trained = train_on_trajectories(dynamics(name, data, out, encoder_run))
    model = load_world_model(out)
    assert same_weights(model, trained)
    assert not model.training
    report = json.loads((out / "prediction.json").read_text())
    assert report.keys() >= {"over_copy", "over_copy_1", "over_copy_H", "shuffled"}
    assert (report["windows"], report["episodes"]) == (32, 1)
    if name not in TRAINED:
        assert same_weights(model.encoder, load_encoder(encoder_run))
    pixels = torch.zeros(2, 2, SIZE, SIZE, 3, dtype=torch.uint8)
    with torch.inference_mode():
        latent = model.encode({"pixels": pixels})
        imagined = model.rollout(latent, torch.zeros(2, 3, 4, model.action_dim))
    assert imagined.tokens.shape[:3] == (2, 3, 4)
    assert torch.isfinite(imagined.tokens).all()


@pytest.mark.parametrize("name", ["vjepa_vector", "vjepa_tokens", "end_to_end"])
def test_world_models_can_know_proprioception(name, data, encoder_run, tmp_path):
    config = dynamics(name, data, tmp_path / "run", encoder_run)
    trajectories = TrajectorySet.open(data)
    felt = trajectories.arrays()["proprio"]
    model = replace(config.train.model, proprio_dim=felt.shape[1])
    trained = train_on_trajectories(replace(config, train=replace(config.train, model=model)))
    loaded = load_world_model(tmp_path / "run")
    assert same_weights(loaded, trained)
    kept = trajectories.offsets[-2]  # the last episode is held out
    assert torch.allclose(loaded.proprio_mean, torch.from_numpy(felt[:kept].mean(0)), atol=1e-5)
    wide = replace(config.train, model=replace(model, proprio_dim=felt.shape[1] + 1))
    with pytest.raises(ConfigError, match=f"set it to {felt.shape[1]}"):
        train_on_trajectories(replace(config, out=str(tmp_path / "x"), train=wide))


@pytest.mark.parametrize("name", ["vjepa_vector", "end_to_end", *DEBUG_MODELS])
def test_world_model_training_resumes_to_the_same_bits(
    name, data, encoder_run, tmp_path, monkeypatch
):
    config = dynamics(name, data, tmp_path / "whole", encoder_run)
    whole = train_on_trajectories(config)
    config = replace(config, out=str(tmp_path / "cut"))
    from tubelet.vjepa import dynamics as module

    plain = module.dynamics_losses

    def die(model, config, batch, step):
        if step == 3:
            raise KeyboardInterrupt
        return plain(model, config, batch, step)

    with monkeypatch.context() as patch:
        patch.setattr(module, "dynamics_losses", die)
        with pytest.raises(KeyboardInterrupt):
            train_on_trajectories(config)
    assert same_weights(train_on_trajectories(replace(config, resume=True)), whole)


def test_held_out_episodes_are_the_last_and_never_none():
    assert split_episodes(10, 0.1) == (range(9), range(9, 10))
    assert split_episodes(100, 0.25) == (range(75), range(75, 100))
    assert split_episodes(2, 0.01) == (range(1), range(1, 2))
    assert split_episodes(2, 0.99) == (range(1), range(1, 2))
    with pytest.raises(DatasetError, match="1 episodes cannot be split"):
        split_episodes(1, 0.1)


# --- wrong inputs ------------------------------------------------------------------------------


def test_sizes_that_the_tubelet_does_not_divide_are_refused_at_once(videos):
    with pytest.raises(ConfigError, match=r"clip height = 30 .* the nearest valid height: 32"):
        pretraining(videos, "x", clips=ClipConfig(frames=4, size=30))
    with pytest.raises(ConfigError, match=r"clip frames = 5 .* the nearest valid frames: [46]"):
        pretraining(videos, "x", clips=ClipConfig(frames=5, size=32))


def test_other_impossible_configs(videos, data, tmp_path):
    with pytest.raises(ConfigError, match="set that"):
        pretraining(videos, "x", clips=ClipConfig(frames=4, size=32, seed=5))
    with pytest.raises(ConfigError, match="held_out = 1"):
        TrainConfig(held_out=1.0)
    with pytest.raises(ConfigError, match="name a folder of videos"):
        pretrain_encoder(pretraining("", tmp_path / "x"))
    with pytest.raises(ConfigError, match="name the folder of a trajectory set"):
        train_on_trajectories(dynamics("end_to_end", "", tmp_path / "x", ""))
    with pytest.raises(ConfigError, match="name a pretraining run"):
        train_on_trajectories(dynamics("vjepa_vector", data, tmp_path / "x", ""))
    config = dynamics("end_to_end", data, tmp_path / "x", "")
    wide = replace(config.train, model=replace(config.train.model, action_dim=3))
    with pytest.raises(ConfigError, match=r"action_dim = 3.* have width 2: set it to 2"):
        train_on_trajectories(replace(config, train=wide))
    assert not (tmp_path / "x").exists()


def test_devices_and_threads_that_do_not_exist():
    with pytest.raises(ConfigError, match="device = 'gpu'"):
        prepare("gpu", 0)
    with pytest.raises(ConfigError, match="threads = -1"):
        prepare("cpu", -1)


def test_checkpoints_of_another_kind_or_architecture(data, encoder_run, tmp_path):
    run = tmp_path / "world"
    train_on_trajectories(dynamics("end_to_end", data, run, ""))
    with pytest.raises(CheckpointError, match="holds a world model, not an encoder of videos"):
        load_encoder(run)
    with pytest.raises(CheckpointError, match="an encoder of videos or images, not a world model"):
        load_world_model(encoder_run)
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_encoder(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(encoder_run, copy)
    for path in copy.glob("checkpoints/step-*/config.toml"):
        path.write_text(path.read_text().replace("width = 48", "width = 96"))
    with pytest.raises(CheckpointError, match=r"does not fit this architecture.*mis-shaped"):
        load_encoder(copy)


def test_a_failure_before_training_leaves_the_folder_free_to_be_used(videos, tmp_path):
    (tmp_path / "empty").mkdir()
    out = tmp_path / "run"
    with pytest.raises(DatasetError, match="no video files"):
        pretrain_encoder(pretraining(tmp_path / "empty", out))
    (tmp_path / "empty" / "a.mp4").touch()
    with pytest.raises(DatasetError, match="1 of 1 videos are bad, none is usable"):
        pretrain_encoder(pretraining(tmp_path / "empty", out))
    pretrain_encoder(pretraining(videos, out))


def test_a_run_folder_that_cannot_be_written(videos, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(TubeletError, match=r"cannot write the run folder .*file"):
        pretrain_encoder(pretraining(videos, tmp_path / "file"))
