"""Surprise of models and baselines: theorems, oracles, one path against another."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from tubelet.benchmarks.voe.dynamics import DynamicsScorer, StepConfig
from tubelet.benchmarks.voe.masked import (
    MaskedParts,
    MaskedScorer,
    copied,
    dense_split,
    extrapolated,
    untrained,
)
from tubelet.benchmarks.voe.metrics import surprise, window_losses
from tubelet.benchmarks.voe.models import load_candidate
from tubelet.benchmarks.voe.pixels import PixelBaselines, PixelModel
from tubelet.benchmarks.voe.score import ScoreConfig, score_set
from tubelet.benchmarks.voe.speed import SpeedConfig, one_by_one, quadruplet
from tubelet.benchmarks.voe.store import open_run
from tubelet.benchmarks.voe.surprise import group_losses
from tubelet.benchmarks.voe.tables import (
    Reading,
    accuracy_table,
    chance_groups,
    pair_scores,
    quadruplets,
    timings,
)
from tubelet.benchmarks.voe.truth import TruthScorer
from tubelet.benchmarks.voe.windows import WindowConfig, sampled, starts
from tubelet.core.errors import CheckpointError, ConfigError, DatasetError
from tubelet.core.latent import Latent
from tubelet.core.rng import numpy_generator
from tubelet.datasets.voe.frames import ArrayFrames
from tubelet.datasets.voe.record import Pair, VoeSet, VoeVideo
from tubelet.envs.physics import CONDITIONS
from tubelet.envs.physics.assets import Rejected
from tubelet.envs.physics.jobs import GenerateConfig, Job, ask_of, plan_of
from tubelet.envs.physics.quadruplet import TWINS
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.formats.checkpoint import Checkpoint
from tubelet.vjepa.objectives.targets import TargetConfig
from tubelet.vjepa.positions import Grid
from tubelet.vjepa.predictor import PredictorConfig

from .voe_toy import bridged, vanishing, voe_set

ENCODER = EncoderConfig(width=24, depth=1, heads=2, patch=8)
PREDICTOR = PredictorConfig(width=24, depth=1, heads=2)
SMALL = WindowConfig(window=4, contexts=(2,), stride=1, skip=1)


def tiny(seed=0):
    return untrained(ENCODER, PREDICTOR, TargetConfig(norm="layer"), seed, "cpu")


def run_of(voe, path, windows=SMALL, **more):
    """Score a set and read the run back."""
    config = ScoreConfig(data="toy", windows=windows, **{"gallery": 0, "untrained": 2, **more})
    score_set(voe, config, path)
    return open_run(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A converted checkpoint with a predictor."""
    folder, parts = tmp_path_factory.mktemp("model"), tiny(5)
    Checkpoint(parts.encoder, parts.predictor).save_pretrained(folder)
    return str(folder)


# --- windows and masks ---------------------------------------------------------------------------


def test_the_published_protocol_has_17_windows_on_intphys():
    frames = ArrayFrames(np.zeros((100, 8, 8, 3), np.uint8))
    config = WindowConfig(most=98)
    numbers = sampled(VoeVideo(name="a", group="a", frames=frames), config)
    assert (len(numbers), numbers[-1], len(starts(len(numbers), config))) == (49, 96, 17)


@pytest.mark.parametrize("grid", [Grid(8, 14, 14), Grid(8, 16, 16), Grid(4, 3, 5)])
def test_masks_cover_whatever_grid_the_model_has(grid):
    context, future = dense_split(grid, 3)
    assert torch.equal(torch.cat([context, future], 1)[0], torch.arange(grid.size))
    assert context.shape[1] == 3 * grid.h * grid.w
    with pytest.raises(ConfigError, match="time steps"):
        dense_split(grid, grid.t)


def test_impossible_windows_are_refused():
    with pytest.raises(ConfigError, match="contexts"):
        WindowConfig(window=8, contexts=(8,))
    frames = ArrayFrames(np.zeros((6, 16, 16, 3), np.uint8))
    with pytest.raises(DatasetError, match="a window has 16"):
        sampled(VoeVideo(name="a", group="a", frames=frames), WindowConfig())
    with pytest.raises(ConfigError, match="nearest"):
        MaskedScorer(tiny())(np.zeros((1, 4, 16, 16, 3), np.uint8), [3])


