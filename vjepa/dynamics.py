"""Training the world model's dynamics: teacher forcing, multi-step rollout and a regulariser.

    loss = teacher + rollout_weight * rollout + sigreg_weight * SIGReg(latents per time step) + …

``teacher`` predicts step t + 1 from true latents up to t; ``rollout`` from the first latent and the
model's own predictions. Targets are the latents themselves, with gradient, when they are one vector
per observation (SIGReg keeps them from collapsing, LeWM, arXiv 2603.19312; or variance, covariance,
slowness and inverse dynamics, PLDM, arXiv 2502.14819), and constants when they are tokens of a
frozen encoder. The terms are those of :mod:`tubelet.vjepa.objectives`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.rng import stream_seed, torch_generator
from ..core.run import RunDir
from ..datasets.windows import WindowBatch
from .alarms import watched
from .diagnostics import rankme
from .dynamics_config import DynamicsConfig, objective
from .dynamics_feedback import objective_sizes, with_sets
from .encoder import TubeletEncoder
from .engine import fit
from .futures import FuturePredictor
from .hierarchy import Hierarchy, attach, hierarchy_of
from .objectives.latents import Latents
from .objectives.objective import Objective
from .proposer import JOINT_GROUP, hindsight_loss
from .world_model import WorldModel, flat_state

_NAMES = {"regress": "teacher", "multistep": "rollout"}
_PROVIDES = ("pred", "target", "rollout", "rollout_target", "sequence", "actions")
_OF_FEEDBACK = ("context", "places")
_OF_FUTURES = ("router", "winner", "log_std")


def build(config: DynamicsConfig, encoder: TubeletEncoder | None = None) -> WorldModel:
    """A world model with weights from the seed's stream, around ``encoder`` if one is given.

    Its ``objective`` is the :class:`Objective` of the config, so that the parameters of a term (the
    head of inverse dynamics) are trained and saved with the rest.

    Raises:
        ConfigError: the encoder's architecture is not the config's.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream_seed(config.seed, "weights"))
        model = WorldModel(config.model)
        model.objective = Objective(
            objective(config),
            _PROVIDES
            + (_OF_FUTURES if config.model.futures.on else ())
            + (_OF_FEEDBACK if config.feedback is not None else ()),
            seed=config.seed,
            action_dim=model.action_dim,
            **objective_sizes(model, config),
        )
        attach(model, config.hierarchy)
    if encoder is not None:
        if encoder.config != config.model.encoder:
            raise ConfigError(
                f"the encoder is {encoder.config}, the config asks for {config.model.encoder}"
            )
        model.encoder.load_state_dict(encoder.state_dict())
    model.encoder.requires_grad_(not config.freeze_encoder)
    return model


def latents(model: WorldModel, batch: WindowBatch, *, frozen: bool) -> Tensor:
    """Latents ``[B, H + 1, n, d + P]``, proprioception beside them if the model knows it, of a
    batch of frames, or of cached tokens when ``frozen``."""
    obs = batch.observations.to(model.token_mean.device)
    flat = obs.flatten(0, 1)
    tokens = flat if frozen else model.tokens(flat)
    return model.join(model.project(tokens).unflatten(0, obs.shape[:2]), batch.proprio)


def dynamics_losses(
    model: WorldModel, config: DynamicsConfig, batch: WindowBatch, step: int
) -> dict[str, Tensor]:
    """The terms of one step, ``teacher``, ``rollout``, ``sigreg``, … (those in use), and ``loss``.

    ``model`` comes from :func:`build` with the same config.
    """
    terms = cast(Objective, model.get_submodule("objective"))
    z = latents(model, batch, frozen=config.freeze_encoder)
    seen = z[..., : model.latent_dim]  # proprioception is given, and cannot collapse
    actions = batch.actions.to(z.device)
    known = Latents(
        step=step,
        sequence=seen[:, :, 0] if z.shape[2] == 1 else seen,
        actions=actions,
        target=(z[:, 1:],),
        rollout_target=z[:, 1:],
        **_predictions(model, config, z, actions, terms.needs, step),
    )
    if config.feedback is not None:
        known = with_sets(known, z, actions, cast(tuple[int, int], model.predictor.grid))
    found = {_NAMES.get(str(name), str(name)): value for name, value in terms(known).items()}
    if model.proposer is not None:
        tried = _proposals(model, z, actions, step, config.seed)
        found |= {"proposer": tried, "loss": found["loss"] + tried}
    if (higher := hierarchy_of(model)) is not None:
        slow = higher.losses(z, actions, step)
        found |= slow | {"loss": found["loss"] + slow["loss"]}
    return found


