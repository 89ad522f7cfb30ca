"""Energy landscapes of dynamics whose minimum is known, and the command on files."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.benchmarks import energy
from tubelet.benchmarks.charts import landscape_maps
from tubelet.benchmarks.energy_landscape import energy_landscapes, energy_table, mean_landscape
from tubelet.benchmarks.energy_samples import droid_frames, pose_samples, world_model_samples
from tubelet.benchmarks.results import load_results
from tubelet.core.errors import CheckpointError, ConfigError, DatasetError, PlanningError
from tubelet.core.latent import Latent
from tubelet.datasets.trajectories import TrajectorySet, TrajectoryWriter
from tubelet.planning import LatentCost
from tubelet.vjepa import world_presets
from tubelet.vjepa.ac_world_model import ACWorldModel, load_ac
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.formats.checkpoint import Checkpoint
from tubelet.vjepa.pose import compose
from tubelet.vjepa.positions import PositionConfig
from tubelet.vjepa.recipes import TrainConfig, load_world_model, train_on_trajectories

X, Y = np.linspace(-0.4, 0.4, 9), np.linspace(-0.3, 0.3, 7)
TRUE = torch.tensor([[0.2, -0.5, 0.1, 0.7], [0.0, 0.3, -0.2, 0.9]])


class Linear:
    """The latent moves by the action and a bias: the minimum is off the truth by minus the bias."""

    action_dim = 4

    def __init__(self, bias=(0.0, 0.0, 0.0, 0.0), factor=1.0):
        self.bias, self.factor, self.calls = torch.tensor(bias), factor, []

    def encode(self, obs):
        return Latent(obs["pixels"][:, None, None])

    def encode_goal(self, obs):
        return Latent(obs["pixels"][:, None])

    def rollout(self, context, actions):
        self.calls.append(tuple(actions.shape))
        start = context.tokens[:, -1, 0][:, None, None]
        return Latent((start + self.factor * (actions.cumsum(2) + self.bias))[..., None, :])


def measure(dynamics, *, start=None, actions=TRUE, **changes):
    start = torch.zeros(len(actions), 4) if start is None else start
    settings = {"name": "toy", "x": X, "y": Y, "dims": ((0,), (1,)), **changes}
    obs, goal = {"pixels": start}, {"pixels": start + actions}
    return energy_landscapes(dynamics, obs, goal, actions, **settings)


def test_a_true_model_has_its_minimum_at_the_truth():
    start = torch.tensor([[1.0, 2.0, 3.0, 4.0], [0.0, -1.0, 0.0, 1.0]])
    for one in measure(Linear(), start=start):
        assert one.minimum == pytest.approx((0.0, 0.0))
        assert one.gap == pytest.approx(0.0)
        assert one.rank <= 0.5 / one.energy.size  # nothing is below; one point ties
        assert one.within(0.0 + 1e-9)
        # Mean absolute difference over four channels, of which two vary: (|dx| + |dy|) / 4.
        expected = (np.abs(X)[None, :] + np.abs(Y)[:, None]) / 4
        np.testing.assert_allclose(one.energy, expected, atol=1e-6)
        assert one.true_energy == pytest.approx(0.0, abs=1e-6)


def test_a_biased_model_is_off_by_its_bias():
    """And what the grid does not vary stays true: its bias is an offset of the energy."""
    for one in measure(Linear((-0.2, 0.1, 0.0, 0.4))):
        assert one.minimum == pytest.approx((0.2, -0.1))
        assert one.gap == pytest.approx(math.hypot(0.2, 0.1))
        assert one.within(0.23)
        assert not one.within(0.22)
        assert one.energy.min() == pytest.approx(0.1, abs=1e-6)
        assert one.true_energy == pytest.approx(0.7 / 4, abs=1e-6)
        expected = (np.abs(X - 0.2)[None, :] + np.abs(Y + 0.1)[:, None] + 0.4) / 4
        np.testing.assert_allclose(one.energy, expected, atol=1e-6)
        ties = np.isclose(expected, 0.175)  # float32 rounds them either way
        assert (expected[~ties] < 0.175).sum() <= 63 * one.rank <= (expected < 0.175).sum() + 9


def test_a_model_deaf_to_actions_is_at_chance():
    one = measure(Linear(factor=0.0))[0]
    assert one.rank == 0.5
    assert one.landscape().spearman == 0.0
    share = np.mean([math.hypot(a, b) <= 0.2 for a in X for b in Y])
    assert one.chance(0.2) == pytest.approx(share)


def test_entries_can_move_together_and_batches_do_not_matter():
    """Two blocks of two: both steps move by the offset."""
    dynamics = Linear((-0.2, 0.0, -0.2, 0.0))
    whole = measure(dynamics, dims=((0, 2), (1, 3)))[1]
    assert whole.minimum == pytest.approx((0.2, 0.0))
    assert dynamics.calls == [(2, 64, 1, 4)]
    few = measure(dynamics, dims=((0, 2), (1, 3)), at_once=10)[1]
    assert len(dynamics.calls) == 1 + 7
    np.testing.assert_array_equal(few.energy, whole.energy)
    assert few.true_energy == whole.true_energy


def test_the_cost_can_be_another():
    one = measure(Linear(), cost=LatentCost(kind="l2"))[0]
    expected = (X[None, :] ** 2 + Y[:, None] ** 2) / 4
    np.testing.assert_allclose(one.energy, expected, atol=1e-6)


def test_mean_table_and_drawing():
    landscapes = [*measure(Linear()), *measure(Linear((-0.2, 0.0, 0.0, 0.0)))]
    mean = mean_landscape(landscapes)
    np.testing.assert_allclose(mean.energy, np.mean([one.energy for one in landscapes], 0))
    table = energy_table(landscapes, 0.1, "Energy")
    assert [row[-1] for row in table.rows] == ["yes", "yes", "no", "no", "50%"]
    assert "n = 4" in table.note
    assert f"by chance {landscapes[0].chance(0.1):.0%}" in table.note
    drawing = landscapes[2].landscape()
    assert drawing.goal == (0.0, 0.0)
    np.testing.assert_allclose(drawing.distance, np.hypot(X[None, :], Y[:, None]))
    assert 0.3 < drawing.spearman < 0.95
    assert measure(Linear())[0].landscape().spearman > 0.95
    assert landscape_maps(drawing).startswith("<svg")


@pytest.mark.parametrize("dims", [((0,), (0,)), ((0,), (4,)), ((), (1,)), ((-1,), (1,))])
def test_entries_that_are_not_there(dims):
    with pytest.raises(ConfigError, match="from 0 to 3"):
        measure(Linear(), dims=dims)


def test_actions_and_energies_that_do_not_fit():
    with pytest.raises(ConfigError, match="the model wants"):
        measure(Linear(), start=torch.zeros(2, 3), actions=torch.zeros(2, 3))
    with pytest.raises(PlanningError, match="are not finite"):
        measure(Linear((math.nan, 0.0, 0.0, 0.0)))


# --- from files ----------------------------------------------------------------------------------


def write_set(root, *, proprio, action_dim, fps=8, episodes=6, frames=17, size=32):
    """Episodes of random actions whose first two entries shift a square; ``proprio(actions)``."""
    rng = np.random.default_rng(1)
    actions = rng.uniform(-1, 1, (episodes, frames, action_dim)).astype(np.float32)
    actions[:, -1] = 0
    dims = {"proprio_dim": proprio(actions[0]).shape[1], "state_dim": 2, "action_dim": action_dim}
    writer = TrajectoryWriter.create(root, fps=fps, image_size=size, metadata={}, **dims)
    for i, action in enumerate(actions):
        places = np.full((frames, 2), size // 2, float)
        places[1:] += 2 * action[:-1, :2].cumsum(0)
        clip = np.full((frames, size, size, 3), 200, np.uint8)
        for frame, (y, x) in zip(clip, places.clip(4, size - 8).astype(int), strict=True):
            frame[y - 4 : y + 4, x - 4 : x + 4] = (220, 40, 60)
        writer.add_episode(i, clip, proprio(action), places, action)
    writer.finalize()
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A world model trained for four steps, and its trajectories."""
    root = tmp_path_factory.mktemp("energy")
    data = write_set(root / "data", proprio=lambda a: a[:, :2], action_dim=2)
    train = world_presets.end_to_end(EncoderConfig(width=24, depth=1, heads=2, patch=8))
    model = replace(train.model, image_size=32, action_block=2, frame_gap=1)
    loop = LoopConfig(steps=2, log_every=1, report_every=2, save_every=2)
    train = replace(train, model=model, batch_size=4, horizon=2, cache_stride=1, loop=loop)
    config = TrainConfig(data=str(data), out=str(root / "run"), train=train, device="cpu")
    train_on_trajectories(config)
    return root / "run", data


