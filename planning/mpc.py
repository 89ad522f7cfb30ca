"""Receding horizon control: plan, execute the first steps, look again, plan again."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, PlanningError
from ..core.latent import Latent
from ..core.rng import torch_generator
from .protocol import HeldActions, LatentDynamics, Observation, Plan, Planner


@dataclass(frozen=True, kw_only=True)
class MPCConfig:
    """Settings of :class:`MPCAgent`.

    Attributes:
        execute: model steps carried out per plan.
        action_block: environment actions per model step (frame skip of the model).
        hold: plan one action per model step and hold it for the block, instead of planning every
            action of the block.
        warm_start: how the next search begins. "zeros" and "last" shift the last plan by
            ``execute`` steps and fill its end with zeros or with its last action; "none" starts
            from zeros.
        seed: of the search noise.

    Raises :class:`ConfigError` naming every impossible value.
    """

    execute: int = 1
    action_block: int = 1
    hold: bool = False
    warm_start: Literal["zeros", "last", "none"] = "zeros"
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            f"execute = {self.execute}: must be 1 or more": self.execute >= 1,
            f"action_block = {self.action_block}: must be 1 or more": self.action_block >= 1,
            f"warm_start = {self.warm_start!r}: choose zeros, last or none": (
                self.warm_start in ("zeros", "last", "none")
            ),
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRecord:
    """One call of :meth:`MPCAgent.act`.

    Attributes:
        plan: the plan with the planner's diagnostics.
        seconds: wall clock of the call, encoding included, for the whole batch.
        encode_seconds: of that, encoding the observation.
        seconds_per_action: of one environment action of one problem.
        model_calls_per_action: candidate-step predictions per environment action of one problem.
    """

    plan: Plan
    seconds: float
    encode_seconds: float
    seconds_per_action: float
    model_calls_per_action: float


class MPCAgent:
    """Drives B problems at once to their goals with any planner and any latent dynamics.

    Args:
        dynamics: the model, with A = ``action_block`` times the environment's action width.
        planner: built for the dynamics' action width, or with ``hold`` for the environment's.
        config: settings.

    Attributes:
        records: one :class:`PlanRecord` per call of :meth:`act` since :meth:`reset`.

    Raises :class:`PlanningError` if the widths or the horizon do not fit.
    """

    def __init__(self, dynamics: LatentDynamics, planner: Planner, config: MPCConfig):
        block = config.action_block
        if dynamics.action_dim % block:
            raise PlanningError(
                f"action_block = {block} does not divide the dynamics' action width "
                f"{dynamics.action_dim}"
            )
        self._held = HeldActions(dynamics, block) if config.hold else None
        self.dynamics = self._held or dynamics
        if planner.action_dim != self.dynamics.action_dim:
            raise PlanningError(
                f"the planner was built for actions of width {planner.action_dim}, but "
                f"hold = {config.hold} needs {self.dynamics.action_dim}"
            )
        if config.execute > planner.horizon:
            raise PlanningError(
                f"execute = {config.execute} is more than the planner's horizon {planner.horizon}"
            )
        self.planner, self.config = planner, config
        self.env_action_dim = dynamics.action_dim // block
        self.records: list[PlanRecord] = []
        self._goal: Latent | None = None
        self._last: Tensor | None = None
        self._generators: list[torch.Generator] = []

    @property
    def actions_per_call(self) -> int:
        """K, environment actions returned by each call of :meth:`act`."""
        return self.config.execute * self.config.action_block

    def reset(self, goal_obs: Observation, *, problems: Sequence[int] | None = None) -> None:
        """Begin B episodes towards the goals ``pixels`` uint8 ``[B, H, W, 3]``.

        ``problems`` numbers them (0 to B - 1 if None): each number has its own random stream, so
        the plans of a problem do not depend on which others share its batch.
        """
        with torch.inference_mode():
            self._goal = self.dynamics.encode_goal(goal_obs)
        count = len(self._goal.tokens)
        numbers = range(count) if problems is None else problems
        if len(numbers) != count:
            raise PlanningError(f"{len(numbers)} problem numbers for {count} goals: give one each")
        self._generators = [torch_generator(self.config.seed, "mpc", n) for n in numbers]
        self._last, self.records = None, []
        if (forget := getattr(self.planner, "reset", None)) is not None:
            forget()  # what a planner keeps between plans belongs to the last episodes

    def act(self, obs: Observation) -> np.ndarray:
        """The next K environment actions of each problem, float32 ``[B, K, a]``.

        ``obs`` holds the model's context, ``pixels`` uint8 ``[B, T, H, W, 3]``, latest frame last,
        frames one model step apart.
        """
        if self._goal is None:
            raise PlanningError("act was called before reset: give the agent its goals first")
        started = time.perf_counter()
        with torch.inference_mode():
            context = self.dynamics.encode(obs)
        if context.tokens.is_cuda:
            torch.cuda.synchronize(context.tokens.device)
        encoded = time.perf_counter() - started
        plan = self.planner.plan(
            self.dynamics,
            context,
            self._goal,
            warm_start=self._shifted(),
            generator=self._generators,
        )
        self._last = plan.actions
        self._record(plan, time.perf_counter() - started, encoded)
        steps = plan.actions[:, : self.config.execute]
        blocks = self._held.expand(steps) if self._held else steps
        return blocks.reshape(len(blocks), -1, self.env_action_dim).float().cpu().numpy()

    def _shifted(self) -> Tensor | None:
        """The last plan moved on by the executed steps, ``[B, H, A]``, or None."""
        if self._last is None or self.config.warm_start == "none":
            return None
        rest, execute = self._last[:, self.config.execute :], self.config.execute
        fill = self._last[:, -1:].expand(-1, execute, -1)
        if self.config.warm_start == "zeros":
            fill = torch.zeros_like(fill)
        return torch.cat([rest, fill], 1)

    def _record(self, plan: Plan, seconds: float, encoded: float) -> None:
        self.records.append(
            PlanRecord(
                plan=plan,
                seconds=seconds,
                encode_seconds=encoded,
                seconds_per_action=seconds / (len(plan.actions) * self.actions_per_call),
                model_calls_per_action=plan.diagnostics["model_calls"] / self.actions_per_call,
            )
        )


def profile(records: Sequence[PlanRecord], actions_per_call: int) -> dict[str, float]:
    """Where the time of an environment action of one problem goes, in seconds.

    Args:
        records: of an agent. actions_per_call: the agent's.

    Returns:
        ``encode`` (the observation), ``rollout``, ``cost``, ``gradient``, ``sampling`` (noise and
        bounds) and ``overhead`` (all else: ranking, refitting, checks, warm start), which sum to
        the seconds per action. Empty without records.
    """
    total: dict[str, float] = {}
    actions = sum(len(record.plan.actions) for record in records) * actions_per_call
    for record in records:
        inside = {k: v for k, v in record.plan.diagnostics["profile"].items() if k != "overhead"}
        parts = {"encode": record.encode_seconds} | inside
        parts["overhead"] = record.seconds - sum(parts.values())
        for name, seconds in parts.items():
            total[name] = total.get(name, 0.0) + seconds / actions
    return total
