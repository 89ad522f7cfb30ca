"""Collection: the same files for any number of workers and after a kill; replayable; refusals."""

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
from tubelet.envs.collect import CollectConfig, collect
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


def test_workers_do_not_change_a_byte(alone, tmp_path):
    collect(config(tmp_path / "pair", episodes=20, workers=2))
    assert files(tmp_path / "pair") == files(alone)


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