# --- V-JEPA's surprise ---------------------------------------------------------------------------


def test_surprise_is_the_papers_formula():
    parts = MaskedParts(
        tiny(1).encoder, tiny(2).encoder, tiny(3).predictor, TargetConfig(norm="layer")
    )
    windows = np.random.default_rng(0).integers(0, 256, (3, 6, 16, 24, 3), np.uint8)
    with torch.inference_mode():
        found = MaskedScorer(parts)(windows, [2, 4])
        video = torch.from_numpy(windows)
        target = F.layer_norm(parts.target(video), (24,))
        for i, steps in enumerate((1, 2)):
            cut = steps * 6
            ids = torch.arange(18).expand(3, -1)
            context = parts.encoder(video[:, : 2 * steps])  # the context's frames alone
            guess = parts.predictor(context, ids[:, :cut], ids[:, cut:], Grid(3, 2, 3), 0)
            expected = (guess - target[:, cut:]).abs().mean((1, 2))
            torch.testing.assert_close(found[0, :, i].nanmean((1, 2, 3)), expected)
            known = F.layer_norm(parts.target(video[:, : 2 * steps]), (24,))
            last = known[:, -6:].repeat(1, 3 - steps, 1)
            expected = (last - target[:, cut:]).abs().mean((1, 2))
            torch.testing.assert_close(found[1, :, i].nanmean((1, 2, 3)), expected)
    assert found.shape == (3, 3, 2, 3, 2, 3)
    assert found[0, :, 1, :2].isnan().all()
    assert not found[0, :, 1, 2:].isnan().any()


def test_linear_extrapolation_is_exact_on_lines_and_unknown_from_one_step():
    t = torch.arange(5.0).view(1, 5, 1, 1)
    line = 2 + 3 * t.expand(1, 5, 2, 4)
    torch.testing.assert_close(extrapolated(line[:, :2], 5), line[:, 2:].flatten(1, 2))
    torch.testing.assert_close(
        copied(line[:, :2], 5), line[:, 1:2].repeat(1, 3, 1, 1).flatten(1, 2)
    )
    assert extrapolated(line[:, :1], 5).isnan().all()


@pytest.mark.parametrize("recombined", [True, False])
def test_shared_windows_and_contexts_change_no_loss(recombined):
    config = SpeedConfig(
        frames=14, size=16, windows=WindowConfig(window=6, contexts=(2, 4), skip=1)
    )
    videos, scorer = quadruplet(config, recombined=recombined), MaskedScorer(tiny())
    apart = one_by_one(videos, scorer, config.windows)
    found = group_losses(videos, scorer, config.windows, batch=3)
    np.testing.assert_allclose(found.losses[0], apart, atol=1e-5)
    every = 4 * len(starts(14, config.windows))
    assert (found.scored < every) == recombined


def test_token_losses_average_to_the_steps_losses():
    videos = voe_set(bridged(1), cut=10).videos
    found = group_losses(videos, MaskedScorer(tiny()), SMALL, tokens_of=0)
    assert found.tokens.shape[2:] == (2, 2, 2)
    mean = found.tokens.astype(np.float32).mean((-1, -2))
    np.testing.assert_allclose(mean, found.losses[0, :, 0], atol=2e-3)


def test_l2_and_cosine_distances_differ_from_l1_and_unknown_ones_are_refused():
    windows = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3), np.uint8)
    with torch.inference_mode():
        l1, l2, cos = (
            MaskedScorer(tiny(), distance=d)(windows, [2])[0] for d in ("l1", "l2", "cos")
        )
    assert not torch.allclose(l1.nanmean(), l2.nanmean())
    assert 0 <= cos.nanmean() <= 2
    with pytest.raises(ConfigError, match="l1, l2, cos"):
        MaskedScorer(tiny(), distance="l3")  # pyright: ignore


# --- theorems on matched videos ------------------------------------------------------------------


