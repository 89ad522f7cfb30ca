"""Parallel environments: the same for any number of processes, and faults leave no trace."""

import functools
import sys
from pathlib import Path

import numpy as np
import pytest

from tubelet.core.errors import ConfigError
from tubelet.envs.vector import ParallelEnvs
from tubelet.envs.workers import WorkerError, run_jobs

sys.path.insert(0, str(Path(__file__).parent))  # spawned processes import it by name, too
from faulty import Faulty, Job


def played(env, steps=8, seed=None):
    """All that comes out of an episode of random actions."""
    rng = np.random.default_rng(0)
    seen = [env.reset(seed=seed)]
    for _ in range(steps):
        seen.append(env.step(rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)))
    return seen


def equal(first, second):
    """Compare nested observations and infos to the bit."""
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[k], second[k]) for k in first)
    if isinstance(first, tuple | list):
        return len(first) == len(second) and all(map(equal, first, second))
    return np.array_equal(first, second)


def test_the_number_of_processes_changes_no_frame():
    results = []
    for workers in (1, 3):
        env = ParallelEnvs("tubelet/PointMazeRandom-v0", 4, workers=workers, image_size=32)
        assert env.observation_space["pixels"].shape == (4, 32, 32, 3)
        results.append(played(env, seed=7))
        assert not env.faults
        env.close()
    assert equal(*results)
    (first, _), *steps = results[0]
    assert len({frame.tobytes() for frame in first["pixels"]}) == 4
    assert not np.array_equal(steps[-1][0]["pixels"], first["pixels"])


SLOW = pytest.mark.slow


@pytest.mark.parametrize("how", ["crash", "hang", pytest.param("raise", marks=SLOW)])
def test_a_failed_process_is_replaced_and_its_episodes_redone(how, tmp_path):
    """Environment 1 fails once; the one beside it in the same process is brought back as well."""
    whole = ParallelEnvs(functools.partial(Faulty, "none", "never"), 3, workers=1)
    expected = played(whole, seed=[2, 3, 4])
    whole.close()
    once = str(tmp_path / "failed")
    make_env = functools.partial(Faulty, how, once)
    env = ParallelEnvs(make_env, 3, workers=2, seconds=1.0 if how == "hang" else 60.0)
    assert equal(played(env, seed=[2, 3, 4]), expected)
    (fault,) = env.faults
    reason = {"crash": "exit code 7", "hang": "no answer in time", "raise": "as it happens"}[how]
    assert "worker 0 (environments 0 to 1), step 5" in str(fault)
    assert reason in fault.reason
    env.close()


def test_a_point_that_always_fails_ends_in_an_error():
    env = ParallelEnvs(functools.partial(Faulty, "crash", "never"), 2, retries=1)
    with pytest.raises(WorkerError, match="step 5 failed 2 times"):
        played(env, seed=[3, 4])
    assert len(env.faults) == 2


def test_single_environments_can_be_reset():
    env = ParallelEnvs(functools.partial(Faulty, "none", "never"), 3, workers=2)
    with pytest.raises(ConfigError, match="before reset"):
        env.step(np.zeros((3, 2)))
    played(env, steps=3, seed=0)
    mask = {"reset_mask": [False, True, False]}
    observation, _ = env.reset(options=mask)
    assert observation["proprio"][:, 0].tolist() == [3, 0, 3]
    assert env.step(np.zeros((3, 2)))[0]["proprio"][:, 0].tolist() == [4, 1, 4]
    again = env.reset(seed=0)[1]["each"]
    assert [info["seed"] for info in again] != [info["seed"] for info in env.reset()[1]["each"]]
    env.close()


@pytest.mark.parametrize("how", ["crash", pytest.param("hang", marks=SLOW)])
def test_jobs_are_done_although_one_fails_once(how, tmp_path):
    faults = []
    job = functools.partial(Job, how, str(tmp_path / "failed"))
    answers = run_jobs(
        job, range(8), workers=2, seconds=1.0 if how == "hang" else 60.0, retries=1,
        on_fault=faults.append, name="job {}".format,
    )  # fmt: skip
    assert sorted(answers) == [2 * k for k in range(8)]
    (fault,) = faults
    assert fault.request == "job 3"


def test_a_job_that_always_fails_ends_in_an_error():
    job = functools.partial(Job, "raise", "never")
    with pytest.raises(WorkerError, match=r"3 failed 3 times.*ZeroDivisionError"):
        list(run_jobs(job, range(5), workers=1, seconds=60, retries=2))


@pytest.mark.parametrize("wrong", [{"count": 0}, {"workers": 0}, {"seconds": 0.0}, {"retries": -1}])
def test_impossible_settings_are_refused(wrong):
    settings = {"count": 2, "workers": 1} | wrong
    with pytest.raises(ConfigError):
        ParallelEnvs("tubelet/TwoRooms-v0", **settings)
