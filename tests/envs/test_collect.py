"""Collection: the same files for any number of workers and after a kill; replayable; refusals."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tubelet import envs
from tubelet.cli import collect as cli
from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.trajectories import TrajectorySet
from tubelet.envs.collect import COVERAGE_PATH, CollectConfig, collect
from tubelet.envs.coverage import coverage
from tubelet.envs.factors import FactorConfig
from tubelet.envs.maze_layouts import layout_split
from tubelet.envs.policies import PolicyMix


def config(out, **changes):
    return CollectConfig(**{"out": str(out), "episodes": 4, "steps": 6, "workers": 1} | changes)


def files(root):
    return {
        str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()
    }


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A set of 20 episodes made by one process, undisturbed."""
    root = tmp_path_factory.mktemp("sets") / "alone"
    collect(config(root, episodes=20))
    return root


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_do_not_change_a_byte(alone, tmp_path, workers):
    collect(config(tmp_path / "many", episodes=20, workers=workers))
    assert files(tmp_path / "many") == files(alone)


def test_killed_and_started_again_gives_the_same_files(alone, tmp_path):
    """SIGKILL in the middle, twice; then one more run finishes. Left-over temporaries go away."""
    root = tmp_path / "killed"
    command = [sys.executable, "-m", "tubelet.cli.main", "collect"]
    flags = ["--out", str(root), "--episodes", "20", "--steps", "6", "--workers", "1"]
    for fewest in (2, 5):
        process = subprocess.Popen([*command, *flags], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while len(list(root.glob("parts/*.parquet"))) < fewest and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (root / "videos/observation.images.top/chunk-000").mkdir(parents=True, exist_ok=True)
    (root / "videos/observation.images.top/chunk-000/.file-003-half.mp4").write_bytes(b"half")
    collect(config(root, episodes=20))
    assert files(root) == files(alone)


def test_more_episodes_are_added_to_a_finished_set(alone, tmp_path):
    root = tmp_path / "grown"
    collect(config(root, episodes=7))
    collect(config(root, episodes=20))
    assert files(root) == files(alone)


def test_stored_actions_replay_to_the_stored_states(alone):
    stored = TrajectorySet.open(alone)
    assert (stored.num_episodes, stored.fps) == (20, 25)
    env = envs.make("tubelet/Reacher-v0")
    for episode in (0, 13):
        record = stored.slice(episode, 0, stored.length(episode))
        env.reset(options={"state": record["state"][0]})
        for t, action in enumerate(record["action"][:-1]):
            observation, _, _, _, info = env.step(action)
            assert np.array_equal(info["state"], record["state"][t + 1])
            assert np.array_equal(observation["proprio"], record["proprio"][t + 1])
        error = np.abs(observation["pixels"].astype(int) - record["pixels"][-1])
        assert error.mean() < 6  # H.264 at crf 18


def test_episodes_differ_and_seeds_matter(alone, tmp_path):
    actions = TrajectorySet.open(alone).arrays()["action"].reshape(20, 7, 2)
    assert len({row.tobytes() for row in actions}) >= 18  # a few saturate
    other = collect(config(tmp_path / "other", seed=1)).arrays()["action"].reshape(4, 7, 2)
    assert not np.array_equal(other, actions[:4])


def test_the_maze_is_collected_too(tmp_path):
    mix = PolicyMix(noise=0.0, held=0.0)
    stored = collect(config(tmp_path / "maze", env="tubelet/PointMaze-v0", policy=mix))
    assert stored.fps == 20
    assert stored.slice(3, 0, 7)["proprio"].shape == (7, 4)


def test_config_survives_toml():
    settings = CollectConfig(episodes=3, policy=PolicyMix(hold=7))
    assert from_toml(CollectConfig, to_toml(settings)) == settings


def test_verb_prints_what_there_is(tmp_path, capsys):
    assert cli.run(config(tmp_path / "verb")) == 0
    assert "4 episodes, 28 frames of 64x64" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"env": "tubelet/PointMaze-v1"}, ConfigError, "PointMaze-v0"),
        ({"image_size": 65}, ConfigError, "nearest is 66"),
        ({"seed": 1}, DatasetError, "metadata.seed is 0, now 1"),
        ({"steps": 9}, DatasetError, "metadata.steps is 6, now 9"),
        ({"episodes": 3}, ConfigError, "already holds 20 episodes"),
    ],
)
def test_refusals_leave_the_set_alone(alone, changes, error, message):
    before = files(alone)
    with pytest.raises(error, match=message):
        collect(config(alone, **changes))
    assert files(alone) == before