def test_average_surprise_is_at_chance_when_the_window_fits_in_the_bridge(tmp_path, model):
    """Short-window theorem: if a window spans at most L + 1 frames, P and I have the same ones."""
    voe = voe_set(bridged(4, bridge=5), cut=10)
    run = run_of(
        voe, tmp_path, WindowConfig(window=6, contexts=(2, 4), stride=1, skip=1), model=model
    )
    assert all(chance_groups(run).values())
    assert len(run.scorers) == 3 + 3 + 2
    for name in run.scorers:
        for context in (0, 2, 4):
            if name == "linear" and context == 2:
                continue  # one known step: no line
            reading = Reading(context=context)
            assert pair_scores(run, name, reading).values.mean() == 0.5, name
            assert quadruplets(run, name, reading) == (0.5, 0.0), name


def test_a_window_longer_than_the_bridge_is_not_at_chance_by_construction(tmp_path):
    voe = voe_set(bridged(4, bridge=5), cut=10)
    run = run_of(voe, tmp_path, WindowConfig(window=7, contexts=(2,), stride=1, skip=1))
    assert not any(chance_groups(run).values())


def test_null_quadruplets_are_at_one_half(tmp_path, model):
    clips = [[quad[0]] * 4 for quad in bridged(3)]
    voe = voe_set(clips, cut=10)
    run = run_of(voe, tmp_path, SMALL, model=model)
    for name in run.scorers:
        if name == "linear":
            continue
        for how in ("avg", "max", "late"):
            values = pair_scores(run, name, Reading(aggregate=how)).values
            assert (values == 0.5).all(), name
        strict = pair_scores(run, name, Reading(strict_ties=True)).values
        assert (strict == 0).all()


def test_frame_difference_solves_visible_static_permanence(tmp_path):
    run = run_of(voe_set(vanishing(5), cut=6), tmp_path)
    for how in ("avg", "max", "late"):
        reading = Reading(aggregate=how)
        assert (pair_scores(run, "frame difference", reading).values == 1).all()
    assert quadruplets(run, "frame difference", Reading()) == (1, 1)
    assert timings(run, "frame difference", Reading()) == (1, 0)


@pytest.mark.parametrize("condition", CONDITIONS)
def test_an_observer_of_the_true_states_is_always_right(tmp_path, condition):
    """The frames are noise: what tells is in the states and the scene alone. All principles:
    tests/envs/physics/test_laws.py."""
    (tmp_path / "truth").mkdir()
    (tmp_path / "scenes").mkdir()
    config = GenerateConfig(frames=32)
    videos, pairs = [], []
    noise = np.random.default_rng(0).integers(0, 256, (32, 8, 8, 3), np.uint8)
    for principle in ("shape", "gravity", "containment"):
        job = Job("probe", "test", "probe", principle, condition, 0)
        plan = next(filter(None, (_plan(config, job, attempt) for attempt in range(40))))
        (tmp_path / "scenes" / f"{principle}.xml").write_text(plan.xml())
        tracks = plan.all_tracks()
        for recipe, track in tracks.items():
            truth = tmp_path / "truth" / f"{principle}{recipe}.npz"
            np.savez(truth, pose=track.pose, present=track.present)
            impossible = recipe in ("AB", "BA", "12", "21")
            videos.append(
                VoeVideo(
                    name=f"{principle}{recipe}",
                    group=principle,
                    frames=ArrayFrames(noise),
                    possible=not impossible,
                    principle=principle,
                    condition=condition,
                    fps=16,
                    truth=str(truth),
                    tags={"things": [{"name": t.name, "kind": t.kind} for t in plan.things]},
                )
            )
            if impossible:
                name = f"{principle}{recipe}"
                for match, twin in zip(("prefix", "suffix"), TWINS[recipe], strict=True):
                    possible = f"{principle}{twin}"
                    pairs.append(
                        Pair(group=principle, possible=possible, impossible=name, match=match)
                    )
    voe = VoeSet(name="toy", videos=tuple(videos), pairs=tuple(pairs))
    windows = WindowConfig(window=8, contexts=(2, 4), stride=1, skip=1)
    run = run_of(voe, tmp_path / "run", windows)
    for match in ("prefix", "suffix"):
        for context in (0, 2, 4):
            for how in ("avg", "max") if context else ("avg",):
                reading = Reading(aggregate=how, context=context, match=match)
                scores = pair_scores(run, "ground truth", reading)
                wrong = [n for n, v in zip(scores.names, scores.values, strict=True) if v != 1]
                assert not wrong, (match, context, how)
    table = accuracy_table(run, Reading())
    assert "100.0" in table.rows[-1][table.columns.index("ground truth")]


