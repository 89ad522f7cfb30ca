"""Where a world model comes from, and whether an environment is the one that it knows."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..core.config import load_config
from ..core.errors import ConfigError, DatasetError
from ..datasets.trajectories import TrajectorySet
from ..envs import make
from ..vjepa.train_recipe import TrainConfig
from ..vjepa.world_model import WorldModel


def training_data(run: str | os.PathLike[str]) -> TrajectorySet | None:
    """The trajectories that a training run names, or None where they or its config are gone."""
    config = Path(run) / "config.toml"
    if not config.exists():
        return None
    try:
        return TrajectorySet.open(load_config(TrainConfig, config).data)
    except DatasetError:
        return None


def trained_env(run: str | os.PathLike[str]) -> str:
    """The environment whose trajectories a model was trained on.

    Raises:
        ConfigError: they are gone, or do not say.
    """
    data = training_data(run)
    if data is None or "env" not in data.metadata:
        raise ConfigError(
            f"{run}: its trajectories are gone or do not say of which environment they are; name "
            "it where the command has --env (tubelet/Reacher-v0, say)"
        )
    return data.metadata["env"]


def differing(run: str | os.PathLike[str], model: WorldModel, env_id: str) -> dict[str, Any]:
    """What is not as in training: field to (the model's, the environment's).

    Fields: ``action width``, ``proprio width`` (of models that know one); and where the training
    data is at hand and was made here, ``env`` and ``camera``.
    """
    env = make(env_id, render_obs=False)
    known: dict[str, tuple[Any, Any]] = {"action width": (model.config.action_dim, env.model.nu)}
    if model.config.proprio_dim:
        known["proprio width"] = (model.config.proprio_dim, env.proprio_dim)
    data = training_data(run)
    made = {} if data is None else data.metadata
    if "env" in made:
        known["env"] = (made["env"], env_id)
    if "camera" in made:
        known["camera"] = (made["camera"], env.camera)
    return {field: pair for field, pair in known.items() if pair[0] != pair[1]}


def check_origin(run: str | os.PathLike[str], model: WorldModel, env_id: str) -> None:
    """Refuse a model that was trained in another environment.

    Raises:
        ConfigError: naming every field that differs, with both values.
    """
    differs = differing(run, model, env_id)
    if not differs:
        return
    said = "; ".join(f"{field}: {own!r}, here {here!r}" for field, (own, here) in differs.items())
    hint = f"; plan with --env {differs['env'][0]}" if "env" in differs else ""
    raise ConfigError(f"{run} was trained in another environment than {env_id} ({said}){hint}")
