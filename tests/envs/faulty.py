"""A Gymnasium environment that fails on demand, to be made in worker processes."""

import os
import time
from pathlib import Path

import gymnasium
import numpy as np


class Faulty(gymnasium.Env):
    """Counts its steps. At step 5 of the episode whose seed is 3 it fails as ``how`` says, once if
    ``once`` names a file (that it leaves behind), else always."""

    metadata = {"render_modes": []}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict(
        {"proprio": gymnasium.spaces.Box(-np.inf, np.inf, (3,), np.float32)}
    )
    action_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)

    def __init__(self, how: str, once: str):
        self._how, self._once = how, Path(once)

    def _see(self):
        value = np.array([self._steps, self._sum, self._noise], np.float32)
        return {"proprio": value}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self._seed, self._steps, self._sum = seed, 0, 0.0
        self._noise = self.np_random.uniform()
        return self._see(), {"seed": seed}

    def step(self, action):
        self._steps, self._sum = self._steps + 1, self._sum + float(np.sum(action))
        self._noise = self.np_random.uniform()
        if self._seed == 3 and self._steps == 5 and not self._once.exists():
            if self._once.name != "never":
                self._once.touch()
            fail(self._how)
        return self._see(), self._sum, False, False, {}


def fail(how: str) -> None:
    """Crash, hang, raise, or nothing."""
    if how == "crash":
        os._exit(7)
    if how == "hang":
        time.sleep(600)
    if how == "raise":
        raise ZeroDivisionError("as it happens")


class Job:
    """Doubles a number; fails at 3 like :class:`Faulty`."""

    def __init__(self, how: str, once: str):
        self._how, self._once = how, Path(once)

    def __call__(self, number: int) -> int:
        if number == 3 and not self._once.exists():
            if self._once.name != "never":
                self._once.touch()
            fail(self._how)
        return 2 * number