def _predictions(
    model: WorldModel,
    config: DynamicsConfig,
    z: Tensor,
    actions: Tensor,
    needs: frozenset[str],
    step: int,
) -> dict[str, Any]:
    """The fields of Latents that the predictor makes of a window's latents."""
    predictor = model.predictor
    if isinstance(predictor, FuturePredictor):
        generator = torch_generator(config.seed, "futures", step)
        return predictor.learning(z, actions, needs, loss=config.loss, generator=generator)
    return {
        "pred": (predictor(z[:, :-1], actions),) if "pred" in needs else None,
        "rollout": predictor.rollout(z[:, :1], actions) if "rollout" in needs else None,
    }


def _proposals(model: WorldModel, z: Tensor, actions: Tensor, step: int, seed: int) -> Tensor:
    """The loss of the head that proposes actions: of windows ``z [B, H + 1, n, d + P]``, whose
    later latents are the goals."""
    assert model.proposer is not None
    known = model.part(z.detach() if model.proposer.config.detach else z)
    generator = torch_generator(seed, "proposer", step)
    states, goals = flat_state(known), known.tokens.flatten(-2)
    return hindsight_loss(model.proposer, states, goals, actions, generator=generator)


@torch.no_grad()
def prediction_report(
    model: WorldModel, batches: Iterable[WindowBatch], *, frozen: bool, seed: int = 0
) -> dict[str, float]:
    """How good is imagination on held-out windows?

    Returns:
        ``over_copy``: squared rollout error over that of copying the first latent, all H steps
        together (under 1 beats copying); ``over_copy_1`` and ``over_copy_H``: first and last step;
        ``shuffled``: error with the actions of other windows over error with the true ones (above
        1: actions matter; 1 in batches of one window); ``latent_rank``: RankMe of the latents.

        The same of each higher level, as ``level2_over_copy`` and so on, and
        ``level2_over_level1_H``, its error at the last step over that of level 1, which took more
        steps to get there.

        All are finite: where both errors of a ratio are zero (nothing moves, say) it is 1, and
        where only the lower one is, a very large number.
    """
    model.eval()
    known = [(latents(model, batch, frozen=frozen), batch.actions) for batch in batches]
    return latent_report(model, known, seed=seed)


def latent_report(
    model: WorldModel, known: Sequence[tuple[Tensor, Tensor]], *, seed: int = 0
) -> dict[str, float]:
    """:func:`prediction_report` from latents ``[B, H + 1, n, d + P]`` and the actions ``[B, H, A]``
    between them, by batch."""
    values = rollout_report(model.predictor.rollout, known, latent_dim=model.latent_dim, seed=seed)
    higher = hierarchy_of(model)
    return values if higher is None else values | _levels_report(model, higher, known, values)


@torch.no_grad()
def _levels_report(
    model: WorldModel,
    higher: Hierarchy,
    known: Sequence[tuple[Tensor, Tensor]],
    first: dict[str, float],
) -> dict[str, float]:
    values = {}
    for number, level in enumerate(higher, start=2):
        slow = [(z[:, :: level.length], level.macros(a.to(z.device))) for z, a in known]
        found = rollout_report(level.predictor.rollout, slow, latent_dim=model.latent_dim)
        found["over_level1_H"] = found["over_copy_H"] / first["over_copy_H"]
        del found["latent_rank"]
        values |= {f"level{number}_{name}": value for name, value in found.items()}
    return values


