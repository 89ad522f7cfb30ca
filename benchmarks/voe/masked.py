"""Surprise of a masked latent predictor: V-JEPA's protocol (arXiv 2502.11831).

    surprise = mean over future tokens | predictor(encoder(context)) - LN(target encoder(window)) |

The context is encoded alone, the target encoder sees the whole window. Its tokens of the first
future frames have therefore attended to later ones: surprise arrives early, by up to W - C frames.

Copy and linear extrapolation predict the future tokens from those of the context's last step(s), of
the target encoder on the context alone, and are compared with the same targets.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ...core.errors import ConfigError
from ...core.rng import stream_seed
from ...vjepa.encoder import EncoderConfig, TubeletEncoder
from ...vjepa.objectives.targets import TargetConfig, normalise
from ...vjepa.positions import Grid
from ...vjepa.predictor import MaskedJob, MaskedPredictor, PredictorConfig
from .settings import Distance
from .surprise import Pixels

DISTANCES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": lambda a, b: (a - b).abs().mean(-1),
    "l2": lambda a, b: (a - b).square().mean(-1),
    "cos": lambda a, b: 1 - torch.nn.functional.cosine_similarity(a, b, dim=-1),
}
"""Between predicted and true latents ``[..., D]``, a number for each token."""


@dataclass(frozen=True)
class MaskedParts:
    """The modules of a masked predictor, frozen, in eval mode, on one device."""

    encoder: TubeletEncoder
    """Encodes the context."""
    target: TubeletEncoder
    """Encodes the window (may be the same module)."""
    predictor: MaskedPredictor
    """From context tokens to future tokens."""
    norm: TargetConfig
    """How targets are normalised."""
    mask_index: int = 0
    """Which mask token stands for the future. In V-JEPA 2's releases only 0 was trained."""


def dense_split(grid: Grid, steps: int) -> tuple[Tensor, Tensor]:
    """Token ids of the first ``steps`` time steps and of all later ones, int64 ``[1, K]`` each.

    Derived from the grid at hand, whatever its size and shape.

    Raises:
        ConfigError: no step on one of the two sides.
    """
    if not 1 <= steps < grid.t:
        raise ConfigError(f"a context of {steps} time steps, of {grid.t} in the window")
    cut = steps * grid.h * grid.w
    context, future = torch.arange(cut)[None], torch.arange(cut, grid.size)[None]
    covered = torch.cat([context, future], dim=1)
    assert torch.equal(covered[0], torch.arange(grid.t * grid.h * grid.w)), "tokens left out"
    return context, future