def test_samples_of_a_world_model(run):
    model, trajectories = load_world_model(run[0]), TrajectorySet.open(run[1])
    samples = world_model_samples(model, trajectories, 5, held_out=0.2, seed=3)
    again = world_model_samples(model, trajectories, 5, held_out=0.2, seed=3)
    assert samples.obs["pixels"].shape == (5, 2, 32, 32, 3)
    assert samples.goal["pixels"].shape == (5, 32, 32, 3)
    assert samples.actions.shape == (5, 4)
    assert torch.equal(samples.actions, again.actions)
    episode = trajectories.slice(5, 0, 17)  # the one that is held out
    for b in range(5):
        goals = (episode["pixels"] == samples.goal["pixels"][b].numpy()).all((1, 2, 3))
        at = [
            t
            for t in range(2, 17)
            if goals[t]
            and (episode["pixels"][t - 2] == samples.obs["pixels"][b, 1].numpy()).all()
            and (episode["action"][t - 2 : t].ravel() == samples.actions[b].numpy()).all()
        ]
        assert at, "the action is not the one between the observation and the goal"


def test_the_command_on_a_run(run, tmp_path, capsys):
    args = [*map(str, run), "--points", "5", "--count", "4", "--device", "cpu", "--drawn", "1"]
    assert energy.main([*args, "--out", str(tmp_path / "out")]) == 0
    assert "by chance" in capsys.readouterr().out
    assert sorted(p.name for p in (tmp_path / "out").glob("*.svg")) == [
        "energy-000.svg",
        "energy-001.svg",
    ]
    kinds = [type(stored.value).__name__ for stored in load_results(tmp_path / "out")]
    assert sorted(kinds) == ["Landscape", "Landscape", "Table"]
    stored = json.loads((tmp_path / "out" / "results" / "energy-001.json").read_text())
    assert stored["value"]["axes"] == ["action 0: offset", "action 1: offset"]
    assert stored["value"]["x"] == [-0.5, -0.25, 0.0, 0.25, 0.5]
    assert energy.main([*args, "--dims", "0", "2", "--out", str(tmp_path / "no")]) == 2
    assert "from 0 to 1" in capsys.readouterr().err
    assert energy.main([*args, "--points", "1"]) == 2
    assert "--points 1" in capsys.readouterr().err


