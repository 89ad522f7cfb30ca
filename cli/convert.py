"""``tubelet convert``: checkpoints from and to Meta's, Hugging Face's and tubelet's formats."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional

from ..core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config:
    """Convert a checkpoint between Meta's, Hugging Face's and tubelet's formats.

    SRC is recognised: a file of Meta's (.pt, .pth, .pth.tar), a folder of transformers, of tubelet,
    or of a pretraining run. Nothing in it is run, and every key is accounted for.
    """

    src: Positional[Path]
    """What to convert."""
    dst: Positional[Path]
    """Where to: a folder, or with --to meta a file."""
    to: Literal["tubelet", "meta", "hf"] = "tubelet"
    """Format to write."""
    name: str | None = None
    """The published model that SRC must be (vjepa2-l, say); by default it is recognised."""
    which: Literal["target_encoder", "encoder", "ema_encoder"] | None = None
    """The encoder to take out of a training checkpoint; by default the one that evaluations use."""
    probe: Path | None = None
    """Meta's file of an attentive probe, to add to the checkpoint."""
    head: int | None = None
    """Which of several classifiers in that file."""
    probe_as: Literal["transformers", "published"] = "transformers"
    """A classifier out of a Hugging Face folder: the function that transformers runs (eps 1e-6, the
    encoder's heads), or the one that was trained (1e-5, 16 heads)."""
    crop: int = 0
    """Side of the clips that a Hugging Face config names; by default as in SRC."""
    frames: int = 0
    """Their length; by default as in SRC."""
    accept_heads: bool = False
    """Write a probe for Hugging Face whose number of heads transformers will not use."""
    overwrite: bool = False
    """Replace what is at DST."""


def run(config: Config) -> int:
    """Convert, and print what became of every key. Raises ConfigError if DST is taken."""
    from ..vjepa.formats.convert import add_probe, load, save

    taken = any(config.dst.iterdir()) if config.dst.is_dir() else config.dst.exists()
    if taken and not config.overwrite:
        raise ConfigError(f"{config.dst} is there already: name another, or give --overwrite")
    if config.src.resolve() == config.dst.resolve():
        raise ConfigError(f"{config.dst} is also what is to be converted: name another")
    if config.head is not None and config.probe is None:
        raise ConfigError("head is a classifier of the file given as probe, and there is none")
    checkpoint, report = load(
        config.src, name=config.name, which=config.which, probe_as=config.probe_as
    )
    if config.probe is not None:
        checkpoint, more = add_probe(checkpoint, config.probe, config.head)
        report.add(more)
    print(f"read {config.src}: {report}")
    report = save(
        checkpoint,
        config.dst,
        config.to,
        crop=config.crop,
        frames=config.frames,
        accept_heads=config.accept_heads,
    )
    print(f"wrote {config.dst} ({config.to}): {report}")
    for part, module in checkpoint.parts().items():
        count = sum(p.numel() for p in module.parameters())
        print(f"{part}: {count / 1e6:.1f} M parameters")
    return 0