@torch.no_grad()
def rollout_report(
    rollout: Callable[[Tensor, Tensor], Tensor],
    known: Iterable[tuple[Tensor, Tensor]],
    *,
    latent_dim: int,
    seed: int = 0,
) -> dict[str, float]:
    """What :func:`prediction_report` says, of any predictor.

    Args:
        rollout: ``(first latents [B, 1, n, d + P], actions [B, H, A]) -> [B, H, n, d + P]``.
        known: latents ``[B, H + 1, n, d + P]`` and the actions between them, by batch.
        latent_dim: d, the channels that are judged.
    """
    errors: dict[str, list[Tensor]] = {"true": [], "shuffled": [], "copy": []}
    seen: list[Tensor] = []
    for z, given in known:
        actions = given.to(z.device)
        generator = torch_generator(seed, "shuffle", len(seen))
        guesses = {
            "true": rollout(z[:, :1], actions),
            "shuffled": rollout(z[:, :1], _of_others(actions, generator)),
            "copy": z[:, :1],
        }
        z = z[..., :latent_dim]
        for name, guess in guesses.items():
            wrong = guess[..., :latent_dim] - z[:, 1:]
            errors[name].append(wrong.square().mean(dim=(0, 2, 3)).double())
        seen.append(z.flatten(0, 1).flatten(1))
    true, shuffled, copy = (torch.stack(per_batch).sum(0) for per_batch in errors.values())
    return {
        "over_copy": _ratio(true.sum(), copy.sum()),
        "over_copy_1": _ratio(true[0], copy[0]),
        "over_copy_H": _ratio(true[-1], copy[-1]),
        "shuffled": _ratio(shuffled.sum(), true.sum()),
        "latent_rank": rankme(torch.cat(seen)[:1024]),
    }


def _of_others(actions: Tensor, generator: torch.Generator) -> Tensor:
    """Actions ``[B, H, A]`` rolled along the batch, so that no window keeps its own."""
    if len(actions) == 1:
        return actions
    return actions.roll(int(torch.randint(1, len(actions), (), generator=generator)), dims=0)


def _ratio(above: Tensor, below: Tensor) -> float:
    tiny = 1e-12
    return float((above + tiny) / (below + tiny))


def train_dynamics(
    config: DynamicsConfig,
    batches: Callable[[int], Iterable[WindowBatch]],
    run: RunDir,
    *,
    encoder: TubeletEncoder | None = None,
    held_out: Callable[[], Iterable[WindowBatch]] | None = None,
    standardise_on: Tensor | None = None,
    standardise_proprio_on: Tensor | None = None,
    chunks: Sequence[Tensor] = (),
    device: str = "cpu",
) -> WorldModel:
    """Train (or go on training) a world model; see :func:`tubelet.vjepa.engine.fit`.

    Args:
        config: the run. batches: ``batches(first_step)`` iterates over windows: cached tokens when
            the encoder is frozen, frames otherwise.
        run: an open run folder; the newest checkpoint in it is resumed.
        encoder: starting weights of the encoder; required when it is frozen.
        held_out: windows for :func:`prediction_report`, at every report.
        standardise_on: encoder tokens ``[M, N, D]`` that set the mean and deviation of each.
        standardise_proprio_on: the same of proprioception ``[M, P]``.
        chunks: training chunks ``[M, h, A]`` for each higher level, where there are some.

    Raises:
        ConfigError: a frozen encoder, or a frozen first level, without one; no chunks for levels.
    """
    if config.hierarchy.strides and config.hierarchy.first == "frozen":
        raise ConfigError(
            'hierarchy.first = "frozen" trains the levels above a trained world model: name its '
            'run folder as level1, or set hierarchy.first = "joint"'
        )
    if config.freeze_encoder and encoder is None:
        raise ConfigError("freeze_encoder = true needs an encoder: name a pretraining run")
    model = build(config, encoder).to(device)
    if model.proposer is not None:
        model.proposer.own_group = dict(JOINT_GROUP)  # and no part of the gradient's norm
    if standardise_on is not None:
        model.standardise(standardise_on.to(device))
    if standardise_proprio_on is not None:
        model.standardise_proprio(standardise_proprio_on.to(device))
    if (higher := hierarchy_of(model)) is not None:
        higher.fill(chunks)

    def report(batch: WindowBatch, step: int) -> dict[str, float]:
        if held_out is None:
            return {}
        values = prediction_report(model, held_out(), frozen=config.freeze_encoder)
        return {f"val/{name}": value for name, value in values.items()}

    fit(
        model,
        watched(run, config.feedback),
        config,
        loop=config.loop,
        optim=config.optim,
        batches=batches,
        losses=lambda batch, step: dynamics_losses(model, config, batch, step),
        report=report,
        device=device,
        description="dynamics",
    )
    return model.eval()


def take(batches: Iterable[WindowBatch], count: int) -> list[WindowBatch]:
    """The first ``count`` batches."""
    return list(itertools.islice(batches, count))


def trainable(model: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
