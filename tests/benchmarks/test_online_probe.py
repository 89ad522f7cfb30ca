"""The probe that runs along with training, on clips whose right answers are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.benchmarks.online_probe import (
    NEIGHBOURS,
    TEMPERATURE,
    OnlineProbeConfig,
    mean_tokens,
    online_probe,
    probe_scores,
    read_probe_clips,
)
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.run import read_metrics
from tubelet.datasets.clips import ClipConfig
from tubelet.datasets.decode import open_video
from tubelet.datasets.synthetic.make import MovingShapesConfig, make_moving_shapes
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.presets import debug
from tubelet.vjepa.recipes import PretrainRunConfig, pretrain_encoder

CLIPS = ClipConfig(frames=4, size=16)


def encoder():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=8))


@pytest.fixture
def bright(tmp_path):
    """Dark and bright videos with their labels, one damaged file and one that is too short."""
    lines = []
    for number in range(30):
        level = 40 if number % 2 else 200
        noise = np.random.default_rng(number).integers(-20, 20, (6, 16, 16, 3))
        write_video(tmp_path / f"{number}.mp4", (level + noise).astype(np.uint8), fps=10)
        lines.append(f"{number}.mp4 {'dark' if number % 2 else 'bright'}")
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    write_video(tmp_path / "short.mp4", np.zeros((2, 16, 16, 3), np.uint8), fps=10)
    (tmp_path / "list.txt").write_text("\n".join([*lines, "bad.mp4 dark", "short.mp4 dark"]))
    return tmp_path / "list.txt"


def test_what_differs_is_read_and_bad_files_are_left_out(bright):
    config = OnlineProbeConfig(data=str(bright))
    shown = read_probe_clips(config, CLIPS)
    assert {path.rsplit("/", 1)[-1] for path in shown.bad} == {"bad.mp4", "short.mp4"}
    assert shown.video.shape == (30, 4, 16, 16, 3)
    scores = online_probe(config, CLIPS)(encoder())
    assert scores["probe/linear"] == scores["probe/knn"] == 1.0
    assert scores["probe/chance"] < 0.7


def test_clips_come_from_the_middle(bright):
    shown = read_probe_clips(OnlineProbeConfig(data=str(bright)), CLIPS)
    with open_video(bright.parent / "0.mp4") as video:
        middle = torch.from_numpy(video.get_frames(range(1, 5)))
    assert any(torch.equal(clip, middle) for clip in shown.video)


def test_the_encoder_is_left_as_it_was_and_the_batch_changes_nothing(bright):
    config, model = OnlineProbeConfig(data=str(bright)), encoder().train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    scores = online_probe(config, CLIPS)(model)
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert online_probe(replace(config, batch=7), CLIPS)(model) == scores
    video = read_probe_clips(config, CLIPS).video
    with torch.no_grad():
        want = model.eval()(video).mean(1)
    torch.testing.assert_close(mean_tokens(model, video, 4), want)


def test_moving_shapes_give_a_score_for_each_factor(tmp_path):
    make_moving_shapes(tmp_path, MovingShapesConfig(count=12, size=32, frames=5), progress=False)
    config = OnlineProbeConfig(data=str(tmp_path), factors=("direction", "camera"), limit=8)
    scores = online_probe(config, CLIPS)(encoder())
    kinds = ("linear", "knn", "chance")
    assert set(scores) == {f"probe/{f}/{k}" for f in ("direction", "camera") for k in kinds}
    assert all(0 <= score <= 1 for score in scores.values())
    assert len(read_probe_clips(config, CLIPS).video) == 8
    with pytest.raises(ConfigError, match="no size in"):
        online_probe(replace(config, factors=("size",)), CLIPS)


def test_a_run_of_pretraining_logs_it_with_its_diagnostics(tmp_path):
    films = MovingShapesConfig(count=8, size=32, frames=5)
    make_moving_shapes(tmp_path / "films", films, progress=False)
    loop = LoopConfig(steps=3, log_every=1, report_every=2, save_every=3)
    config = PretrainRunConfig(
        videos=str(tmp_path / "films" / "videos"),
        out=str(tmp_path / "run"),
        clips=ClipConfig(frames=4, size=32),
        train=replace(debug(), loop=loop),
        device="cpu",
    )
    probed = OnlineProbeConfig(data=str(tmp_path / "films"), factors=("shape",))
    pretrain_encoder(config, probe=online_probe(probed, config.clips))
    lines = [line for line in read_metrics(tmp_path / "run") if "probe/shape/linear" in line]
    assert [line["step"] for line in lines] == [0, 2]
    assert all(0 <= line["probe/shape/knn"] <= 1 for line in lines)
    assert all("clip_std" in line for line in lines)


def test_scores_are_those_of_normal_equations_and_of_every_neighbour():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 5, generator=generator) * torch.tensor([1, 3, 0.1, 1, 2]) + 4
    y = (x[:, 0] + 0.5 * torch.randn(60, generator=generator) > 4).long() + (x[:, 3] > 5).long()
    found = probe_scores(x[:40], y[:40], x[40:], y[40:])

    mean, std = x[:40].double().mean(0), x[:40].double().std(0, correction=0)
    a, b = (x[:40] - mean) / std, (x[40:] - mean) / std
    votes = torch.eye(3, dtype=torch.float64)[y[:40]]
    weights = torch.linalg.solve(
        a.T @ a + 0.01 * 40 * torch.eye(5, dtype=torch.float64), a.T @ (votes - votes.mean(0))
    )
    linear = (b @ weights + votes.mean(0)).argmax(1)
    assert found["linear"] == (linear == y[40:]).double().mean().item()
    right = 0
    for row, label in zip(b, y[40:], strict=True):
        cosine = torch.nn.functional.cosine_similarity(row[None], a)
        best = cosine.argsort(descending=True)[:NEIGHBOURS]
        tally = torch.zeros(3, dtype=torch.float64)
        for i in best:
            tally[y[i]] += torch.exp((cosine[i] - 1) / TEMPERATURE)
        right += int(tally.argmax() == label)
    assert found["knn"] == pytest.approx(right / 20)
    assert found["linear"] > found["chance"]


def test_features_that_never_vary_score_chance():
    y = torch.tensor([0, 0, 0, 1])
    found = probe_scores(torch.ones(4, 3), y, torch.ones(4, 3), y)
    assert found["linear"] == found["chance"] == 0.75
    assert found["knn"] == 0.75


@pytest.mark.parametrize(("change", "said"), [({"limit": 3}, "limit = 3"), ({"batch": 0}, "batch")])
def test_wrong_settings_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        OnlineProbeConfig(**change)


def test_too_few_clips_are_one_clear_error(tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"")
    (tmp_path / "b.mp4").write_bytes(b"")
    (tmp_path / "list.txt").write_text("a.mp4 x\nb.mp4 y\n")
    with pytest.raises(DatasetError, match="0 labelled clips, and 4 are needed"):
        online_probe(OnlineProbeConfig(data=str(tmp_path / "list.txt")), CLIPS)
