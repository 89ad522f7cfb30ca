"""Predictors with a latent variable z: several futures of one context and action.

A deterministic predictor that is trained on squared errors gives the mean of what may come, which
may itself be impossible. Here a latent variable says which future (LeCun, "A path towards
autonomous machine intelligence", 2022): prediction = P(x, a, z), and the error of a prediction is
that of its best z.

* discrete: z is one of K codes. Each true step trains the code that comes nearest to it (hard
  assignment: Guzman-Rivera et al. 2012; soft ones give the mean again, arXiv 2607.05238) and a
  *router* learns p(z | x, a) from the winners.
* gaussian: a diagonal Gaussian around the prediction, whose spread depends on x and a (the
  predictive law of arXiv 2601.14354 in its plainest form).

Codes enter the predictor beside the action, so that its cache, conditioning and rollouts are those
of :class:`.action_predictor.ActionPredictor`. Shapes: B batch, T steps, N tokens, D width, A action
width, S candidates, H horizon, F futures, K codes.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.rng import torch_generator
from .action_config import ActionPredictorConfig
from .action_predictor import ActionPredictor
from .causal import Cache, repeated
from .futures_config import FuturesConfig, How

LOG_STD = (-4.0, 1.0)
"""Bounds of the Gaussian's log deviation."""


