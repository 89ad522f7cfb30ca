"""Models of any kind as scorers: what a path holds, and the same architecture untrained."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch

from ...core.config import did_you_mean
from ...core.errors import CheckpointError, ConfigError
from ...core.rng import stream_seed
from ...vjepa import dynamics, pretrain
from ...vjepa.ac_world_model import ACWorldModel, load_ac
from ...vjepa.action_predictor import ActionPredictor
from ...vjepa.checkpoint import find_checkpoint, load_checkpoint, load_config
from ...vjepa.dynamics_config import DynamicsConfig
from ...vjepa.encoder import TubeletEncoder
from ...vjepa.formats.checkpoint import MANIFEST
from ...vjepa.formats.convert import load
from ...vjepa.masked import MaskedModel
from ...vjepa.objectives.targets import TargetConfig
from ...vjepa.pretrain import PretrainConfig
from ...vjepa.train_recipe import load_world_model
from ...vjepa.world_model import WorldModel
from .dynamics import DynamicsScorer, StepConfig
from .masked import MaskedParts, MaskedScorer, untrained
from .settings import Distance
from .surprise import Scorer

KINDS = ("auto", "masked", "world", "transformers")


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A model, and how to make it anew without training."""

    scorer: Scorer
    """The model."""
    fresh: Callable[[int], Scorer]
    """Seed -> the same architecture with weights of that seed."""


def load_candidate(
    path: str,
    *,
    kind: Literal["auto", "masked", "world", "transformers"] = "auto",
    which: str = "",
    mask_index: int = 0,
    distance: Distance = "l1",
    actions: Literal["logged", "zero"] = "zero",
    horizon: int = 0,
    device: str = "cpu",
) -> Candidate:
    """Load whatever ``path`` holds; a checkpoint that does not load in full is an error.

    Args:
        path: a run of ``tubelet pretrain`` or ``tubelet train``, a converted checkpoint, Meta's
            file, or a Hugging Face folder.
        kind: masked: V-JEPA's masked predictor; world: an action-conditioned world model (of a
            converted checkpoint with both, its action predictor); transformers: a Hugging Face
            folder run by that library; auto: a run's own kind, else masked.
        which: of Meta's files, one encoder for context and targets; by default each its own.
        mask_index: of the predictor. actions, horizon: of world models.

    Raises:
        CheckpointError: none there, damaged, incomplete, or without a predictor.
        ConfigError: an unknown kind.
    """
    if kind not in KINDS:
        raise ConfigError(f"kind = {kind!r}{did_you_mean(kind, KINDS)}: choose {', '.join(KINDS)}")
    if kind == "transformers":
        from .huggingface import load_transformers

        scorer, fresh = load_transformers(path, mask_index, distance, device)
        return Candidate(scorer=scorer, fresh=fresh)
    if kind == "auto":
        kind = "world" if is_world(path) else "masked"
    if kind == "masked":
        parts = masked_parts(path, which=which, mask_index=mask_index, device=device)
        return _masked(parts, distance, device)
    steps = StepConfig(actions=actions, horizon=horizon)
    if (Path(path) / MANIFEST).exists():
        return _action_conditioned(path, steps, distance, device)
    return _world(path, steps, distance, device)


def masked_parts(
    path: str, *, which: str = "", mask_index: int = 0, device: str = "cpu"
) -> MaskedParts:
    """Context encoder, target encoder and predictor of a checkpoint.

    Raises:
        CheckpointError: as :func:`load_candidate`.
    """
    if _stored(path) is not None:
        return _of_run(path, mask_index, device)
    if Path(path).is_file() and not which:
        context, target = (load(path, which=name)[0] for name in ("encoder", "target_encoder"))
    else:
        context = target = load(path, which=which or None)[0]
    if context.predictor is None:
        raise CheckpointError(
            f"{path} has {', '.join(context.parts())} and no masked predictor: without one there "
            "is nothing to be surprised by"
        )
    levels = context.predictor.config.levels
    norm = TargetConfig(norm="layer", levels=levels)
    for part in (context.encoder, target.encoder, context.predictor):
        part.requires_grad_(False).eval().to(device)
    return MaskedParts(context.encoder, target.encoder, context.predictor, norm, mask_index)


