"""The world model: encode an observation, imagine what follows under actions.

    frames [B, k, H, W, 3] -> TubeletEncoder -> head -> latent [B, n, d] -> ActionPredictor

An observation is one tubelet of frames, so that the latent knows velocities; a goal is the goal
frame repeated, at rest. The head is one of

* ``vector``: one vector per observation, an MLP with batch norm on all tokens (the LeWM recipe,
  arXiv 2603.19312, with the tokens flattened rather than a class token);
* ``tokens``: the standardised tokens themselves, average-pooled to a coarser grid if asked.

Either works on an encoder that is trained with the rest or frozen (V-JEPA 2-AC's way).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.latent import Latent
from .action_predictor import ActionPredictor, ActionPredictorConfig
from .encoder import EncoderConfig, TubeletEncoder
from .futures import FuturePredictor, make_predictor
from .futures_config import FuturesConfig, How
from .proposer import Proposer, ProposerConfig


@dataclass(frozen=True, kw_only=True)
class WorldModelConfig:
    """Architecture of a world model."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    """Tubelet encoder."""
    predictor: ActionPredictorConfig = field(default_factory=ActionPredictorConfig)
    """Action-conditioned predictor."""
    futures: FuturesConfig = field(default_factory=FuturesConfig)
    """A latent variable: several futures of one context and action. None by default."""
    latent: Literal["vector", "tokens"] = "vector"
    """One vector per observation, or a grid of tokens."""
    latent_dim: int = 32
    """Width d of the vector."""
    head_width: int = 256
    """Hidden width of the vector's MLP."""
    pool: int = 1
    """Tokens are averaged over pool x pool neighbours (latent = tokens)."""
    image_size: int = 64
    """Height and width of the frames in pixels."""
    frame_gap: int = 3
    """Environment steps between the frames of an observation."""
    action_dim: int = 2
    """Width a of the environment's action."""
    action_block: int = 5
    """Environment steps per model step; the block's actions are concatenated."""
    proprio_dim: int = 0
    """Width P of the proprioception that the dynamics know and predict beside the latent; 0: pixels
    alone. Joined to every token's features, as in DINO-WM (arXiv 2411.04983)."""
    proposer: ProposerConfig | None = None
    """A head that proposes actions towards a goal, for planners that begin there."""

    def __post_init__(self) -> None:
        grid = self.encoder.grid(self.encoder.tubelet, self.image_size, self.image_size)
        for name in ("latent_dim", "head_width", "pool", "frame_gap", "action_dim", "action_block"):
            if getattr(self, name) < 1:
                raise ConfigError(f"model.{name} = {getattr(self, name)}: must be at least 1")
        if self.proprio_dim < 0:
            raise ConfigError(f"model.proprio_dim = {self.proprio_dim}: 0 (none) or more")
        if grid.h % self.pool:
            raise ConfigError(f"model.pool = {self.pool} does not divide the {grid.h} token rows")


