"""``tubelet amortise``: a head that proposes actions, for a trained world model."""

from __future__ import annotations

import json
from pathlib import Path

from ..vjepa.proposer_recipe import AmortiseConfig as Config
from ..vjepa.proposer_recipe import amortise


def run(config: Config) -> int:
    """Train, and say how good proposals are on episodes that training did not see."""
    amortise(config)
    found = json.loads((Path(config.out) / "proposals.json").read_text(encoding="utf-8"))
    errors = ", ".join(f"{k}: {v:.2f}" for k, v in found["error_over_mean"].items())
    print(
        f"{found['episodes']} held-out episodes: squared error of the proposed action over that of "
        f"the mean action, by model steps to the goal (below 1 knows better): {errors}"
    )
    print(f"run: {config.out}")
    return 0