def _plan(config, job, attempt):
    try:
        return plan_of(job, ask_of(config, job), numpy_generator(0, *job.names, attempt))
    except Rejected:
        return None


def test_missing_states_are_an_error():
    video = voe_set(bridged(1), cut=10).videos[0]
    with pytest.raises(DatasetError, match="no true states"):
        TruthScorer().observe(video, np.arange(3))
    with pytest.raises(DatasetError, match="cannot be read"):
        TruthScorer().observe(replace(video, truth="nowhere/truth/a.npz"), np.arange(3))


# --- pixels and world models ---------------------------------------------------------------------


def test_pixel_baselines_by_hand():
    clip = np.zeros((1, 4, 8, 8, 3), np.uint8)
    clip[0, :, :] = np.array([0, 51, 102, 255])[:, None, None, None]  # 0, .2, .4, 1
    found = PixelBaselines()(clip, [2, 1])[:, 0, :, :, 0, 0]
    nan = float("nan")
    expected = {
        "persistence": [[nan, nan, 0.2, 0.8], [nan, 0.2, 0.4, 1.0]],
        "linear": [[nan, nan, 0.0, 0.4], [nan] * 4],
        "difference": [[nan, nan, 0.2, 0.6], [nan, 0.2, 0.2, 0.6]],
    }
    for rows, wanted in zip(found, expected.values(), strict=True):
        torch.testing.assert_close(rows, torch.tensor(wanted), equal_nan=True)


def test_a_pixel_model_that_copies_is_pixel_persistence():
    windows = np.random.default_rng(0).integers(0, 256, (2, 6, 16, 16, 3), np.uint8)
    copy = PixelModel(lambda x, n: (x[:, -1:].float() / 255).expand(-1, n, -1, -1, -1), "copy")
    torch.testing.assert_close(
        copy(windows, [2, 3])[0], PixelBaselines()(windows, [2, 3])[0], equal_nan=True
    )


class Mover:
    """Exact dynamics of a clip whose brightness rises by what its actions say."""

    action_dim = 2

    def encode(self, obs):
        return Latent(torch.as_tensor(obs["pixels"]).float().mean((-1, -2, -3))[:, -1:, None, None])

    encode_goal = encode

    def rollout(self, context, actions):
        return Latent(context.tokens[:, None] + actions.sum(-1).cumsum(-1)[..., None, None])


def rising(steps):
    """A clip whose frame t + 1 is brighter than frame t by ``steps[t]``, and the actions."""
    level = np.cumsum([10, *steps[:-1]])
    clip = np.broadcast_to(level[:, None, None, None], (len(level), 8, 8, 3)).astype(np.uint8)
    return clip, np.asarray(steps, np.float32)[:, None]


def test_a_world_model_that_knows_its_actions_is_not_surprised_and_without_them_is():
    clip, actions = rising([1, 2, 3, 4, 5, 6, 7, 8])
    video = VoeVideo(name="a", group="a", frames=ArrayFrames(clip), actions=actions)
    config = WindowConfig(window=7, contexts=(1, 3), stride=1, skip=1)
    logged = DynamicsScorer(Mover(), StepConfig(block=2, actions="logged"))
    found = group_losses([video], logged, config)
    np.testing.assert_allclose(np.nanmax(found.losses[0]), 0, atol=1e-5)
    idle = group_losses([video], DynamicsScorer(Mover(), StepConfig(block=2)), config)
    np.testing.assert_allclose(idle.losses[0], idle.losses[1])  # no action: copy
    steps = idle.losses[0, 0, 0, 0]  # context 1: frames 2, 4, 6 against frame 0
    np.testing.assert_allclose(steps[[2, 4, 6]], [3, 10, 21])
    assert np.isnan(steps[[0, 1, 3, 5]]).all()
    line = idle.losses[2, 0, 1, 0]  # context 3: 10, 13 seen; 16, 19 expected; 20, 31 came
    np.testing.assert_allclose(line[[4, 6]], [4, 12])
    short = DynamicsScorer(Mover(), StepConfig(block=2, horizon=1))
    assert (~np.isnan(group_losses([video], short, config).losses[0, 0, 0, 0])).sum() == 1


