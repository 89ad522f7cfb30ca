"""Training objectives: small terms over one record of latents, target providers, and presets.

objective = Objective(preset("vjepa2"), provides={"pred", "target"})
terms = objective(Latents(step=step, pred=(short, long), target=(h_short, h_long)))
terms["loss"].backward()
"""

from .latents import Latents
from .objective import Objective, ObjectiveConfig
from .presets import PRESETS, preset
from .targets import Target, TargetConfig

__all__ = [
    "PRESETS",
    "Latents",
    "Objective",
    "ObjectiveConfig",
    "Target",
    "TargetConfig",
    "preset",
]
