"""Episode files: start and goal states drawn once, saved, and replayed by every method.

Comparisons between methods are paired because all of them face the same problems. A file carries
a SHA-256 of its content and the MuJoCo version whose state vectors it holds.
"""

from __future__ import annotations

import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import DatasetError
from ..core.io import atomic_path
from ..core.rng import numpy_generator
from ..datasets.trajectories import TrajectorySet
from ..envs.factors import FactorConfig, Factors, draw_factors

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
        split: of the layouts, where starts come with one: "train" or "test".
        factor_split: of the factors: "train" or "test".
        factors: kind of factor to numbers in [0, 1], float64 ``[n, SIZES[kind]]``: how each
            problem differs in looks and weights. Empty: not at all.
    """

    env_id: str
    kind: str
    seed: int
    budget: int
    start_states: np.ndarray
    goal_states: np.ndarray
    drawn: int
    mujoco_version: str
    split: str = "train"
    factor_split: str = "train"
    factors: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.start_states)

    @property
    def rejected_share(self) -> float:
        """Share of drawn pairs that were already solved: what standing still would score."""
        return 1 - len(self) / self.drawn

    def factors_of(self, index: int) -> Factors | None:
        """How problem ``index`` differs in looks and weights; None: not at all."""
        if not self.factors:
            return None
        return Factors({kind: values[index] for kind, values in self.factors.items()})

    @property
    def sha256(self) -> str:
        """Hex digest of everything in the set."""
        digest = hashlib.sha256(json.dumps(self._header(), sort_keys=True).encode())
        for values in self._arrays().values():
            digest.update(np.ascontiguousarray(values, "<f8").tobytes())
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an ``.npz`` atomically."""
        header = json.dumps(self._header() | {"sha256": self.sha256})
        with atomic_path(path) as temporary, open(temporary, "wb") as file:
            arrays: dict[str, Any] = self._arrays()
            np.savez(file, header=header, **arrays)

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
        """What is not an array. Sets without splits and factors say nothing of them, so that their
        digests are those of files written before there were any."""
        names = ("env_id", "kind", "seed", "budget", "drawn", "mujoco_version")
        header = {name: getattr(self, name) for name in names}
        if self.factors:
            header |= {"factor_split": self.factor_split, "factor_kinds": sorted(self.factors)}
        return header | ({"split": self.split} if self.split != "train" else {})

    def _arrays(self) -> dict[str, np.ndarray]:
        """The arrays of a file, in the order of the digest."""
        factors = {f"factor_{kind}": self.factors[kind] for kind in sorted(self.factors)}
        return {"start": self.start_states, "goal": self.goal_states} | factors


def _read(path: Path) -> tuple[EpisodeSet, str]:
    try:
        with np.load(path, allow_pickle=False) as file:
            header = json.loads(str(file["header"]))
            digest = header.pop("sha256")
            kinds = header.pop("factor_kinds", [])
            return EpisodeSet(
                **header,
                start_states=file["start"],
                goal_states=file["goal"],
                factors={kind: file[f"factor_{kind}"] for kind in kinds},
            ), digest
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise DatasetError(f"{path}: not a readable episode file ({error})") from error


def draw_far(
    env: Any,
    n: int,
    *,
    env_id: str,
    seed: int,
    budget: int,
    factors: FactorConfig | None = None,
) -> EpisodeSet:
    """Starts and goals drawn independently, anywhere in the workspace.

    Args:
        env: a GoalEnv; layouts are of its split. n: problems. budget: environment steps per
            problem. factors: what looks and weighs different in every problem; drawn by ``seed``
            and number.

    Raises DatasetError when nearly every drawn pair is already solved.
    """
    env = env.unwrapped
    rng = numpy_generator(seed, "episodes", env_id, "far")
    return _draw(
        env,
        lambda: (env.sample_state(rng), env.sample_goal(rng)),
        n,
        {"env_id": env_id, "kind": "far", "seed": seed, "budget": budget},
        factors,
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
    factors: FactorConfig | None = None,
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
    return _draw(env, pair, n, header, factors)


def draw_offsets(
    env: Any,
    trajectories: TrajectorySet,
    n: int,
    *,
    env_id: str,
    seed: int,
    budget: Callable[[int], int],
    offsets: Sequence[int],
    episodes: range,
) -> dict[int, EpisodeSet]:
    """Goals that lie so many steps later in the data, from the same starts for every offset.

    A start is a recorded state, in motion as it was; a goal is where the same episode was
    ``offset`` steps later, brought to rest. Starts at which any of the goals is already solved are
    redrawn.

    Args:
        trajectories: with simulator states, of ``env_id``. n: problems of each offset.
        budget: of an offset. episodes: of the set, from which problems are drawn (held-out ones).

    Raises:
        DatasetError: episodes too short for the largest offset, states of another size, or goals
            that are nearly all solved at the start.
    """
    states, firsts = trajectories.arrays().get("state"), trajectories.offsets
    if states is None or states.shape[1] != env.state_dim:
        raise DatasetError(
            f"{trajectories.root} holds no states of {env_id}: name a set made there"
        )
    rooms = {k: int(firsts[k + 1] - firsts[k]) - max(offsets) for k in episodes}
    fitting = [k for k in episodes if rooms[k] > 0]
    if not fitting:
        raise DatasetError(
            f"{trajectories.root}: none of {len(episodes)} episodes has more than {max(offsets)} "
            "steps; collect longer ones or take smaller offsets"
        )
    rng = numpy_generator(seed, "episodes", env_id, "offsets")
    starts: list[np.ndarray] = []
    goals: dict[int, list[np.ndarray]] = {offset: [] for offset in offsets}
    drawn = 0
    while len(starts) < n:
        if drawn >= MAX_DRAWS_PER_EPISODE * n:
            raise DatasetError(
                f"{env_id}: nearly every goal of {trajectories.root} is at its start"
            )
        episode = fitting[int(rng.integers(len(fitting)))]
        row, drawn = int(firsts[episode] + rng.integers(rooms[episode])), drawn + 1
        start = states[row]
        env.set_state(start)  # for its layout
        ends = {k: env.state_at(env.position(states[row + k])) for k in offsets}
        if any(env.success(start, goal) for goal in ends.values()):
            continue
        starts.append(start)
        for offset, goal in ends.items():
            goals[offset].append(goal)
    return {
        offset: EpisodeSet(
            env_id=env_id,
            kind=f"offset {offset}",
            seed=seed,
            budget=budget(offset),
            start_states=np.stack(starts).astype(np.float64),
            goal_states=np.stack(goals[offset]).astype(np.float64),
            drawn=drawn,
            mujoco_version=version("mujoco"),
        )
        for offset in offsets
    }


def _draw(
    env: Any, pair: Callable, n: int, header: dict[str, Any], varied: FactorConfig | None
) -> EpisodeSet:
    pairs, drawn, different = [], 0, []
    while len(pairs) < n:
        if varied is not None and varied.kinds and len(different) == len(pairs):
            rng = numpy_generator(header["seed"], "episode factors", len(pairs))
            different.append(draw_factors(rng, varied))
            different[-1].apply(env)  # before the states: sizes decide what rests where
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
        split=getattr(env, "split", "train"),
        factor_split=varied.split if different and varied is not None else "train",
        factors={
            kind: np.stack([one.values[kind] for one in different])
            for kind in (different[0].values if different else ())
        },
    )
