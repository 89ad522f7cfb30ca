"""``tubelet train``: an action-conditioned world model from collected trajectories."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from ..vjepa import presets
from ..vjepa.parallel import rank
from ..vjepa.recipes import TrainConfig as Config
from ..vjepa.recipes import train_on_trajectories


def _preset(name: str) -> Config:
    return Config(train=presets.world_model(name, presets.nano().encoder))


PRESETS = {name: partial(_preset, name) for name in presets.WORLD_MODELS}


def run(config: Config) -> int:
    """Train, and say how good predictions are on episodes that training did not see."""
    train_on_trajectories(config)
    if rank() > 0:  # process 0 speaks for all
        return 0
    report = json.loads((Path(config.out) / "prediction.json").read_text(encoding="utf-8"))
    print(
        f"{report['windows']} windows of {report['episodes']} held-out episodes: prediction error "
        f"over that of copying {report['over_copy']:.3f} (below 1 is better than copying); error "
        f"with shuffled actions over true ones {report['shuffled']:.2f} (above 1: actions count)"
    )
    print(f"run: {config.out}")
    return 0