def ac_config():
    return ActionPredictorConfig(
        width=28,
        depth=1,
        heads=2,
        conditioning="tokens",
        action_encoder="linear",
        state_dim=7,
        extrinsics_dim=6,
        position=PositionConfig(pairs="tiled"),
        native=2,
        place=False,
        residual=False,
        normalise=True,
    )


@pytest.fixture(scope="module")
def ac(tmp_path_factory):
    """A converted V-JEPA 2-AC of one block, and a set of poses that its actions compose."""
    root = tmp_path_factory.mktemp("ac")
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=12, depth=1, heads=1, patch=8))
    actions = ActionPredictor(ac_config(), latent_dim=12, action_dim=7, grid=(2, 2))
    Checkpoint(encoder, actions=actions).save_pretrained(root / "weights")

    def poses(action):
        pose = [torch.tensor([float(action[0, 0]), 0.0, 0.3, 0.1, 0.2, 0.3, 0.5])]
        for a in torch.from_numpy(action[:-1]) * 0.05:
            pose.append(compose(pose[-1], a))
        return torch.stack(pose).numpy()

    return root / "weights", write_set(root / "data", proprio=poses, action_dim=7)


def test_samples_of_poses(ac):
    model, trajectories = load_ac(ac[0]), TrajectorySet.open(ac[1])
    assert not any(p.requires_grad for p in model.parameters())
    samples = pose_samples(model, trajectories, 6, seed=0, rate=4.0)
    assert samples.obs["pixels"].shape == (6, 1, 16, 16, 3)
    assert samples.goal["pixels"].shape == (6, 16, 16, 3)
    start = samples.obs["state"][:, 0]
    later = compose(start, samples.actions)
    rows = trajectories.arrays()["proprio"]
    offsets = trajectories.offsets
    for b in range(6):
        row = int(np.abs(rows - start[b].numpy()).sum(1).argmin())
        assert np.abs(rows[row] - start[b].numpy()).max() < 1e-6
        np.testing.assert_allclose(later[b], rows[row + 2], atol=1e-5)  # 8 frames/s, 4 Hz
        assert np.searchsorted(offsets, row, "right") == np.searchsorted(offsets, row + 2, "right")


