"""One model under several protocols: what is shared, what differs, and what the table says."""

import shutil

import numpy as np
import pytest

from tubelet.benchmarks import protocols
from tubelet.benchmarks.episodes import draw_offsets
from tubelet.benchmarks.results import load_results
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.trajectories import TrajectorySet
from tubelet.envs import make

ON_CPU = ["--device", "cpu", "--threads", "1"]
REACHER = "tubelet/Reacher-v0"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs") / "data"
    flags = ["--episodes", "6", "--steps", "30", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--out", str(root), *flags]) == 0
    return root


def offsets(data, n=5, seed=0, steps=(6, 20), episodes=range(3, 6)):
    env = make(REACHER, render_obs=False)
    return draw_offsets(
        env,
        TrajectorySet.open(data),
        n,
        env_id=REACHER,
        seed=seed,
        budget=lambda offset: 2 * offset,
        offsets=steps,
        episodes=episodes,
    )


def test_offsets_share_starts_and_lie_in_the_data(data):
    sets, env = offsets(data), make(REACHER, render_obs=False)
    near, far = sets[6], sets[20]
    assert (near.kind, near.budget, far.budget) == ("offset 6", 12, 40)
    np.testing.assert_array_equal(near.start_states, far.start_states)
    arrays = TrajectorySet.open(data)
    states, firsts = arrays.arrays()["state"], arrays.offsets
    for start, *goals in zip(near.start_states, near.goal_states, far.goal_states, strict=True):
        (row,) = np.flatnonzero((states == start).all(1))
        assert firsts[3] <= row
        for offset, goal in zip((6, 20), goals, strict=True):
            assert row + offset < firsts[np.searchsorted(firsts, row, side="right")]
            np.testing.assert_array_equal(env.position(goal), env.position(states[row + offset]))
            assert not env.velocity(goal).any()
            assert not env.success(start, goal)
    assert offsets(data)[6].sha256 == near.sha256 != offsets(data, seed=1)[6].sha256


def test_episodes_that_are_too_short_or_of_another_world_are_refused(data):
    with pytest.raises(DatasetError, match="more than 75 steps"):
        offsets(data, steps=(25, 75))
    maze = make("tubelet/PointMazeRandom-v0", render_obs=False)
    with pytest.raises(DatasetError, match="no states of"):
        draw_offsets(
            maze,
            TrajectorySet.open(data),
            1,
            env_id="tubelet/PointMazeRandom-v0",
            seed=0,
            budget=lambda offset: offset,
            offsets=(3,),
            episodes=range(6),
        )


@pytest.mark.slow
def test_every_protocol_is_played_on_every_goal_set(data, tmp_path):
    run, out = tmp_path / "model", tmp_path / "out"
    train = ["train", "--preset", "end_to_end", "--data", str(data), "--out", str(run), *ON_CPU]
    train += ["--train.model.image-size", "32", "--train.horizon", "2", "--train.loop.steps", "2"]
    assert main([*train, "--train.batch-size", "4"]) == 0
    options = {"preset": protocols.PRESETS["debug"], "device": "cpu", "threads": 1}
    table = protocols.play(run, out, offsets=(4, 8), **options)
    assert len(table.rows) == 3 * len(protocols.PROTOCOLS)
    assert {row[0] for row in table.rows} == {"4 steps ahead", "8 steps ahead", "anywhere"}
    steps = {(row[0], row[1]): row[2] for row in table.rows}
    assert steps["4 steps ahead", "one plan, open loop"] == 10  # two blocks of five
    assert steps["8 steps ahead", "replanned after every block, twice the steps"] == 16
    for row in table.rows:
        end, anyhow = (float(cell.split()[0]) for cell in row[4:6])
        assert end <= anyhow  # shares in percent
    assert "The same weights and the same search: from" in table.note
    calls = {}
    for goals in out.glob("*_steps_ahead"):
        for folder in goals.iterdir():
            (model,) = (
                s.value for s in load_results(folder) if getattr(s.value, "name", "") == "model"
            )
            calls[folder.name] = model.model_calls * model.budget
    assert calls["one_plan_open_loop"] < calls["replanned_after_every_block_twice_the_steps"]
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/*/results/*.json")}
    again = protocols.play(run, out, offsets=(4, 8), **options)
    assert again == table
    assert before == {path: path.stat().st_mtime_ns for path in before}  # nothing played twice
    shutil.rmtree(run)
    run.mkdir()
    with pytest.raises(ConfigError, match="training data is gone"):
        protocols.goal_sets(run, REACHER, 2, seed=0)