@pytest.mark.parametrize("changes", [{"episodes": 0}, {"steps": 0}, {"workers": -1}])
def test_impossible_counts_are_refused(changes):
    with pytest.raises(ConfigError):
        CollectConfig(**changes)


def test_foreign_and_unwritable_folders_are_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DatasetError, match="not empty and no trajectory set"):
        collect(config(tmp_path))
    assert os.listdir(tmp_path) == ["thesis.txt"]
    with pytest.raises(DatasetError, match="cannot write"):
        collect(config(tmp_path / "thesis.txt" / "below"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env_id", "kinds"),
    [("tubelet/PushT-v0", ("colour", "mass")), ("tubelet/TwoRoomsRandom-v0", ())],
)
def test_one_two_and_four_workers_write_the_same_bytes(env_id, kinds, tmp_path):
    """Every policy, random layouts and factors."""
    sets = []
    for workers in (1, 2, 4):
        settings = config(
            tmp_path / str(workers),
            env=env_id,
            episodes=32,
            workers=workers,
            policy=PolicyMix(expert=1.0),
            factors=FactorConfig(kinds=kinds),
        )
        collect(settings)
        sets.append(files(tmp_path / str(workers)))
    assert sets[0] == sets[1] == sets[2]


def test_sets_say_what_they_cover(alone):
    """Play covers what standing still does not, and the file agrees with a fresh measurement."""
    stored = TrajectorySet.open(alone)
    env = envs.make("tubelet/Reacher-v0", render_obs=False)
    measured = coverage(stored, env)
    assert json.loads((alone / COVERAGE_PATH).read_text()) == measured.to_json() | {
        "visited": list(measured.visited),
        "action_std": list(measured.action_std),
    }
    assert (measured.episodes, measured.frames) == (20, 140)
    assert 0.2 < np.mean(measured.visited) <= 1
    assert 0 < measured.nearest_median < measured.nearest_95 < 2
    assert 0 < measured.persistence < 1


def test_coverage_of_known_sets():
    """Frames everywhere leave no gap; a single one, over and over, leaves all of it."""
    env = envs.make("tubelet/PointMaze-v0", render_obs=False)
    rng = np.random.default_rng(0)
    spread = np.stack([env.sample_state(rng) for _ in range(3000)])
    for states, still, near in [(spread, 0.0, (0, 0.1)), (spread[:1].repeat(3000, 0), 1, (0.5, 3))]:
        found = coverage(Fake(states), env)
        assert near[0] < found.nearest_median < near[1]
        assert found.still == pytest.approx(still, abs=0.01)
        assert (np.array(found.visited) > 0.95).all() == (still == 0)
        assert found.saturated == pytest.approx(0.5, abs=0.01)
        assert found.persistence == pytest.approx(-1.0)


class Fake:
    """A set of one episode whose actions jump between 0 and 1."""

    root, num_episodes = "fake", 1

    def __init__(self, states):
        action = (np.arange(len(states)) % 2)[:, None].repeat(2, 1).astype(np.float32)
        self.offsets, self._rows = np.array([0, len(states)]), {"state": states, "action": action}

    def arrays(self):
        return self._rows


def test_held_out_layouts_are_collected_on_request(tmp_path):
    """All in their split, the same again; a set of one split is not gone on with in another."""
    maze = {"env": "tubelet/PointMazeRandom-v0", "image_size": 32}
    held_out = collect(config(tmp_path / "test", split="test", **maze))
    env = envs.make("tubelet/PointMazeRandom-v0", render_obs=False)
    for episode in range(held_out.num_episodes):
        env.set_state(held_out.slice(episode, 0, 1)["state"][0])
        assert layout_split(env.closed) == "test"
    collect(config(tmp_path / "again", split="test", **maze))
    assert files(tmp_path / "again") == files(tmp_path / "test")
    with pytest.raises(DatasetError, match="split"):
        collect(config(tmp_path / "test", episodes=5, **maze))
    with pytest.raises(ConfigError, match="no layouts to hold out"):
        collect(config(tmp_path / "none", split="test"))