def test_world_models_say_what_does_not_fit():
    clip, actions = rising([1] * 8)
    video = VoeVideo(name="a", group="a", frames=ArrayFrames(clip), actions=actions)
    config = WindowConfig(window=6, contexts=(2,), stride=1, skip=1)
    wrong = {
        "no model's step|no model step's": StepConfig(block=3, actions="logged"),
        "too few for an observation": StepConfig(frames=3),
        "leaves no room": StepConfig(block=5),
    }
    for match, steps in wrong.items():
        with pytest.raises(ConfigError, match=match):
            group_losses([video], DynamicsScorer(Mover(), steps), config)
    bare = replace(video, actions=None)
    with pytest.raises(ConfigError, match="have none"):
        group_losses([bare], DynamicsScorer(Mover(), StepConfig(actions="logged", block=2)), config)


# --- models from disk ----------------------------------------------------------------------------


def test_a_checkpoint_that_does_not_load_in_full_is_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    parts = tiny()
    Checkpoint(parts.encoder).save_pretrained(tmp_path / "no-predictor")
    with pytest.raises(CheckpointError, match="no masked predictor"):
        load_candidate(str(tmp_path / "no-predictor"))
    folder = tmp_path / "cut"
    Checkpoint(parts.encoder, parts.predictor).save_pretrained(folder)
    weights = load_file(folder / "model.safetensors")
    weights.pop("encoder.norm.weight")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(CheckpointError):
        load_candidate(str(folder))
    with pytest.raises(CheckpointError, match="no such file"):
        load_candidate(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="did you mean 'masked'"):
        load_candidate(str(folder), kind="maskd")  # pyright: ignore


def test_transformers_and_converted_weights_are_equally_surprised(tmp_path):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.VJEPA2Config(
        **{"patch_size": 8, "crop_size": 16, "frames_per_clip": 8, "hidden_size": 24},
        **{"num_attention_heads": 2, "num_hidden_layers": 2, "pred_hidden_size": 24},
        **{"pred_num_attention_heads": 2, "pred_num_hidden_layers": 2, "pred_num_mask_tokens": 3},
        pred_zero_init_mask_tokens=False,
    )
    made = transformers.VJEPA2Model(config).eval()
    torch.nn.init.normal_(made.predictor.embeddings.mask_tokens)
    made.save_pretrained(tmp_path)
    windows = np.random.default_rng(0).integers(0, 256, (2, 8, 16, 16, 3), np.uint8)
    for index in (0, 2):
        ours, theirs = (
            load_candidate(str(tmp_path), kind=kind, mask_index=index).scorer
            for kind in ("masked", "transformers")
        )
        with torch.inference_mode():
            a, b = (scorer(windows, [2, 4]) for scorer in (ours, theirs))
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0, equal_nan=True)


# --- runs ----------------------------------------------------------------------------------------


def test_tables_are_the_same_when_computed_again_offline(tmp_path, model):
    voe = voe_set(bridged(3), cut=10)
    windows = WindowConfig(window=8, contexts=(2, 4), stride=2, skip=1)
    run = run_of(voe, tmp_path, windows, model=model, gallery=1)
    stored = json.loads((tmp_path / "results" / "voe-accuracy.json").read_text())["value"]
    again = json.loads(json.dumps(accuracy_table(run, Reading()).to_json()))
    assert stored == again
    assert {"model", "copy", "gain over copy", "untrained (2 seeds)"} <= set(again["columns"])
    losses = run.losses("model")
    by_hand = np.array([surprise(window_losses(rows, 1), "avg") for rows in losses])
    scores = pair_scores(run, "model", Reading(context=4))
    index = run.index
    right = [by_hand[index[p]] < by_hand[index[i]] for p, i in scores.names]
    np.testing.assert_array_equal(scores.values, right)
    assert list((tmp_path / "tokens").glob("*.npz"))


