"""Episode files: start and goal states drawn once, saved, and replayed by every method.

Comparisons between methods are paired because all of them face the same problems. A file carries
a SHA-256 of its content and the MuJoCo version whose state vectors it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DatasetError
from ..core.io import atomic_path
from ..core.rng import numpy_generator

Policy = Callable[[Any, int, np.random.Generator], Callable[[int], np.ndarray]]
"""``policy(env, steps, generator)`` makes ``act(t) -> action [a]``, as in ``envs.policies``."""

MAX_DRAWS_PER_EPISODE = 200


@dataclass(frozen=True, kw_only=True, eq=False)
class EpisodeSet:
    """Problems of one kind, in one environment.

    Attributes:
        env_id: Gymnasium id. kind: ``far`` or ``near``. seed: of the draw.
        budget: environment steps that every method gets, no more and no fewer.
        start_states, goal_states: float64 ``[n, S]`` full simulator states.
        drawn: pairs drawn to get n. Pairs already solved at reset were rejected and redrawn.
        mujoco_version: the state layout and the physics belong to this version.
    """

    env_id: str
    kind: str
    seed: int
    budget: int
    start_states: np.ndarray
    goal_states: np.ndarray
    drawn: int
    mujoco_version: str

    def __len__(self) -> int:
        return len(self.start_states)

    @property
    def rejected_share(self) -> float:
        """Share of drawn pairs that were already solved: what standing still would score."""
        return 1 - len(self) / self.drawn

    @property
    def sha256(self) -> str:
        """Hex digest of everything in the set."""
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for states in (self.start_states, self.goal_states):
            digest.update(np.ascontiguousarray(states, "<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` atomically."""
        header = json.dumps(self._header() | {"sha256": self.sha256})
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            np.savez(file, header=header, start=self.start_states, goal=self.goal_states)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, env_id: str | None = None) -> EpisodeSet:
        """Read a file written by :meth:`save`.

        Raises:
            DatasetError: missing or damaged file, a digest that does not match, another MuJoCo
                version than the installed one, or another environment than ``env_id``.
        """
        episodes, digest = _read(Path(path))
        if episodes.sha256 != digest:
            raise DatasetError(f"{path}: content does not match its SHA-256; draw the set again")
        installed = version("mujoco")
        if episodes.mujoco_version != installed:
            raise DatasetError(
                f"{path}: drawn with mujoco {episodes.mujoco_version}, installed is {installed}; "
                "install that version or draw the set again"
            )
        if env_id is not None and episodes.env_id != env_id:
            raise DatasetError(f"{path}: episodes of {episodes.env_id!r}, wanted {env_id!r}")
        return episodes

    def _header(self) -> dict[str, Any]:
        arrays = ("start_states", "goal_states")
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in arrays}


def _read(path: Path) -> tuple[EpisodeSet, str]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            digest = header.pop("sha256")
            return EpisodeSet(
                **header, start_states=file["start"], goal_states=file["goal"]
            ), digest
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a readable episode file ({error})") from error


def draw_far(env: Any, n: int, *, env_id: str, seed: int, budget: int) -> EpisodeSet:
    """Starts and goals drawn independently, anywhere in the workspace.

    Args:
        env: a GoalEnv. n: problems. budget: environment steps per problem.

    Raises DatasetError when nearly every drawn pair is already solved.
    """
    env = env.unwrapped
    rng = numpy_generator(seed, "episodes", env_id, "far")
    return _draw(
        env,
        lambda: (env.sample_state(rng), env.sample_goal(rng)),
        n,
        {"env_id": env_id, "kind": "far", "seed": seed, "budget": budget},
    )


def draw_near(
    env: Any,
    n: int,
    *,
    env_id: str,
    seed: int,
    budget: int,
    steps: int,
    policy: Policy | None = None,
) -> EpisodeSet:
    """Goals that ``policy`` reaches from the start within ``steps`` environment steps.

    The number of steps is uniform on 1..steps; the state reached is then brought to rest.

    Args:
        policy: coloured noise (``envs.policies.noise_policy``) if None. Others: :func:`draw_far`.
    """
    from ..envs.policies import noise_policy

    env, make_policy = env.unwrapped, noise_policy if policy is None else policy
    rng = numpy_generator(seed, "episodes", env_id, "near")

    def pair() -> tuple[np.ndarray, np.ndarray]:
        start, length = env.sample_state(rng), int(rng.integers(1, steps + 1))
        env.set_state(start)
        act = make_policy(env, length, rng)
        for t in range(length):
            env.step(act(t))
        return start, env.state_at(env.position(env.get_state()))

    header = {"env_id": env_id, "kind": "near", "seed": seed, "budget": budget}
    return _draw(env, pair, n, header)


def _draw(env: Any, pair: Callable, n: int, header: dict[str, Any]) -> EpisodeSet:
    pairs, drawn = [], 0
    while len(pairs) < n:
        if drawn >= MAX_DRAWS_PER_EPISODE * n:
            raise DatasetError(
                f"{header['env_id']}: only {len(pairs)} of {drawn} drawn {header['kind']} pairs "
                "were not already solved; draw goals farther away (more steps)"
            )
        start, goal = pair()
        drawn += 1
        if not env.success(start, goal):
            pairs.append((start, goal))
    starts, goals = (np.stack(states).astype(np.float64) for states in zip(*pairs, strict=True))
    return EpisodeSet(
        **header,
        start_states=starts,
        goal_states=goals,
        drawn=drawn,
        mujoco_version=version("mujoco"),
    )
