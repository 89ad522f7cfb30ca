"""``tubelet pretrain``: an encoder from a folder of videos or images."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from ..vjepa import presets
from ..vjepa.parallel import rank
from ..vjepa.recipes import PretrainRunConfig as Config
from ..vjepa.recipes import pretrain_encoder


def _preset(name: str) -> Config:
    return Config(train=presets.preset(name), clips=presets.clips(name))


PRESETS = {name: partial(_preset, name) for name in presets.PRESETS}


def run(config: Config) -> int:
    """Train, and say what came of the corpus and of the encoder."""
    pretrain_encoder(config)
    if rank() > 0:  # process 0 speaks for all
        return 0
    out = Path(config.out)
    print((out / "corpus.txt").read_text(encoding="utf-8"), end="")
    print(f"encoder: {(out / 'verdict.txt').read_text(encoding='utf-8').strip()}")
    print(f"run: {out}")
    return 0