def _of_run(path: str, mask_index: int, device: str) -> MaskedParts:
    """A pretraining run: its own target provider and normalisation."""
    folder = find_checkpoint(path)
    model = pretrain.build(load_config(folder, PretrainConfig))
    if not isinstance(model, MaskedModel):
        raise CheckpointError(f"{path} has no masked predictor: it compares views, or frames")
    load_checkpoint(folder, model=model)
    model.requires_grad_(False).eval().to(device)
    teacher = model.target.teacher
    target = teacher if isinstance(teacher, TubeletEncoder) else model.encoder
    return MaskedParts(model.encoder, target, model.predictor, model.target.config, mask_index)


def _masked(parts: MaskedParts, distance: Distance, device: str) -> Candidate:
    def fresh(seed: int) -> Scorer:
        configs = parts.encoder.config, parts.predictor.config
        if configs[1].target_width not in (0, configs[0].width):
            raise ConfigError(
                "an untrained copy of a model with a teacher of another width is not defined: "
                "set untrained = 0"
            )
        made = untrained(*configs, parts.norm, seed, device)
        made = replace(made, mask_index=parts.mask_index)
        return MaskedScorer(made, f"untrained {seed}", distance=distance, baselines=False)

    return Candidate(scorer=MaskedScorer(parts, distance=distance), fresh=fresh)


def _world(path: str, steps: StepConfig, distance: Distance, device: str) -> Candidate:
    model = load_world_model(path, device=device)
    steps = of_world_model(model, steps)
    config = load_config(find_checkpoint(path), DynamicsConfig)

    def fresh(seed: int) -> Scorer:
        made = dynamics.build(replace(config, seed=stream_seed(seed, "voe", "untrained")))
        made = made.requires_grad_(False).eval().to(device)
        return DynamicsScorer(made, steps, f"untrained {seed}", distance=distance, baselines=False)

    return Candidate(scorer=DynamicsScorer(model, steps, distance=distance), fresh=fresh)


def of_world_model(model: WorldModel, steps: StepConfig) -> StepConfig:
    """``steps`` with the observation and model step that ``model`` was trained with."""
    c = model.config
    return replace(steps, frames=c.encoder.tubelet, gap=c.frame_gap, block=c.action_block)


def _action_conditioned(path: str, steps: StepConfig, distance: Distance, device: str) -> Candidate:
    model = load_ac(path, device=device)
    steps = replace(steps, state_dim=model.predictor.config.state_dim)

    def fresh(seed: int) -> Scorer:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(stream_seed(seed, "voe", "untrained"))
            encoder, old = TubeletEncoder(model.encoder.config), model.predictor
            predictor = ActionPredictor(
                old.config, latent_dim=old.latent_dim, action_dim=old.action_dim, grid=old.grid
            )
        made = ACWorldModel(encoder, predictor).requires_grad_(False).eval().to(device)
        return DynamicsScorer(made, steps, f"untrained {seed}", distance=distance, baselines=False)

    return Candidate(scorer=DynamicsScorer(model, steps, distance=distance), fresh=fresh)


def is_world(path: str) -> bool:
    """Whether ``path`` is a run, or a checkpoint, of `tubelet train`."""
    return _stored(path) == DynamicsConfig.__name__


def _stored(path: str) -> str | None:
    """Class of the config in a run or checkpoint folder of ours; None for anything else."""
    folder = Path(path)
    if not (folder / "checkpoints").is_dir() and not (folder / "state.json").exists():
        return None
    file = find_checkpoint(folder) / "state.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["config"])
    except (OSError, ValueError, KeyError) as error:
        raise CheckpointError(f"cannot read {file}: {error!r}") from error