class WorldModel(nn.Module):
    """Encoder, head and predictor; implements the planners' ``LatentDynamics`` protocol.

    Attributes:
        action_dim: A = action_block * environment action width, environment step major.
        token_mean, token_std: float ``[N, D]``, what standardises the encoder's tokens.
        proprio_mean, proprio_std: float ``[P]``, the same of proprioception.
        latent_dim: d, width of a latent without proprioception.
        levels: slower clocks over the same latents, as planners see them; none unless
            :func:`.hierarchy.attach` gave it some.
    """

    levels: tuple[Any, ...] = ()
    token_mean: Tensor
    token_std: Tensor
    proprio_mean: Tensor
    proprio_std: Tensor

    def __init__(self, config: WorldModelConfig):
        super().__init__()
        c = self.config = config
        self.encoder = TubeletEncoder(c.encoder)
        grid = c.encoder.grid(c.encoder.tubelet, c.image_size, c.image_size)
        self.grid = (grid.h, grid.w)
        self.register_buffer("token_mean", torch.zeros(grid.size, c.encoder.width))
        self.register_buffer("token_std", torch.ones(grid.size, c.encoder.width))
        if c.latent == "vector":
            self.head: nn.Module = nn.Sequential(
                nn.Linear(grid.size * c.encoder.width, c.head_width),
                nn.BatchNorm1d(c.head_width),
                nn.GELU(),
                nn.Linear(c.head_width, c.latent_dim),
                nn.BatchNorm1d(c.latent_dim, affine=False),
            )
            latent_dim, latent_grid = c.latent_dim, (1, 1)
        else:
            self.head = nn.Identity()
            latent_dim, latent_grid = c.encoder.width, (grid.h // c.pool, grid.w // c.pool)
        self.latent_dim = latent_dim
        self.action_dim = c.action_dim * c.action_block
        self.predictor = make_predictor(
            c.predictor,
            c.futures,
            latent_dim=latent_dim + c.proprio_dim,
            action_dim=self.action_dim,
            grid=latent_grid,
        )
        if c.proprio_dim:
            self.register_buffer("proprio_mean", torch.zeros(c.proprio_dim))
            self.register_buffer("proprio_std", torch.ones(c.proprio_dim))
        self.proposer: Proposer | None = None
        if c.proposer is not None:
            flat = latent_dim * latent_grid[0] * latent_grid[1]
            widths = {"state_dim": flat + c.proprio_dim, "goal_dim": flat}
            with torch.random.fork_rng(devices=[]):  # other weights are as they are without it
                self.proposer = Proposer(c.proposer, **widths, action_dim=self.action_dim)

    def tokens(self, frames: Tensor) -> Tensor:
        """Encoder tokens ``[B, N, D]`` of observations uint8 ``[B, k, H, W, 3]``."""
        return self.encoder(frames)

    @torch.no_grad()
    def standardise(self, sample: Tensor) -> None:
        """Fit the mean and deviation of every token and channel to ``sample [M, N, D]`` tokens."""
        self.token_mean.copy_(sample.float().mean(dim=0))
        self.token_std.copy_(sample.float().std(dim=0).clamp_min(1e-3))

    @torch.no_grad()
    def standardise_proprio(self, sample: Tensor) -> None:
        """Fit the mean and deviation of every entry to ``sample [M, P]``."""
        self.proprio_mean.copy_(sample.float().mean(dim=0))
        self.proprio_std.copy_(sample.float().std(dim=0).clamp_min(1e-3))

    def join(self, z: Tensor, proprio: Tensor | None) -> Tensor:
        """What the predictor reads and predicts: latents ``[..., n, d]`` with the standardised
        proprioception ``[..., P]`` beside every token, ``[..., n, d + P]``.

        Raises:
            ConfigError: no proprioception, or of another width, for a model that knows it.
        """
        width = self.config.proprio_dim
        if not width:
            return z
        if proprio is None or proprio.shape[-1] != width:
            raise ConfigError(
                f"the model knows proprioception of width {width} (model.proprio_dim), and got "
                f"{'none' if proprio is None else f'width {proprio.shape[-1]}'}"
            )
        felt = (proprio.to(z) - self.proprio_mean) / self.proprio_std
        return torch.cat([z, felt.unsqueeze(-2).expand(*z.shape[:-1], width)], dim=-1)

    def part(self, joined: Tensor) -> Latent:
        """The latent tokens and proprioception (standardised; the mean over tokens) in predictions
        ``[..., n, d + P]``."""
        if not self.config.proprio_dim:
            return Latent(joined)
        d = self.latent_dim
        return Latent(joined[..., :d], joined[..., d:].mean(dim=-2))

    def project(self, tokens: Tensor) -> Tensor:
        """Latents ``[B, n, d]`` of encoder tokens ``[B, N, D]``."""
        x = (tokens.to(self.token_mean.dtype) - self.token_mean) / self.token_std
        if self.config.latent == "vector":
            return self.head(x.flatten(1)).unsqueeze(1)
        if self.config.pool == 1:
            return x
        grid = x.transpose(1, 2).unflatten(2, self.grid)
        return F.avg_pool2d(grid, self.config.pool).flatten(2).transpose(1, 2)

    def encode(self, obs: Mapping[str, Any]) -> Latent:
        """The current latent ``[B, 1, n, d]`` from ``pixels`` uint8 ``[B, k, H, W, 3]``.

        The k = tubelet frames are ``frame_gap`` environment steps apart, latest last. A model that
        knows proprioception reads the last of ``proprio`` ``[B, T, P]`` too.

        Raises:
            ConfigError: pixels of another type, count or size; proprioception that is missing.
        """
        pixels = self._pixels(obs, (self.config.encoder.tubelet,))
        z = self.project(self.tokens(pixels)).unsqueeze(1)
        if not self.config.proprio_dim:
            return Latent(z)
        felt = obs.get("proprio")
        felt = None if felt is None else torch.as_tensor(np.asarray(felt))[:, -1:].to(z.device)
        return self.part(self.join(z, felt))

    def encode_goal(self, obs: Mapping[str, Any]) -> Latent:
        """The goal's latent ``[B, n, d]`` from one frame ``pixels`` uint8 ``[B, H, W, 3]``.

        Raises:
            ConfigError: pixels of another type or size.
        """
        frame = self._pixels(obs, ()).unsqueeze(1)
        still = frame.expand(-1, self.config.encoder.tubelet, -1, -1, -1)
        return Latent(self.project(self.tokens(still)))

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Imagined latents ``[B, S, H, n, d]`` of candidate actions ``[B, S, H, A]``.

        Raises:
            ConfigError: a context of several steps, whose actions are unknown here.
        """
        return self.imagine(self.predictor, context, actions)

    def imagine(
        self, predictor: ActionPredictor | FuturePredictor, context: Latent, actions: Tensor
    ) -> Latent:
        """:meth:`rollout` by another predictor of the same latents, under its own actions."""
        steps = context.tokens.shape[1]
        if steps != 1:
            raise ConfigError(
                f"a context of {steps} steps needs the actions between them: give the one step "
                "that encode returns, or call predictor.rollout_candidates with the past actions"
            )
        actions = actions.to(context.tokens.dtype)
        past = actions.new_zeros(len(actions), 0, predictor.action_dim)
        start = context.tokens
        if context.proprio is not None:  # standardised already
            felt = context.proprio.unsqueeze(-2).expand(*start.shape[:-1], -1)
            start = torch.cat([start, felt], dim=-1)
        return self.part(predictor.rollout_candidates(start, past, actions))

    def propose(self, context: Latent, goal: Latent, steps: Sequence[int], horizon: int) -> Tensor:
        """Actions ``[B, K, H, A]`` towards the goal in each of K numbers of model steps.

        Raises:
            ConfigError: the model has no such head, or one of shorter chunks.
        """
        if self.proposer is None:
            raise ConfigError(
                "this model has no head that proposes actions: `tubelet amortise` adds one to a "
                "trained model; or plan without (propose = ())"
            )
        state = flat_state(context.map(lambda x: x[:, -1]))
        return self.proposer.propose(state, goal.tokens.flatten(1), steps, horizon)

    def rollout_futures(
        self,
        context: Latent,
        actions: Tensor,
        *,
        how: How = "sample",
        count: int = 8,
        seed: int = 0,
    ) -> tuple[Latent, Tensor]:
        """Several imagined futures of each candidate; :meth:`rollout` gives the most probable one.

        Args:
            context, actions: as of :meth:`rollout`. how, count, seed: which futures, see
                :meth:`.futures.FuturePredictor.imagine`.

        Returns:
            latents ``[B, S, F, H, n, d]`` and weights ``[B, S, F]`` of sum 1; F = 1 without a z.
        """
        predictor = self.predictor
        if not isinstance(predictor, FuturePredictor):
            one = self.rollout(context, actions).map(lambda x: x.unsqueeze(2))
            return one, one.tokens.new_ones(one.tokens.shape[:3])
        start = context.tokens
        if context.proprio is not None:  # standardised already
            felt = context.proprio.unsqueeze(-2).expand(*start.shape[:-1], -1)
            start = torch.cat([start, felt], dim=-1)
        found, weights = predictor.imagine(
            start, actions.to(start.dtype), how=how, count=count, seed=seed
        )
        return self.part(found), weights

    @property
    def codes(self) -> int:
        """How many futures ``how = "hold"`` gives."""
        return max(1, self.config.futures.codes)

    def candidate_bytes(self, horizon: int, *, gradient: bool = False) -> int:
        """Memory that one candidate of :meth:`rollout` takes; see :func:`candidate_bytes`."""
        inner = self.predictor
        body = inner.body if isinstance(inner, FuturePredictor) else inner
        return candidate_bytes(body, horizon, gradient=gradient)

    def _pixels(self, obs: Mapping[str, Any], frames: tuple[int, ...]) -> Tensor:
        """``obs["pixels"]`` on the model's device, if uint8 ``[B, *frames, H, W, 3]``."""
        pixels = obs["pixels"]
        if not isinstance(pixels, Tensor):
            # torch shares memory, and takes neither read-only arrays nor reversed ones
            pixels = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
        size = self.config.image_size
        wanted = (*frames, size, size, 3)
        if pixels.dtype != torch.uint8 or tuple(pixels.shape[1:]) != wanted:
            raise ConfigError(
                f"pixels are {str(pixels.dtype).removeprefix('torch.')} {list(pixels.shape)}; the "
                f"model wants uint8 [B, {', '.join(map(str, wanted))}]"
            )
        return pixels.to(self.token_mean.device)


def flat_state(latent: Latent) -> Tensor:
    """What the proposer knows of now, ``[..., S]``: tokens ``[..., n, d]`` side by side, and
    proprioception."""
    tokens = latent.tokens.flatten(-2)
    return tokens if latent.proprio is None else torch.cat([tokens, latent.proprio], dim=-1)


def candidate_bytes(
    predictor: ActionPredictor, horizon: int, *, past: int = 0, gradient: bool = False
) -> int:
    """An upper estimate of the memory of one candidate in a rollout, in bytes.

    Counts the keys and values of every step, old and new side by side where a step is appended,
    the widest moment inside a block, and the imagined latents; with ``gradient``, what every
    operation of every step keeps for the way back.

    Args:
        predictor: of the model. horizon: H, imagined steps. past: context steps before the last.
    """
    c = predictor.config
    size = predictor.embed.weight.element_size()
    tokens = predictor.tokens + c.extra_tokens
    hidden = round(c.width * c.mlp_ratio)
    inside = tokens * (hidden + 12 * c.width)  # one block's: MLP, or modulation, q, k, v and sums
    caches = 2 * c.depth * c.width * tokens * (2 * (past + horizon))
    latents = 3 * horizon * predictor.tokens * predictor.latent_dim
    total = inside + caches + latents
    if gradient:
        kept = 2 * hidden + (48 + 2 * (past + horizon)) * c.width  # keys and values of every step
        total += horizon * c.depth * tokens * kept
    return size * total
