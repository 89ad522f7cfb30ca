"""``tubelet pretrain``: an encoder from a folder of videos or images, here or on a cluster; or, by
preset, from point clouds or skeletons."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Literal

from ..benchmarks.online_probe import OnlineProbeConfig, online_probe
from ..vjepa import presets
from ..vjepa.modalities.presets import PRESETS as TOKEN_PRESETS
from ..vjepa.modalities.recipe import TokenRunConfig, pretrain_tokens, run_preset
from ..vjepa.motion.presets import MOTION_PRESETS, motion_clips, motion_preset
from ..vjepa.parallel import rank
from ..vjepa.recipes import PretrainRunConfig, pretrain_encoder
from .slurm import SlurmConfig, submit


@dataclass(frozen=True, kw_only=True)
class Config(PretrainRunConfig):
    """Train an encoder on a folder of videos, or of images, without labels."""

    executor: Literal["here", "slurm", "local"] = "here"
    """Where: in this process (and those that torchrun started), as a job of a SLURM cluster, or as
    submitit's imitation of such a job on this machine. Jobs always resume."""
    slurm: SlurmConfig = field(default_factory=SlurmConfig)
    """What a job asks for."""
    probe: OnlineProbeConfig = field(default_factory=OnlineProbeConfig)
    """Probes of labelled clips at every report, for the log and the report."""


def _preset(name: str) -> Config:
    return Config(train=presets.preset(name), clips=presets.clips(name))


def _motion(name: str) -> Config:
    return Config(train=motion_preset(name), clips=motion_clips(name), augment=False)


PRESETS = {
    **{name: partial(_preset, name) for name in presets.PRESETS},
    **{name: partial(_motion, name) for name in MOTION_PRESETS},
    **{name: partial(run_preset, name) for name in TOKEN_PRESETS},
}


def config_class(path: str) -> type[Config] | type[TokenRunConfig]:
    """Whose fields a config file has: those of point clouds and skeletons name one of these."""
    try:
        train = tomllib.loads(Path(path).read_text(encoding="utf-8")).get("train", {})
    except (OSError, ValueError):
        return Config  # reading it as such says what is wrong
    return TokenRunConfig if {"points", "skeletons"} & set(train) else Config


def run(config: Config | TokenRunConfig) -> int:
    """Train and say what came of the corpus and the encoder, or submit a job that does."""
    if isinstance(config, TokenRunConfig):
        return _tokens(config)
    names = [f.name for f in fields(PretrainRunConfig)]
    training = PretrainRunConfig(**{name: getattr(config, name) for name in names})
    if config.executor == "here":
        pretrain(training, config.probe)
        return 0
    folder = Path(config.out).with_name(f"{Path(config.out).name}-job")
    job = submit(
        partial(pretrain, probe=config.probe),
        replace(training, resume=True),
        config.slurm,
        cluster=config.executor,
        folder=folder,
        name=Path(config.out).name,
    )
    print(f"job {job.job_id}: it prints to {job.paths.stdout}, and its run is {config.out}")
    if config.executor == "local":  # whose jobs end with this process
        job.wait()
        return 0 if job.exception() is None else 1
    return 0


def pretrain(config: PretrainRunConfig, probe: OnlineProbeConfig) -> None:
    """Train in this process, and say what came of it."""
    clips = replace(config.clips, frames=1) if config.images else config.clips
    pretrain_encoder(config, probe=online_probe(probe, clips) if probe.data else None)
    if rank() > 0:  # process 0 speaks for all
        return
    out = Path(config.out)
    print((out / "corpus.txt").read_text(encoding="utf-8"), end="")
    print(f"encoder: {(out / 'verdict.txt').read_text(encoding='utf-8').strip()}")
    print(f"run: {out}")


def _tokens(config: TokenRunConfig) -> int:
    pretrain_tokens(config)
    if rank() == 0:
        out = Path(config.out)
        print((out / "data.txt").read_text(encoding="utf-8"), end="")
        print(f"encoder: {(out / 'verdict.txt').read_text(encoding='utf-8').strip()}")
        print(f"run: {out}")
    return 0