class FuturePredictor(nn.Module):
    """An action predictor with a z; without one named, it gives the most probable future.

    Args:
        config: of the predictor inside. futures: what z is (``futures.on``).
        latent_dim, action_dim, grid: as of :class:`ActionPredictor`; actions come without z.

    Attributes:
        body: the predictor inside. codes: K of a discrete z, 0 of a Gaussian.
        reader: the router's logits, or the Gaussian's log deviation, from latent and action.

    Raises:
        ConfigError: a config without a z, or a predictor that wants states.
    """

    def __init__(
        self,
        config: ActionPredictorConfig,
        futures: FuturesConfig,
        *,
        latent_dim: int,
        action_dim: int,
        grid: tuple[int, int] = (1, 1),
    ):
        super().__init__()
        if not futures.on:
            raise ConfigError(f"futures.count = {futures.count}: one future needs no z")
        if config.state_dim or config.use_extrinsics:
            raise ConfigError(
                f"predictor.state_dim = {config.state_dim}: states or extrinsics do not go with "
                "futures; leave them out"
            )
        self.config, self.futures, self.codes = config, futures, futures.codes
        self.action_dim, self.latent_dim = action_dim, latent_dim
        self.body = ActionPredictor(
            config, latent_dim=latent_dim, action_dim=action_dim + self.codes, grid=grid
        )
        self.tokens = self.body.tokens
        self.reader = Reader(
            latent_dim,
            action_dim,
            width=futures.width,
            out=self.codes or latent_dim,
            tokens=self.tokens,
            pooled=bool(self.codes),
        )

    # Predictions.

    def forward(self, latents: Tensor, actions: Tensor, codes: Tensor | None = None) -> Tensor:
        """Teacher-forced predictions ``[B, T, N, D]`` from latents ``[B, T, N, D]``.

        Args:
            actions: ``[B, T, A]``. codes: int64 ``[B, T]``; the router's favourites by default.
        """
        return self.body(latents, self._with_codes(latents, actions, codes))

    def rollout(self, context: Tensor, actions: Tensor, codes: Tensor | None = None) -> Tensor:
        """Imagined latents ``[B, H, N, D]`` after a context ``[B, T, N, D]``.

        Args:
            actions: ``[B, T - 1 + H, A]``, as of :meth:`ActionPredictor.rollout`.
            codes: int64 ``[B, T - 1 + H]``; the router's favourites by default.
        """
        T, steps = context.shape[1], actions.shape[1]
        if steps < T:
            raise ConfigError(f"{steps} actions for a context of {T} steps: at least {T} needed")
        out: list[Tensor] = []
        latents, done = context, 0
        cache: Cache | None = None
        for t in range(T, steps + 1):
            now = slice(done, t)
            z = None if codes is None else codes[:, now]
            given = self._with_codes(latents, actions[:, now], z)
            predicted, cache = self.body.extend(latents, given, cache)
            latents, done = predicted[:, -1:], t
            out.append(latents)
        return torch.cat(out, dim=1)

    def rollout_candidates(self, context: Tensor, past: Tensor, actions: Tensor) -> Tensor:
        """The most probable future of candidates ``[B, S, H, A]`` from a context of one step:
        ``[B, S, H, N, D]``."""
        if past.shape[1]:
            raise ConfigError("futures are imagined from a context of one step: give no past")
        return self.imagine(context, actions, how="likely")[0][:, :, 0]

    def imagine(
        self, context: Tensor, actions: Tensor, *, how: How, count: int = 8, seed: int = 0
    ) -> tuple[Tensor, Tensor]:
        """Several futures of every candidate.

        Args:
            context: ``[B, 1, N, D]``. actions: ``[B, S, H, A]``.
            how: "sample": ``count`` futures whose z are drawn anew at each step from the router
                (from the Gaussian); equally probable. Draws are stratified over the futures and the
                same for all problems and candidates, so that candidates can be compared and a
                problem's futures do not depend on its batch. "likely": one, of the favourite z of
                every step. "hold": K, each with one code for the whole horizon; they weigh as
                probable as their codes are along the way.
            count: F, of "sample". seed: of the draws.

        Returns:
            futures ``[B, S, F, H, N, D]`` and their weights ``[B, S, F]``, of sum 1.

        Raises:
            ConfigError: a context of several steps; an unknown ``how``, or one that z has not.
        """
        if context.shape[1] != 1:
            raise ConfigError(
                f"a context of {context.shape[1]} steps: futures are imagined from one, the last"
            )
        B, S, H = actions.shape[:3]
        draws = self._draws(how, count, H, seed, context)
        number = len(draws)
        acts = actions.unsqueeze(2).expand(-1, -1, number, -1, -1).flatten(0, 2)
        latent = context.repeat_interleave(S * number, dim=0)
        cache: Cache | None = None
        out, evidence = [], context.new_zeros(B * S * number)
        for h in range(H):
            now = acts[:, h : h + 1]
            drawn = draws[:, h].repeat(B * S, *[1] * (draws.ndim - 2))
            given, noise, surprise = self._chosen(how, latent, now, drawn)
            latent, cache = self.body.extend(latent, given, cache)
            latent = latent if noise is None else latent + noise
            evidence = evidence + surprise
            out.append(latent)
        weights = evidence.view(B, S, number).softmax(dim=2)
        return torch.cat(out, dim=1).unflatten(0, (B, S, number)), weights

    # Training.

    @torch.no_grad()
    def nearest(
        self, latents: Tensor, actions: Tensor, target: Tensor, loss: Literal["l1", "l2"] = "l2"
    ) -> Tensor:
        """The codes int64 ``[B, T]`` whose predictions come nearest to ``target [B, T, N, D]``.

        One step after the other, each given the winners before it. All are 0 for a Gaussian.
        """
        B, T = latents.shape[:2]
        K = self.codes
        if not K:
            return torch.zeros(B, T, dtype=torch.int64, device=latents.device)
        every = torch.arange(K, device=latents.device).repeat(B)[:, None]
        first = K * torch.arange(B, device=latents.device)
        chosen: list[Tensor] = []
        cache: Cache | None = None
        for t in range(T):
            now, true, acts = (
                x[:, t : t + 1].repeat_interleave(K, dim=0) for x in (latents, target, actions)
            )
            given = self._with_codes(now, acts, every)
            guess, grown = self.body.extend(now, given, repeated(cache, K))
            error = (guess - true).abs() if loss == "l1" else (guess - true).square()
            best = error.flatten(1).mean(dim=1).view(B, K).argmin(dim=1)
            cache = [(k[first + best], v[first + best]) for k, v in grown]
            chosen.append(best)
        return torch.stack(chosen, dim=1)

    def learning(
        self,
        z: Tensor,
        actions: Tensor,
        needs: Collection[str],
        *,
        loss: Literal["l1", "l2"],
        generator: torch.Generator,
    ) -> dict[str, Any]:
        """The fields of :class:`.objectives.Latents` that training reads of a window.

        Predictions and rollouts are made with the winning codes, a share ``relax`` of them replaced
        by random ones. The router and the spread read latents as constants: they learn what is
        uncertain, and do not bend the latents to make it less so.

        Args:
            z: latents ``[B, T + 1, N, D]``. actions: ``[B, T, A]``. needs: which fields.
        """
        past = z[:, :-1]
        winner = self.nearest(past, actions, z[:, 1:], loss)
        codes = winner
        if self.codes and self.futures.relax:
            shape = winner.shape
            some = torch.rand(shape, generator=generator) < self.futures.relax
            other = torch.randint(self.codes, shape, generator=generator)
            codes = torch.where(some.to(z.device), other.to(z.device), winner)
        fields: dict[str, Any] = {}
        if "pred" in needs:
            fields["pred"] = (self(past, actions, codes),)
        if "rollout" in needs:
            fields["rollout"] = self.rollout(z[:, :1], actions, codes)
        if self.codes:
            return fields | {"router": self.reader(past.detach(), actions), "winner": winner}
        return fields | {"log_std": (self.log_std(past.detach(), actions),)}

    def probabilities(self, latents: Tensor, actions: Tensor) -> Tensor:
        """p(z | latent, action) ``[B, T, K]`` of a discrete z."""
        return self.reader(latents, actions).softmax(dim=-1)

    def log_std(self, latents: Tensor, actions: Tensor) -> Tensor:
        """The Gaussian's log deviation ``[B, T, N, D]``, within ``LOG_STD``."""
        low, high = LOG_STD
        return low + (high - low) * self.reader(latents, actions).sigmoid()

    # Choosing z.

    def _with_codes(self, latents: Tensor, actions: Tensor, codes: Tensor | None) -> Tensor:
        """What the body takes for an action, ``[B, T, A + K]``."""
        if not self.codes:
            return actions
        chosen = self.reader(latents, actions).argmax(dim=-1) if codes is None else codes
        return torch.cat([actions, F.one_hot(chosen, self.codes).to(actions.dtype)], dim=-1)

    def _draws(self, how: How, count: int, H: int, seed: int, like: Tensor) -> Tensor:
        """What decides z, by future and step: held codes ``[K, H]``, places in [0, 1) ``[F, H]`` of
        a cumulated probability, or Gaussian noise ``[F, H, N, D]``."""
        if how not in ("sample", "likely", "hold"):
            raise ConfigError(f"how = {how!r}: choose sample, likely or hold")
        if how == "sample" and count < 1:
            raise ConfigError(f"count = {count}: must be at least 1")
        if how == "hold" and not self.codes:
            raise ConfigError('how = "hold": a Gaussian z has no codes to hold; use "sample"')
        generator = torch_generator(seed, "futures")
        if how == "hold":
            draws = torch.arange(self.codes)[:, None].expand(-1, H)
        elif how == "likely":
            draws = torch.zeros(1, H, *(() if self.codes else like.shape[2:]))
        elif self.codes:
            layer = torch.rand(count, H, generator=generator).argsort(dim=0)
            draws = (layer + torch.rand(count, H, generator=generator)) / count
        else:
            draws = torch.randn(count, H, *like.shape[2:], generator=generator)
        return draws.to(like.device)

    def _chosen(
        self, how: How, latent: Tensor, action: Tensor, drawn: Tensor
    ) -> tuple[Tensor, Tensor | None, Tensor | float]:
        """One step of rows ``[R, 1, ...]``: the action with its code, noise to add, and the log
        probability that counts towards a future's weight."""
        if not self.codes:
            noise = None
            if how == "sample":
                noise = drawn.unsqueeze(1) * self.log_std(latent, action).exp()
            return action, noise, 0.0
        logits = self.reader(latent, action)[:, 0]
        evidence: Tensor | float = 0.0
        if how == "likely":
            code = logits.argmax(dim=-1)
        elif how == "hold":
            code = drawn
            evidence = logits.log_softmax(dim=-1).gather(1, code[:, None])[:, 0]
        else:
            below = logits.softmax(dim=-1).cumsum(dim=-1) <= drawn[:, None]
            code = below.sum(dim=-1).clamp_max(self.codes - 1)
        return self._with_codes(latent, action, code[:, None]), None, evidence