def test_the_command_on_converted_weights(ac, tmp_path, capsys):
    args = [*map(str, ac), "--points", "5", "--count", "3", "--device", "cpu", "--dims", "0", "6"]
    assert energy.main([*args, "--out", str(tmp_path)]) == 0
    assert "by chance" in capsys.readouterr().out
    stored = json.loads((tmp_path / "results" / "energy-000.json").read_text())
    assert stored["value"]["axes"] == ["x (m): offset", "gripper: offset"]
    assert max(stored["value"]["x"]) == 0.075


def test_the_landscape_of_an_ac_model_is_the_cost_of_single_rollouts(ac):
    model, trajectories = load_ac(ac[0]), TrajectorySet.open(ac[1])
    samples = pose_samples(model, trajectories, 2, seed=0)
    grid = np.array([-0.05, 0.0, 0.05])
    got = energy_landscapes(
        model,
        samples.obs,
        samples.goal,
        samples.actions,
        name="",
        x=grid,
        y=grid,
        dims=((0,), (2,)),
    )
    with torch.no_grad():
        z = model.latents(samples.obs["pixels"])
        goal = model.latents(samples.goal["pixels"])
        for b in range(2):
            for row, dz in enumerate(grid):
                for column, dx in enumerate(grid):
                    action = samples.actions[b].clone()
                    action[0] += dx
                    action[2] += dz
                    state = samples.obs["state"][b : b + 1]
                    out = model.predictor(z[b : b + 1], action[None, None].float(), state)
                    expected = float((out[0, 0] - goal[b]).abs().mean())
                    assert got[b].energy[row, column] == pytest.approx(expected, abs=1e-5)


def test_weights_and_sets_of_another_kind(ac, run, tmp_path):
    torch.manual_seed(0)
    Checkpoint(TubeletEncoder(EncoderConfig(width=12, depth=1, heads=1))).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="no action-conditioned predictor, only encoder"):
        load_ac(tmp_path)
    model = load_ac(ac[0])
    assert isinstance(model, ACWorldModel)
    with pytest.raises(DatasetError, match="width 2; V-JEPA 2-AC wants poses of 7"):
        pose_samples(model, TrajectorySet.open(run[1]), 2, seed=0)
    with pytest.raises(DatasetError, match="no episode has the 81 frames"):
        pose_samples(model, TrajectorySet.open(ac[1]), 2, seed=0, rate=0.1)
    with pytest.raises(ConfigError, match="actions of width 7, the model of 2"):
        world_model_samples(
            load_world_model(run[0]), TrajectorySet.open(ac[1]), 2, held_out=0.2, seed=0
        )


@pytest.mark.parametrize(
    ("height", "width", "rows", "columns"),
    [(90, 160, 90, 122), (64, 64, 64, 64), (160, 90, 120, 90), (80, 100, 80, 100)],
)
def test_the_crop_that_the_weights_were_trained_on(height, width, rows, columns):
    """The centre, of aspect 0.75 to 1.35, squashed: a ramp stays one, between the crop's ends."""
    frame = np.zeros((2, height, width, 3), np.uint8)
    frame[..., 0] = np.arange(width, dtype=np.uint8)
    frame[..., 1] = np.arange(height, dtype=np.uint8)[:, None]
    out = droid_frames(frame, (48, 48)).numpy().astype(float)
    assert out.shape == (2, 48, 48, 3)
    for channel, size, kept in ((0, width, columns), (1, height, rows)):
        line = out[0, 24, :, 0] if channel == 0 else out[0, :, 24, 1]
        centres = (np.arange(48) + 0.5) * kept / 48 - 0.5 + (size - kept) // 2
        np.testing.assert_allclose(line, centres, atol=0.75)