def test_groups_that_cannot_be_read_are_left_out_and_listed(tmp_path, capsys):
    voe = voe_set(bridged(3), cut=10)
    short = ArrayFrames(np.zeros((3, 16, 16, 3), np.uint8))

    class Broken(ArrayFrames):
        def read(self, numbers):
            raise DatasetError("frame 7 cannot be decoded")

    videos = list(voe.videos)
    videos[5] = replace(videos[5], frames=short)
    videos[8] = replace(videos[8], frames=Broken(np.zeros((20, 16, 16, 3), np.uint8)))
    run = run_of(replace(voe, videos=tuple(videos)), tmp_path)
    assert {v.group for v in run.videos} == {"g0"}
    assert {r.what for r in run.refused} == {"group g1", "group g2"}
    assert run.ids.shape[0] == run.losses("frame difference").shape[0] == 4
    assert "frame 7 cannot be decoded" in capsys.readouterr().out


def test_settings_are_chosen_on_val_and_judged_on_the_rest(tmp_path):
    quads = bridged(6, bridge=0)
    voe = voe_set(quads, cut=10)
    videos = [replace(v, split="val" if v.group < "g3" else "test") for v in voe.videos]
    run = run_of(replace(voe, videos=tuple(videos)), tmp_path, choose="val")
    table = json.loads((tmp_path / "results" / "voe-accuracy.json").read_text())["value"]
    assert table["rows"][-1][1] == "6 (3)"
    assert len(run.pairs) == 24
    with pytest.raises(ConfigError, match="val"):
        run_of(voe, tmp_path / "none", choose="val")


def test_a_set_without_labels_gives_plausibilities_and_no_tables(tmp_path):
    voe = voe_set(bridged(2), cut=10)
    videos = tuple(replace(v, possible=None) for v in voe.videos)
    config = ScoreConfig(data="toy", windows=SMALL)
    assert score_set(VoeSet(name="intphys", videos=_renamed(videos)), config, tmp_path) == []
    values = json.loads((tmp_path / "plausibility.json").read_text())
    assert (min(values.values()), max(values.values())) == (0, 1)
    assert (tmp_path / "submission.zip").exists()


def _renamed(videos):
    return tuple(replace(v, name=f"O1/{v.group}/{1 + i % 4}") for i, v in enumerate(videos))


SCORING = """
import resource, sys, tracemalloc
from dataclasses import replace
from pathlib import Path
import numpy as np
import torch
from tests.benchmarks.test_voe_score import run_of
from tests.benchmarks.voe_toy import voe_set
from tubelet.benchmarks.voe.windows import WindowConfig
from tubelet.datasets.voe.frames import ArrayFrames

class Made(ArrayFrames):
    count, size = 40, (64, 64)
    def __init__(self, seed):
        object.__setattr__(self, "seed", seed)
    def read(self, numbers):
        rng = np.random.default_rng(self.seed)
        return rng.integers(0, 256, (40, 64, 64, 3), np.uint8)[np.asarray(numbers)]

torch.set_num_threads(1)
groups, path, model = int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
voe = voe_set([[np.zeros((1, 8, 8, 3), np.uint8)] * 4] * groups, cut=10)
voe = replace(voe, videos=tuple(replace(v, frames=Made(i)) for i, v in enumerate(voe.videos)))
tracemalloc.start()
windows = WindowConfig(window=4, contexts=(2,), skip=4)
run_of(voe, path, windows, model=model, untrained=1)
print(tracemalloc.get_traced_memory()[1], 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_peak_memory_is_independent_of_the_number_of_videos(tmp_path, model):
    """Each in a process of its own: NumPy's and Python's peak, and the process's."""

    def peak(groups):
        command = [sys.executable, "-c", SCORING, str(groups), str(tmp_path / str(groups)), model]
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
        assert done.returncode == 0, done.stderr
        return [int(number) for number in done.stdout.split()[-2:]]

    (few, few_rss), (many, many_rss) = peak(8), peak(32)
    group = 4 * 40 * 64 * 64 * 3
    assert many < few + group / 2  # 24 more groups are 24 times a group
    assert many_rss < few_rss + 8 * group
