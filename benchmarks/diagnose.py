"""What limits a world model that fails: its distances, its imagination, or its grasp of actions.

Measured on held-out episodes of its own training data, without a planner (imagination also on those
that it trained on: a model that is good there alone wants more data):

* **distances**: rank correlation, within an episode, of the latent cost from every frame to the
  episode's last with the true distance of the states. A planner can only descend what correlates.
* **imagination**: how far imagined latents are from encoded ones after 1 … H steps, over how far
  the latents themselves have moved (below 1 beats copying the first).
* **actions**: that error with the actions of another window, over that with the true ones.

With the oracle's row beside it (same planner, true dynamics, true distances) these say where the
gap comes from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.stats import rankdata

from ..core.latent import Latent
from ..core.rng import numpy_generator
from ..datasets.trajectories import TrajectorySet
from ..datasets.windows import FramePairs, WindowBatch, window_batches
from ..planning import Cost
from ..vjepa.dynamics import latents
from ..vjepa.train_recipe import split_episodes
from ..vjepa.world_model import WorldModel
from .stats import Estimate, bootstrap_mean, bootstrap_ratio

EPISODES = 32
WINDOWS = 256


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """Of one model in one environment.

    Attributes:
        rank: mean over episodes of Spearman's correlation of latent cost and true distance.
        divergence: imagined over copied squared error after 1 … H model steps.
        trained: the same after H, on episodes of the training.
        actions: error with shuffled actions over error with true ones.
    """

    rank: Estimate
    divergence: tuple[Estimate, ...]
    trained: Estimate
    actions: Estimate

    def cells(self) -> dict[str, str]:
        """Column titles and values with 95 % intervals, for a table."""
        first, *_, last = (self.divergence[0], *self.divergence)
        return {
            "cost and true distance: rank correlation": _show(self.rank),
            "imagined over copied, first step": _show(first),
            "imagined over copied, last step": _show(last),
            "the same on training episodes": _show(self.trained),
            "shuffled over true actions": _show(self.actions),
        }


def diagnose(
    model: WorldModel,
    data: TrajectorySet,
    env: Any,
    cost: Cost,
    *,
    held_out: float,
    horizon: int,
    seed: int = 0,
) -> Diagnosis:
    """Measure ``model`` on the episodes of ``data`` that its training held out.

    Args:
        env: a GoalEnv of the data's kind, for true distances. cost: the planner's.
        held_out: share of the episodes, at the end, as in training. horizon: H, model steps.
        seed: of the windows and the intervals' resampling.

    Raises:
        DatasetError: no episode is long enough for a window.
    """
    seen, held = split_episodes(data.num_episodes, held_out)
    frames = data.cache(model.config.image_size)
    pairs = FramePairs(
        frames.frames,
        frames.offsets,
        count=model.config.encoder.tubelet,
        gap=model.config.frame_gap,
    )

    def errors_on(episodes: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        batches = window_batches(
            pairs,
            data.arrays()["action"],
            frames.offsets,
            episodes=episodes,
            horizon=horizon,
            block=model.config.action_block,
            batch_size=WINDOWS,
            seed=seed,
            name="diagnose",
            proprio=data.arrays()["proprio"] if model.config.proprio_dim else None,
        )
        return _errors(model, next(iter(batches)))

    with torch.inference_mode():
        ranks = [_rank(model, data, env, cost, frames.frames, e) for e in list(held)[:EPISODES]]
        true, shuffled, copied = errors_on(held)
        known_true, _, known_copied = errors_on(seen)
    generator = numpy_generator(seed, "diagnose")
    known = np.array([r for r in ranks if np.isfinite(r)])
    unknown = Estimate(float("nan"), float("nan"), float("nan"))
    return Diagnosis(
        rank=bootstrap_mean(known, generator=generator) if len(known) else unknown,
        divergence=tuple(_ratio(true[:, h], copied[:, h], generator) for h in range(true.shape[1])),
        actions=_ratio(shuffled.sum(1), true.sum(1), generator),
        trained=_ratio(known_true[:, -1], known_copied[:, -1], generator),
    )


def _rank(
    model: WorldModel,
    data: TrajectorySet,
    env: Any,
    cost: Cost,
    frames: np.ndarray,
    episode: int,
) -> float:
    """Spearman's correlation over one episode; NaN if nothing moves in it."""
    first, end = data.offsets[episode : episode + 2]
    states = data.arrays()["state"][first:end]
    distances = [env.distance(state, states[-1]) for state in states[:-1]]
    truth = np.array([next(iter(d.values())) for d in distances])
    latent = model.encode_goal({"pixels": np.ascontiguousarray(frames[first:end])})
    way: Latent = latent.map(lambda t: t[None, :-1, None])  # [1, S, H = 1, N, D]
    found = cost(way, latent.map(lambda t: t[-1:]))[0].float().cpu().numpy()
    if np.ptp(truth) == 0 or np.ptp(found) == 0:
        return float("nan")
    return float(np.corrcoef(rankdata(found), rankdata(truth))[0, 1])


def _errors(model: WorldModel, batch: WindowBatch) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Squared errors ``[B, H]`` of imagination, with others' actions, and of copying."""
    z = latents(model, batch, frozen=False)
    actions = batch.actions.to(z.device)
    guesses = (
        model.predictor.rollout(z[:, :1], actions),
        model.predictor.rollout(z[:, :1], actions.roll(1, dims=0)),
        z[:, :1],
    )
    d = model.latent_dim  # proprioception is beside the point
    wrong = [
        (guess - z[:, 1:])[..., :d].square().mean(dim=(2, 3)).double().cpu().numpy()
        for guess in guesses
    ]
    return wrong[0], wrong[1], wrong[2]


def _ratio(above: np.ndarray, below: np.ndarray, generator: np.random.Generator) -> Estimate:
    tiny = 1e-12
    return bootstrap_ratio(above + tiny, below + tiny, generator=generator)


def _show(e: Estimate) -> str:
    return f"{e.value:.2f} [{e.low:.2f}, {e.high:.2f}]"