class MaskedScorer(Pixels):
    """V-JEPA's surprise, with copy and linear extrapolation of latents beside it.

    Every window's targets are encoded once for all contexts; a context that several windows of a
    batch begin with is encoded, and predicted from, once; and what is left of a batch goes through
    the predictor in one pass.

    Args:
        parts: the model. name: of the model. distance: between tokens.
        baselines: score copy and linear extrapolation too.
    """

    def __init__(
        self,
        parts: MaskedParts,
        name: str = "model",
        *,
        distance: Distance = "l1",
        baselines: bool = True,
    ):
        if distance not in DISTANCES:
            raise ConfigError(f"distance = {distance!r}: choose {', '.join(DISTANCES)}")
        self.parts, self.step = parts, parts.encoder.config.tubelet
        self.names = (name, "copy", "linear") if baselines else (name,)
        self._distance = DISTANCES[distance]

    def __call__(
        self, windows: np.ndarray, contexts: Sequence[int], actions: np.ndarray | None = None
    ) -> Tensor:
        parts = self.parts
        device = parts.encoder.pixel_scale.device
        video = torch.from_numpy(windows).to(device)
        grid = parts.encoder.grid(video)
        splits = [dense_split(grid, self._steps(c)) for c in contexts]
        ids = [(c.to(device).expand(len(video), -1), f.to(device)) for c, f in splits]
        futures = [f.expand(len(video), -1) for _, f in ids]
        levels = parts.norm.levels > 1
        wanted = normalise(parts.target(video, all_levels=levels), parts.norm).float()
        keeps = [context for context, _ in ids]
        shared = [_distinct(windows, c) for c in contexts]
        latents = _encoded(parts.encoder, video, keeps, shared, levels)
        jobs = [
            MaskedJob(x, keep[: len(x)], future[: len(x)], parts.mask_index)
            for x, keep, future in zip(latents, keeps, futures, strict=True)
        ]
        guesses = [[out for out, _ in parts.predictor.packed(jobs, grid)]]
        if len(self.names) > 1:
            if parts.target is not parts.encoder:
                latents = _encoded(parts.target, video, keeps, shared, levels)
            known = [normalise(x, parts.norm).unflatten(1, (-1, grid.h * grid.w)) for x in latents]
            guesses += [
                [copied(x, grid.t) for x in known],
                [extrapolated(x, grid.t) for x in known],
            ]
        guesses = [
            [x[which] for x, (_, which) in zip(guess, shared, strict=True)] for guess in guesses
        ]
        return torch.stack([self._losses(g, wanted, futures, grid) for g in guesses])

    def _losses(
        self, guesses: Sequence[Tensor], wanted: Tensor, futures: Sequence[Tensor], grid: Grid
    ) -> Tensor:
        """``[B, contexts, t, h, w]``."""
        out = wanted.new_full((len(wanted), len(guesses), grid.size), float("nan"))
        for i, (guess, future) in enumerate(zip(guesses, futures, strict=True)):
            first = grid.size - future.shape[1]
            out[:, i, first:] = self._distance(guess.float(), wanted[:, first:])
        return out.unflatten(2, tuple(grid))

    def _steps(self, frames: int) -> int:
        if frames % self.step:
            near = max(self.step, self.step * round(frames / self.step))
            raise ConfigError(
                f"contexts: {frames} frames are not a multiple of the tubelet's {self.step}; the "
                f"nearest that is: {near}"
            )
        return frames // self.step


def _distinct(windows: np.ndarray, context: int) -> tuple[list[int], list[int]]:
    """Rows of the windows with different contexts, and for each window which of these is its own.

    What follows from a context is the same in every window that begins with it: in recombined
    videos many windows differ only after their context.
    """
    first: dict[bytes, int] = {}
    rows, which = [], []
    for row, window in enumerate(windows):
        digest = hashlib.blake2b(window[:context].tobytes(), digest_size=16).digest()
        if digest not in first:
            first[digest] = len(rows)
            rows.append(row)
        which.append(first[digest])
    return rows, which


def _encoded(
    encoder: TubeletEncoder,
    video: Tensor,
    keeps: Sequence[Tensor],
    shared: Sequence[tuple[list[int], list[int]]],
    levels: bool,
) -> list[Tensor]:
    """Each context's tokens in the windows in which it is not that of another, ``[b, K, D]``."""
    if all(len(rows) == len(video) for rows, _ in shared):
        return encoder.packed(video, keeps, all_levels=levels)
    return [
        encoder(video[rows], keep[: len(rows)], all_levels=levels)
        for keep, (rows, _) in zip(keeps, shared, strict=True)
    ]


def copied(known: Tensor, steps: int) -> Tensor:
    """The last of ``known [B, t, n, D]`` for each later step: ``[B, (steps - t) n, D]``."""
    return known[:, -1:].expand(-1, steps - known.shape[1], -1, -1).flatten(1, 2)


def extrapolated(known: Tensor, steps: int) -> Tensor:
    """``z_t + h (z_t - z_(t - 1))`` for h = 1, …: as :func:`copied`; NaN with one known step."""
    left = steps - known.shape[1]
    if known.shape[1] < 2:
        return copied(known, steps) * float("nan")
    ahead = torch.arange(1, left + 1, device=known.device).view(1, -1, 1, 1)
    return (known[:, -1:] + ahead * (known[:, -1:] - known[:, -2:-1])).flatten(1, 2)


def untrained(
    encoder: EncoderConfig, predictor: PredictorConfig, norm: TargetConfig, seed: int, device: str
) -> MaskedParts:
    """A model of this architecture with fresh weights; the target encoder is the encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(seed, "voe", "untrained"))
        fresh = TubeletEncoder(encoder)
        masked = MaskedPredictor(predictor, latent_dim=encoder.width)
    fresh = fresh.requires_grad_(False).eval().to(device)
    return MaskedParts(fresh, fresh, masked.requires_grad_(False).eval().to(device), norm)
