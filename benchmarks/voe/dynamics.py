"""Surprise of world models: how far the imagined latents are from those of what came.

A window is C frames of context and W - C that follow. From the latent of the context's end the
model imagines ``horizon`` model steps under the logged actions (open loop), or under none; each is
compared with the latent of the frames that came. Copy and linear extrapolation of the latent are
compared with the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...planning.protocol import LatentDynamics
from .masked import DISTANCES
from .settings import Distance
from .surprise import Pixels


@dataclass(frozen=True, kw_only=True)
class StepConfig:
    """How a model's steps lie on sampled frames."""

    frames: int = 1
    """Frames of an observation."""
    gap: int = 1
    """Sampled frames from one frame of an observation to the next."""
    block: int = 1
    """Sampled frames per model step."""
    horizon: int = 0
    """Model steps that are imagined at most; 0: to the end of the window; 1: one step from true
    frames."""
    actions: Literal["logged", "zero"] = "zero"
    """Of the video's log, or none."""
    state_dim: int = 0
    """Width of the states that observations must have; they are given as zeros."""

    def __post_init__(self) -> None:
        for name in ("frames", "gap", "block"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.horizon < 0:
            raise ConfigError(f"horizon = {self.horizon}: must be 0 (to the end) or more")

    @property
    def reach(self) -> int:
        """Frames of context that an observation needs."""
        return self.gap * (self.frames - 1) + 1


class DynamicsScorer(Pixels):
    """Surprise of a :class:`LatentDynamics`.

    Args:
        dynamics: the model. steps: how its steps lie on frames. name: of the model.
        distance: between latents, the mean over tokens. baselines: copy and linear too.

    Attributes:
        dynamics, steps: as given.
    """

    step = 1

    def __init__(
        self,
        dynamics: LatentDynamics,
        steps: StepConfig,
        name: str = "model",
        *,
        distance: Distance = "l1",
        baselines: bool = True,
    ):
        if distance not in DISTANCES:
            raise ConfigError(f"distance = {distance!r}: choose {', '.join(DISTANCES)}")
        self.names = (name, "copy", "linear") if baselines else (name,)
        self.dynamics, self.steps, self._distance = dynamics, steps, DISTANCES[distance]

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        video = torch.from_numpy(windows)
        out = torch.full((len(self.names), len(video), len(contexts), video.shape[1]), float("nan"))
        for i, context in enumerate(contexts):
            ends = self._ends(context, video.shape[1])
            truth = torch.stack([self._encode(video, end) for end in ends], dim=1)
            start = self._latent(video, context - 1)
            moves = self._actions(actions, context, len(ends), len(video)).to(start.tokens.device)
            guesses = [self.dynamics.rollout(start, moves[:, None]).tokens[:, 0]]
            if len(self.names) > 1:
                last = start.tokens[:, -1:]
                guesses += [last.expand_as(truth), self._line(video, context, last, len(ends))]
            for j, guess in enumerate(guesses):
                errors = self._distance(guess.float(), truth.float()).mean(-1)  # [B, steps]
                out[j, :, i][:, ends] = errors.cpu()
        return out[..., None, None]

    def _ends(self, context: int, window: int) -> list[int]:
        """Last frames of the observations that are predicted."""
        s = self.steps
        if context < s.reach:
            raise ConfigError(
                f"contexts: {context} frames are too few for an observation of {s.frames} frames "
                f"with a gap of {s.gap}: it needs {s.reach}"
            )
        ends = list(range(context - 1 + s.block, window, s.block))
        ends = ends[: s.horizon] if s.horizon else ends
        if not ends:
            raise ConfigError(
                f"window = {window} leaves no room for a model step of {s.block} frames after a "
                f"context of {context}: it needs {context + s.block}"
            )
        return ends

    def _latent(self, video: Tensor, end: int):
        s = self.steps
        frames = list(range(end - s.gap * (s.frames - 1), end + 1, s.gap))
        obs = {"pixels": video[:, frames]}
        if s.state_dim:
            obs["state"] = torch.zeros(len(video), len(frames), s.state_dim)
        return self.dynamics.encode(obs)

    def _encode(self, video: Tensor, end: int) -> Tensor:
        return self._latent(video, end).tokens[:, -1]

    def _line(self, video: Tensor, context: int, last: Tensor, steps: int) -> Tensor:
        before = context - 1 - self.steps.block
        if before + 1 < self.steps.reach:
            return last.expand(-1, steps, -1, -1) * float("nan")
        ahead = torch.arange(1, steps + 1, device=last.device).view(1, -1, 1, 1)
        return last + ahead * (last - self._encode(video, before)[:, None])

    def _actions(self, actions: np.ndarray | None, context: int, steps: int, batch: int) -> Tensor:
        """``[B, steps, A]``: those from the context's last frame on, a block per model step."""
        s, width = self.steps, self.dynamics.action_dim
        if s.actions == "zero":
            return torch.zeros(batch, steps, width)
        if actions is None:
            raise ConfigError('actions = "logged", but the videos have none; use "zero"')
        used = actions[:, context - 1 : context - 1 + steps * s.block]
        if used.shape[2] * s.block != width:
            raise ConfigError(
                f"{s.block} logged actions of width {used.shape[2]} are no model step's action, "
                f"which has width {width}: set block or skip"
            )
        return torch.from_numpy(used).reshape(batch, steps, width)
