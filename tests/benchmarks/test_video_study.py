"""The study of videos: arms that differ in the target alone, probes and tables of known answers."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tubelet.benchmarks import video_study
from tubelet.benchmarks.objective_study import untrained
from tubelet.benchmarks.video_arms import (
    ArmConfig,
    PixelTarget,
    arm_config,
    encoder_path,
    snapshots,
    step_cost,
    train_arm,
    tubelets,
)
from tubelet.benchmarks.video_floors import motion_by_hand, pixel_components
from tubelet.benchmarks.video_probes import (
    ProbeConfig,
    attentive_probe,
    few_labels,
    linear_probe,
    split_clips,
)
from tubelet.benchmarks.video_study import Size, VideoStudyConfig, run_video_study
from tubelet.benchmarks.video_tables import flops_ratio, flops_to_reach, study_tables
from tubelet.core.errors import ConfigError
from tubelet.core.run import read_metrics
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.objectives.targets import Target
from tubelet.vjepa.positions import sincos_table
from tubelet.vjepa.pretrain import build

TINY = ArmConfig(
    encoder=EncoderConfig(width=24, depth=1, heads=2, patch=8),
    frames=4,
    size=32,
    batch=4,
    steps=9,
)


# --- arms -------------------------------------------------------------------------------------


def test_arms_share_everything_but_the_target():
    latent, pixels = (build(arm_config(name, TINY, 5), teacher=teacher(name)) for name in NAMES)
    for name, value in latent.encoder.state_dict().items():
        assert torch.equal(value, pixels.encoder.state_dict()[name]), name
    one, other = (arm_config(name, TINY, 5) for name in NAMES)
    assert one.encoder == other.encoder
    assert one.masks == other.masks
    assert one.batch_size == other.batch_size
    assert replace(one.predictor, target_width=384) == other.predictor


NAMES = ("latent", "pixels")


def teacher(name):
    return PixelTarget(TINY.encoder) if name == "pixels" else None


def test_arms_cost_the_same():
    arm = ArmConfig(steps=600)
    costs = {name: arm_config(name, arm, 0) for name in NAMES}
    total = {name: step_cost(c, arm) * c.loop.steps for name, c in costs.items()}
    assert total["pixels"] == pytest.approx(total["latent"], rel=2e-3)
    assert costs["pixels"].loop.steps > costs["latent"].loop.steps  # no teacher to run


def test_pixel_targets_are_the_tubelets_own_pixels_normalised():
    video = torch.randint(0, 256, (2, 4, 32, 32, 3), dtype=torch.uint8)
    encoder = TubeletEncoder(TINY.encoder)
    cut = tubelets(video, encoder.grid(video))
    assert torch.equal(cut, encoder.patchify(video, encoder.grid(video)))
    first = video[0, :2, 8:16, 16:24].flatten()  # second row, third column of the first two frames
    assert torch.equal(cut[0, 1 * 4 + 2], first)
    config = arm_config("pixels", TINY, 0).objective.target
    target = Target(config, encoder, PixelTarget(TINY.encoder))(encoder, video, all_levels=False)
    torch.testing.assert_close(target.mean(-1), torch.zeros(2, 32), atol=1e-5, rtol=0)
    torch.testing.assert_close(target.var(-1, correction=0), torch.ones(2, 32), atol=1e-2, rtol=0)
    wanted = torch.nn.functional.layer_norm(first.float() / 255, (384,))
    torch.testing.assert_close(target[0, 6], wanted)


def test_snapshots_lie_where_the_loop_looks():
    config = arm_config("latent", replace(TINY, steps=800), 0)
    assert snapshots(config) == [101, 201, 401, 800]
    assert snapshots(arm_config("latent", TINY, 0)) == [2, 3, 5, 9]


def test_an_unknown_arm_is_refused():
    with pytest.raises(ConfigError, match="choose latent or pixels"):
        arm_config("words", TINY, 0)


# --- floors -----------------------------------------------------------------------------------


@pytest.mark.parametrize(("along", "down"), [(1.0, 0.0), (-1.5, 0.0), (0.0, 1.0), (0.8, -0.8)])
def test_motion_by_hand_is_the_motion_of_a_smooth_blob(along, down):
    y, x = np.mgrid[:48, :48].astype(np.float64)
    frames = [
        240 * np.exp(-((x - 24 - along * t) ** 2 + (y - 24 - down * t) ** 2) / 50) for t in range(4)
    ]
    clips = np.repeat(np.stack(frames)[None, ..., None], 3, axis=-1).astype(np.uint8)
    found = motion_by_hand(clips, 8)["linear"]
    assert found.shape == (1, 1, 8)
    cosine, sine, log = found[0, 0, :3].astype(np.float64)
    speed = math.hypot(along, down)
    assert (cosine, sine) == pytest.approx((along / speed, down / speed), abs=0.05)
    assert math.exp(log) == pytest.approx(speed, rel=0.15)
    assert not found[0, 0, 3:].any()


def test_motion_of_a_still_clip_is_no_error():
    assert np.isfinite(motion_by_hand(np.zeros((1, 2, 16, 16, 3), np.uint8), 4)["linear"]).all()


def test_pixel_components_say_where_tubelets_are():
    clips = np.random.default_rng(0).integers(0, 255, (40, 4, 32, 32, 3), np.uint8)
    clips[:, :, 8:16] = clips[:, :, :8]  # two rows of tubelets are alike but for their place
    found = pixel_components(clips, TINY, np.arange(30))
    assert found["linear"].shape == (40, 1, 24)
    assert found["attentive"].shape == (40, 32, 24)
    places = sincos_table(TINY.encoder.grid(4, 32, 32), 24).numpy()
    difference = found["attentive"][:, :4].astype(np.float32) - found["attentive"][:, 4:8]
    np.testing.assert_allclose(
        difference, np.broadcast_to(places[:4] - places[4:8], difference.shape), atol=1e-2
    )


# --- probes -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def coded():
    """Clips of 12 tokens; one of them, anywhere, says the class of each of two factors."""
    generator = np.random.default_rng(0)
    labels = {"a": generator.integers(3, size=500), "b": generator.integers(2, size=500)}
    tokens = 0.3 * generator.standard_normal((500, 12, 16))
    place = generator.integers(12, size=500)
    tokens[np.arange(500), place, labels["a"]] += 4
    tokens[np.arange(500), place, 8 + labels["b"]] += 4
    return tokens.astype(np.float16), labels


def test_probes_read_what_is_there_and_nothing_else(coded):
    tokens, labels = coded
    split, config = split_clips(500, 0), ProbeConfig()
    read = attentive_probe(tokens, labels, split, config, epochs=30, seed=0)
    assert min(read.values()) > 0.9
    assert min(linear_probe(tokens, labels, split, config).values()) > 0.8
    mixed = {name: np.random.default_rng(1).permutation(y) for name, y in labels.items()}
    read = attentive_probe(tokens, mixed, split, config, epochs=5, seed=0)
    assert read["a"] < 0.5
    assert read["b"] < 0.68
    assert linear_probe(tokens, mixed, split, config)["a"] < 0.5


def test_few_labels_are_balanced_and_leave_the_test_clips(coded):
    _, labels = coded
    split = split_clips(500, 3)
    few = few_labels(split, labels["a"], 12, 3)
    for rows, every in ((few.train, split.train), (few.valid, split.valid)):
        assert np.bincount(labels["a"][rows]).tolist() == [12, 12, 12]
        assert np.isin(rows, every).all()
        assert len(set(rows.tolist())) == 36
    assert np.array_equal(few.test, split.test)
    with pytest.raises(ConfigError, match="probe more videos"):
        few_labels(split, labels["a"], 400, 3)


def test_splits_share_no_clip_and_lose_none():
    split = split_clips(101, 7)
    rows = np.concatenate([split.train, split.valid, split.test])
    assert np.array_equal(np.sort(rows), np.arange(101))
    assert not np.array_equal(split.test, split_clips(101, 8).test)


# --- tables -----------------------------------------------------------------------------------


def test_compute_to_an_accuracy_is_read_off_the_curve():
    curve = [(1e9, 0.2), (1e10, 0.4), (1e11, 0.3), (1e12, 0.8)]
    assert flops_to_reach(curve, 0.1) == 1e9
    assert flops_to_reach(curve, 0.3) == pytest.approx(10**9.5)
    assert flops_to_reach(curve, 0.8) == pytest.approx(1e12)
    assert flops_to_reach(curve, 0.9) == math.inf


def test_an_arm_that_is_three_times_slower_needs_three_times_the_compute():
    def know(flops):
        return 0.1 * math.log10(flops)

    latent = [(f, know(f)) for f in (1e9, 2e9, 4e9, 1e10)]
    pixels = [(f, know(f / 3)) for f in (1e9, 2e9, 4e9, 1e10)]
    assert flops_ratio(latent, pixels) == pytest.approx(3.0)
    assert flops_ratio(pixels, latent) == pytest.approx(1 / 3)


def fake_score(arm, seed, accuracy):
    probes = {readout: {"direction": accuracy, "speed": 0.5} for readout in ("linear", "attentive")}
    points = [{"steps": 1, "flops": 1e12, "probes": probes}]
    settings = {"arm": arm, "seed": seed, "videos": 9, "probes": 8, "labels": 2}
    return {"settings": settings, "checkpoints": points, "few": probes}


def test_differences_are_paired_by_seed():
    scores = [fake_score("latent", s, 0.6 + 0.1 * s) for s in range(3)]
    scores += [fake_score("untrained", s, 0.5 + 0.1 * s) for s in (2, 0, 1)]
    tables = {t.title: t for t in study_tables(scores, ("direction", "speed"))}
    (row,) = tables["Frozen linear probes: paired differences"].rows
    assert row == [
        "latent − untrained",
        "3",
        "+0.100 [+0.100, +0.100]",
        "+0.000 [+0.000, +0.000]",
        "+0.050 [+0.050, +0.050]",
        "better",
    ]
    few = tables["Frozen attentive probes, 2 labels a class: test accuracy"]
    assert [r[0] for r in few.rows] == ["latent", "untrained"]
    alone = study_tables(scores[:1] + scores[4:5], ("direction", "speed"))
    assert alone[1].rows[0][-1] == "not judged: one seed"
    with pytest.raises(ConfigError, match="at least one score"):
        study_tables([], ("direction",))


# --- the whole --------------------------------------------------------------------------------


@pytest.fixture
def small(monkeypatch):
    size = Size(
        videos=3,
        probes=150,
        labels=1,
        length=7,
        training=TINY,
        probe=ProbeConfig(epochs=1, few_epochs=1, lrs=(1e-3,), penalties=(0.1,)),
    )
    monkeypatch.setitem(video_study.SIZES, "debug", size)
    return size


class Stub:
    """A training that leaves the encoder as it is."""

    def __init__(self):
        self.calls = []

    def __call__(self, name, arm, films, cache, out, seed):
        self.calls.append((name, seed, len(films)))
        weights = untrained(TubeletEncoder(arm.encoder), seed).state_dict()
        for steps in snapshots(arm_config(name, arm, seed)):
            encoder_path(out, steps).parent.mkdir(parents=True, exist_ok=True)
            save_file(weights, encoder_path(out, steps))


@pytest.mark.slow
def test_an_encoder_that_learnt_nothing_ties_with_itself_and_finished_parts_are_kept(
    tmp_path, small
):
    train, config = Stub(), VideoStudyConfig(preset="debug", out=str(tmp_path), seeds=1)
    tables = {table.title: table for table in run_video_study(config, train)}
    assert train.calls == [("latent", 0, 3), ("pixels", 0, 3)]
    differences = tables["Frozen attentive probes: paired differences"].rows
    assert [row[0] for row in differences][:2] == ["latent − untrained", "latent − pixel PCA"]
    assert set(differences[0][2:-1]) == {"+0.000"}
    compute = tables["Latents or pixels: test accuracy over compute"]
    assert len(compute.rows) == 2 * 2 * 4  # readouts, arms, snapshots
    assert "times the operations" in compute.note
    written = (tmp_path / "tables.md").read_text()
    assert all(title in written for title in tables)
    again = run_video_study(config, train)
    assert [t.rows for t in again] == [t.rows for t in tables.values()]
    assert len(train.calls) == 2
    score = json.loads((tmp_path / "scores" / "latent-0.json").read_text())
    score["settings"]["videos"] = 4
    (tmp_path / "scores" / "latent-0.json").write_text(json.dumps(score))
    with pytest.raises(ConfigError, match="videos = 4, not 3"):
        run_video_study(config, train)


@pytest.mark.parametrize("name", NAMES)
def test_an_arm_trains_and_keeps_its_encoders(tmp_path, small, name):
    study = video_study._Study(tmp_path, replace(small, probes=5), train_arm)
    train_arm(name, study.arm, study.films, study.cache, tmp_path / "run", 0)
    kept = sorted(path.stem for path in (tmp_path / "run" / "encoders").iterdir())
    config = arm_config(name, study.arm, 0)
    assert kept == [f"{steps:06d}" for steps in snapshots(config)]
    losses = [line["train/loss"] for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert losses
    assert all(math.isfinite(loss) for loss in losses)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"arms": ("latnt",)}, "did you mean 'latent'"),
        ({"arms": ()}, "name some"),
        ({"preset": "huge"}, "choose one of small, long, textured, debug"),
    ],
)
def test_wrong_settings_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        VideoStudyConfig(**change)
