"""Goal reaching: every method gets the same problems, the same images and the same step budget.

All problems of a batch run in lockstep, so that an agent plans for all of them at once. Agents see
pixels and proprioception; the simulator's state goes only to an agent evaluated as ``privileged``
(the oracle ceiling), and every table says so.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from ..core.errors import ConfigError
from .episodes import EpisodeSet

ROLES = ("model", "floor", "ceiling")


class Agent(Protocol):
    """What :func:`evaluate` drives. ``planning.MPCAgent`` and everything in ``floors`` fit.

    Optional attribute: ``records``, a list of ``planning.PlanRecord`` since the last reset, from
    which model calls are counted.
    """

    def reset(self, goal_obs: dict[str, np.ndarray], *, problems: Sequence[int]) -> None:
        """Start B problems. ``pixels`` uint8 ``[B, H, W, 3]``, one goal image each, at rest.

        ``problems`` numbers them in the episode set: randomness that depends on the number alone
        makes the outcome independent of the batch size.
        """

    def act(self, obs: dict[str, np.ndarray]) -> Any:
        """The next K actions of each problem, float32 ``[B, K, a]`` in [-1, 1].

        ``pixels`` uint8 ``[B, T, H, W, 3]``, oldest first, and ``proprio`` float32 ``[B, T, P]``.
        """


@dataclass(frozen=True, kw_only=True, eq=False)
class GoalReachingResult:
    """One method on one episode set, n problems and a budget of M environment steps.

    Attributes:
        name: row label. role: ``model``, ``floor`` or ``ceiling``. seed: training seed, or None.
        success: bool ``[n, M + 1]``; column 0 is the reset. distance: name to float
            ``[n, M + 1]``, in the environment's units.
        seconds: agent seconds per environment action of one problem (batches share the time).
        model_calls: candidate-step predictions per environment action of one problem, or None.
        films: problem index to uint8 ``[M + 1, H, W, 3]``; goals: index to ``[H, W, 3]``.
    """

    name: str
    role: str
    seed: int | None
    privileged: bool
    env_id: str
    kind: str
    episodes_sha256: str
    episodes_seed: int
    rejected_share: float
    budget: int
    success: np.ndarray
    distance: dict[str, np.ndarray]
    seconds: float
    model_calls: float | None
    films: dict[int, np.ndarray] = field(default_factory=dict)
    goals: dict[int, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise ConfigError(f"role {self.role!r} of {self.name!r}: choose one of {ROLES}")

    def __len__(self) -> int:
        return len(self.success)

    @cached_property
    def at_end(self) -> np.ndarray:
        """bool ``[n]``: success at the last step of the budget, the headline."""
        return self.success[:, -1]

    @cached_property
    def at_any(self) -> np.ndarray:
        """bool ``[n]``: success at any step, the reset included."""
        return np.any(self.success, axis=1)

    @cached_property
    def first_success(self) -> np.ndarray:
        """int ``[n]``: first successful step, -1 where there was none."""
        return np.where(self.at_any, self.success.argmax(1), -1)

    @property
    def solved_at_reset(self) -> float:
        """Share of problems that were solved before the first action."""
        return float(self.success[:, 0].mean())

    def to_json(self) -> dict[str, Any]:
        """Everything but the films, as JSON values (distances rounded to 1e-5)."""
        skip = ("films", "goals")
        value = {k: getattr(self, k) for k in self.__dataclass_fields__ if k not in skip}
        value["success"] = self.success.astype(int).tolist()
        value["distance"] = {k: np.round(v, 5).tolist() for k, v in self.distance.items()}
        return value | {"first_success": self.first_success.tolist()}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> GoalReachingResult:
        """The result that :meth:`to_json` wrote, without films."""
        value = {k: v for k, v in value.items() if k != "first_success"}
        value["success"] = np.array(value["success"], bool)
        value["distance"] = {k: np.array(v) for k, v in value["distance"].items()}
        return cls(**value)


def evaluate(
    env_factory: Callable[[], Any],
    agent: Agent,
    episodes: EpisodeSet,
    *,
    name: str,
    role: str = "model",
    seed: int | None = None,
    privileged: bool = False,
    context_frames: int = 1,
    context_stride: int = 1,
    batch_size: int = 100,
    record: Iterable[int] = (),
    record_each: int = 0,
    progress: Callable[[int], None] | None = None,
) -> GoalReachingResult:
    """Run ``agent`` on every problem for exactly the budget of environment steps.

    Args:
        env_factory: makes one GoalEnv; ``batch_size`` of them live in this process. Make them with
            ``render_obs=False``: needed frames are rendered here from the states, the rest never.
        name, role, seed: of the method, for the tables; ``role`` is model, floor or ceiling.
        privileged: also show the agent the simulator's ``state``, float64 ``[B, T, S]`` in
            observations and ``[B, S]`` beside the goal images, and ``factors`` (a list) where
            problems differ in looks and weights. For the oracle only.
        context_frames: frames T that the agent sees: those of environment steps
            ``t - (T - 1) * context_stride, ..., t``, oldest first. Before the reset the first
            frame is repeated (everything is at rest).
        record: problem indices to film, one frame per environment step.
        record_each: also film the first this many problems that ended in success, and as many that
            did not (filmed afterwards, from the states).
        progress: called after every agent decision with the steps done, summed over problems.

    Raises ConfigError for impossible arguments or when actions have the wrong shape.
    """
    if min(context_frames, context_stride, batch_size) < 1:
        raise ConfigError(
            "context_frames, context_stride and batch_size must be at least 1, got "
            f"{context_frames}, {context_stride}, {batch_size}"
        )
    n = len(episodes)
    envs = [env_factory().unwrapped for _ in range(min(batch_size, n))]
    runs = []
    for first in range(0, n, len(envs)):
        rows = range(first, min(first + len(envs), n))
        run = _Lockstep(envs[: len(rows)], episodes, rows, context_frames, context_stride)
        run.play(agent, privileged, progress)
        runs.append(run)
    success = np.concatenate([run.success for run in runs])
    hits, misses = np.flatnonzero(success[:, -1]), np.flatnonzero(~success[:, -1])
    filmed = {*record, *hits[:record_each].tolist(), *misses[:record_each].tolist()}
    calls = [run.model_calls for run in runs if run.model_calls is not None]
    return GoalReachingResult(
        name=name,
        role=role,
        seed=seed,
        privileged=privileged,
        env_id=episodes.env_id,
        kind=episodes.kind,
        episodes_sha256=episodes.sha256,
        episodes_seed=episodes.seed,
        rejected_share=episodes.rejected_share,
        budget=episodes.budget,
        success=success,
        distance={
            key: np.concatenate([run.distance[key] for run in runs]) for key in runs[0].distance
        },
        seconds=sum(run.seconds for run in runs) / (n * episodes.budget),
        model_calls=float(np.mean(calls)) / episodes.budget if calls else None,
        films={i: run.film(i) for run in runs for i in run.rows if i in filmed},
        goals={i: run.goal_image(i) for run in runs for i in run.rows if i in filmed},
    )


class _Lockstep:
    """B problems side by side. Frames are rendered from the kept states, when they are needed."""

    def __init__(self, envs: list, episodes: EpisodeSet, rows: range, frames: int, stride: int):
        self.envs, self.rows, self.budget = envs, rows, episodes.budget
        self.offsets = range(-(frames - 1) * stride, 1, stride)
        self.goals = episodes.goal_states[rows.start : rows.stop]
        self.factors = [episodes.factors_of(row) for row in rows]
        starts = episodes.start_states[rows.start : rows.stop]
        shape = (len(envs), self.budget + 1)
        self.states = np.zeros((*shape, starts.shape[1]))
        self.proprio = np.zeros((*shape, *envs[0].observation_space["proprio"].shape), np.float32)
        self.success = np.zeros(shape, bool)
        self.distance: dict[str, np.ndarray] = {}
        self.frames: dict[int, np.ndarray] = {}  # step -> uint8 [B, H, W, 3]
        self.seconds, self.model_calls = 0.0, None
        for b, (env, state, goal) in enumerate(zip(envs, starts, self.goals, strict=True)):
            self._vary(b)
            self._keep(b, 0, *env.reset(options={"state": state, "goal_state": goal}))

    def play(self, agent: Agent, privileged: bool, progress: Callable[[int], None] | None) -> None:
        self._timed(agent.reset, self._goal_obs(privileged), problems=self.rows)
        step = 0
        while step < self.budget:
            actions = np.asarray(self._timed(agent.act, self._obs(step, privileged)), np.float32)
            actions = self._checked(actions)[:, : self.budget - step]
            for action in actions.swapaxes(0, 1):
                step += 1
                for b, env in enumerate(self.envs):
                    observation, *_, info = env.step(action[b])
                    self._keep(b, step, observation, info)
            if progress is not None:
                progress(actions.shape[0] * actions.shape[1])
        if hasattr(agent, "records"):
            records = agent.records  # type: ignore[attr-defined]
            self.model_calls = sum(r.plan.diagnostics["model_calls"] for r in records)

    def film(self, row: int) -> np.ndarray:
        b = row - self.rows.start
        self._vary(b)  # a later batch has used the environment
        return np.stack([self.envs[b].render_state(state) for state in self.states[b]])

    def goal_image(self, row: int) -> np.ndarray:
        b = row - self.rows.start
        self._vary(b)
        return self.envs[b].render_state(self.goals[b])

    def _vary(self, b: int) -> None:
        """Give the environment of a problem the looks and weights that belong to it."""
        factors = self.factors[b]
        if factors is not None:
            factors.apply(self.envs[b])

    def _keep(self, b: int, step: int, observation: dict, info: dict) -> None:
        self.states[b, step] = info["state"]
        self.proprio[b, step] = observation["proprio"]
        self.success[b, step] = info["success"]
        for key, value in info["distance"].items():
            self.distance.setdefault(key, np.zeros(self.success.shape))[b, step] = value

    def _obs(self, step: int, privileged: bool) -> dict[str, np.ndarray]:
        steps = [max(0, step + offset) for offset in self.offsets]
        kept = self.frames
        self.frames = {t: kept[t] if t in kept else self._render(t) for t in sorted(set(steps))}
        obs = {
            "pixels": np.stack([self.frames[t] for t in steps], 1),
            "proprio": self.proprio[:, steps],
        }
        return obs | (self._secrets(self.states[:, steps]) if privileged else {})

    def _secrets(self, states: np.ndarray) -> dict[str, Any]:
        """What only the oracle sees."""
        varied = {"factors": self.factors} if any(self.factors) else {}
        return {"state": states} | varied

    def _goal_obs(self, privileged: bool) -> dict[str, np.ndarray]:
        pairs = zip(self.envs, self.goals, strict=True)
        obs = {"pixels": np.stack([env.render_state(state) for env, state in pairs])}
        return obs | (self._secrets(self.goals) if privileged else {})

    def _render(self, step: int) -> np.ndarray:
        pairs = zip(self.envs, self.states[:, step], strict=True)
        return np.stack([env.render_state(state) for env, state in pairs])

    def _timed(self, call: Callable, *args: Any, **kwargs: Any) -> Any:
        began = time.perf_counter()
        value = call(*args, **kwargs)
        self.seconds += time.perf_counter() - began
        return value

    def _checked(self, actions: np.ndarray) -> np.ndarray:
        width = self.envs[0].action_space.shape[0]
        if actions.ndim != 3 or (len(actions), actions.shape[2]) != (len(self.envs), width):
            raise ConfigError(
                f"agent returned actions of shape {actions.shape}, "
                f"wanted [{len(self.envs)}, K >= 1, {width}]"
            )
        if actions.shape[1] == 0 or not np.isfinite(actions).all():
            raise ConfigError(f"agent returned no actions or NaN/Inf, shape {actions.shape}")
        return actions
