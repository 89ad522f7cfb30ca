"""The arms of :mod:`.futures_study`: one predictor on the forked world, with and without a z."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from ..core.run import RunDir
from ..datasets.windows import WindowBatch
from ..planning.futures import How, Judge
from ..vjepa.action_config import ActionPredictorConfig
from ..vjepa.dynamics import train_dynamics
from ..vjepa.dynamics_config import DynamicsConfig
from ..vjepa.encoder import EncoderConfig, TubeletEncoder
from ..vjepa.engine import LoopConfig
from ..vjepa.futures_config import FuturesConfig
from ..vjepa.optim import OptimConfig
from ..vjepa.world_model import WorldModel, WorldModelConfig
from .fork_world import WIDTH, lift, windows

Plan = tuple[Judge, How]
"""What a plan costs, and of which futures."""


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A model and what it is used for.

    Attributes:
        futures: its z. plans: how it plans; of an arm that cannot tell plans apart, none.
        context: what its predictions are made from in training: the true state; that of another
            walk, under the own action; or nothing, not even the action.
    """

    futures: FuturesConfig = field(default_factory=FuturesConfig)
    plans: tuple[Plan, ...] = ()
    context: Literal["true", "shuffled", "none"] = "true"


CODES = FuturesConfig(count=4, width=64)
DRAWN: tuple[Plan, ...] = (("expected", "sample"),)
ARMS = {
    "deterministic": Arm(plans=(("likely", "likely"),)),
    "gaussian": Arm(
        futures=FuturesConfig(kind="gaussian", width=64), plans=(("likely", "likely"), *DRAWN)
    ),
    "codes": Arm(
        futures=CODES,
        plans=(
            ("likely", "likely"),
            *DRAWN,
            ("worst", "sample"),
            ("optimistic", "sample"),
        ),
    ),
    "shuffled context": Arm(futures=CODES, plans=DRAWN, context="shuffled"),
    "no context": Arm(futures=CODES, context="none"),
}
"""By name. The last two are controls: as many guesses, with nothing to guess from."""


@dataclass(frozen=True, kw_only=True)
class ArmConfig:
    """How every arm trains."""

    steps: int = 1500
    """Optimiser steps."""
    batch: int = 128
    """Walks per step."""
    horizon: int = 3
    """Steps of a walk. Controls train on its single steps, since the next state is a context."""
    lr: float = 3e-3
    """Learning rate."""
    width: int = 64
    """Of the predictor."""
    depth: int = 1
    """Its blocks."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "horizon"):
            if getattr(self, name) < 1:
                raise ConfigError(f"training.{name} = {getattr(self, name)}: must be at least 1")


def dynamics_config(arm: Arm, config: ArmConfig, seed: int) -> DynamicsConfig:
    """The training of an arm: observations are taken for the tokens of a frozen encoder."""
    alone = arm.context != "true"
    return DynamicsConfig(
        model=WorldModelConfig(
            encoder=_ENCODER,
            predictor=ActionPredictorConfig(width=config.width, depth=config.depth, heads=2),
            futures=arm.futures,
            latent="tokens",
            image_size=_ENCODER.patch,
            action_block=1,
        ),
        freeze_encoder=True,
        horizon=1 if alone else config.horizon,
        rollout_weight=0.0 if alone else 1.0,
        batch_size=config.batch * (config.horizon if alone else 1),
        cache_stride=1,
        optim=OptimConfig(
            lr=config.lr,
            start_lr=0.0,
            final_lr=0.0,
            warmup=0.05,
            weight_decay=1e-4,
            final_weight_decay=1e-4,
            betas=(0.9, 0.98),  # a router forgets what it learnt while codes were not yet sorted
            clip=1.0,
        ),
        loop=LoopConfig(
            steps=config.steps, log_every=50, report_every=config.steps, save_every=500, keep=1
        ),
        seed=seed,
    )


def train_arm(name: str, config: ArmConfig, folder: Path, seed: int) -> WorldModel:
    """Train the arm ``name``, or go on with the run in ``folder``; in eval mode, frozen."""
    arm = ARMS[name]
    settings = dynamics_config(arm, config, seed)
    with RunDir.create(folder, settings, resume=True) as run:
        model = train_dynamics(
            settings,
            lambda first: batches(arm, config, seed, first),
            run,
            encoder=TubeletEncoder(_ENCODER),
        )
    return model.requires_grad_(False)


def batches(arm: Arm, config: ArmConfig, seed: int, first: int) -> Iterator[WindowBatch]:
    """Endless walks, those of a step a function of the seed and the step alone."""
    step = first
    while True:
        states, moves = windows(seed, step, config.batch, config.horizon)
        seen, actions = lift(states).unsqueeze(2), torch.from_numpy(moves)
        if arm.context != "true":
            pairs = torch.stack([seen[:, :-1], seen[:, 1:]], dim=2).flatten(0, 1)
            seen, actions = pairs, actions.flatten(0, 1).unsqueeze(1)
            before = pairs[:, :1].roll(config.horizon, dims=0)
            if arm.context == "none":
                before, actions = torch.zeros_like(before), torch.zeros_like(actions)
            seen = torch.cat([before, pairs[:, 1:]], dim=1)
        count = len(seen)
        numbers = np.zeros((count, seen.shape[1]), np.int64)
        yield WindowBatch(seen, actions, np.arange(count), numbers)
        step += 1


class ForkModel:
    """A trained arm as a dynamics with futures that observes states.

    Args:
        model: trained by :func:`train_arm`. blind: it predicts from nothing.
    """

    action_dim = 2

    def __init__(self, model: WorldModel, *, blind: bool = False):
        self.model, self.blind, self.codes = model, blind, model.codes

    def encode(self, obs: Any) -> Latent:
        """From ``state`` float ``[B, T, 3]``."""
        return Latent(lift(obs["state"]).unsqueeze(-2))

    def encode_goal(self, obs: Any) -> Latent:
        """From ``state`` float ``[B, 3]``."""
        return Latent(lift(obs["state"]).unsqueeze(-2))

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """The most probable future."""
        return self.rollout_futures(context, actions, how="likely")[0].map(lambda x: x[:, :, 0])

    def rollout_futures(
        self, context: Latent, actions: Tensor, *, how: How, count: int = 8, seed: int = 0
    ) -> tuple[Latent, Tensor]:
        """As :meth:`WorldModel.rollout_futures`. A blind model's steps do not follow each other:
        each is drawn by itself."""
        if not self.blind:
            return self.model.rollout_futures(context, actions, how=how, count=count, seed=seed)
        nothing = context.map(torch.zeros_like)
        steps = [
            self.model.rollout_futures(
                nothing, torch.zeros_like(actions[:, :, :1]), how=how, count=count, seed=seed + h
            )
            for h in range(actions.shape[2])
        ]
        return Latent(torch.cat([found.tokens for found, _ in steps], dim=3)), steps[-1][1]


_ENCODER = EncoderConfig(width=WIDTH, depth=1, heads=1, patch=8, tubelet=1)
"""Never run: observations stand for its tokens."""
