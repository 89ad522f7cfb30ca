"""How much of everything :mod:`.hierarchy_study` does, by preset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from ..vjepa import presets
from ..vjepa.encoder import EncoderConfig
from ..vjepa.world_presets import end_to_end_encoder


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much of everything."""

    episodes: int
    """Training episodes per world."""
    image_size: int
    first_steps: int
    """Training steps of level 1."""
    level_steps: int
    """Training steps of level 2."""
    seeds: int
    problems: int
    oracle_problems: int
    budget: int
    """Environment steps per problem; 0 for the environment's own."""
    calls: tuple[int, ...]
    """Model calls per plan; the last is where arms are compared by distance."""
    oracle_calls: int
    """The same in the simulator, where each costs several physics steps."""
    encoder: EncoderConfig = field(default_factory=end_to_end_encoder)


_SMALL = Size(
    episodes=600,
    image_size=64,
    first_steps=2400,
    level_steps=3000,
    seeds=2,
    problems=300,
    oracle_problems=200,
    budget=0,
    calls=(512, 1024, 2048),
    oracle_calls=1600,
)

SIZES = {
    "debug": Size(
        episodes=4,
        image_size=32,
        first_steps=4,
        level_steps=4,
        seeds=1,
        problems=3,
        oracle_problems=3,
        budget=10,
        calls=(256,),
        oracle_calls=400,
        encoder=presets.debug().encoder,
    ),
    "pilot": Size(
        episodes=150,
        image_size=64,
        first_steps=800,
        level_steps=800,
        seeds=1,
        problems=30,
        oracle_problems=12,
        budget=0,
        calls=(512,),
        oracle_calls=1600,
    ),
    "small": _SMALL,
    "base": replace(
        _SMALL,
        episodes=6000,
        image_size=128,
        first_steps=24_000,
        level_steps=30_000,
        encoder=EncoderConfig(width=384, depth=12, heads=6, patch=16),
    ),
}
"""By preset."""