class Reader(nn.Module):
    """A small network on one latent and one action; at first its output is 0 everywhere.

    Args:
        latent_dim, action_dim: D, A. width: hidden. out: O. tokens: N, each with a place of its
            own. pooled: average over tokens, ``[B, T, O]``, rather than ``[B, T, N, O]``.
    """

    def __init__(
        self, latent_dim: int, action_dim: int, *, width: int, out: int, tokens: int, pooled: bool
    ):
        super().__init__()
        self.pooled = pooled
        self.latent = nn.Linear(latent_dim, width)
        self.act = nn.Linear(action_dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(tokens, width))
        # Norms, or three plain layers would pass on little at first, and learn late.
        self.hidden = nn.Sequential(
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.LayerNorm(width),
            nn.SiLU(),
        )
        self.out = nn.Linear(width, out)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, latents: Tensor, actions: Tensor) -> Tensor:
        """From latents ``[B, T, N, D]`` and actions ``[B, T, A]``."""
        dtype = self.latent.weight.dtype
        x = self.latent(latents.to(dtype)) + self.act(actions.to(dtype)).unsqueeze(2) + self.place
        x = self.hidden(x)
        return self.out(x.mean(dim=2) if self.pooled else x)


def make_predictor(
    config: ActionPredictorConfig,
    futures: FuturesConfig,
    *,
    latent_dim: int,
    action_dim: int,
    grid: tuple[int, int],
) -> ActionPredictor | FuturePredictor:
    """The predictor of a world model: the deterministic one where there is no z."""
    if not futures.on:
        return ActionPredictor(config, latent_dim=latent_dim, action_dim=action_dim, grid=grid)
    return FuturePredictor(config, futures, latent_dim=latent_dim, action_dim=action_dim, grid=grid)
