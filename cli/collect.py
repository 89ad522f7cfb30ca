"""``tubelet collect``: record interaction episodes as video and trajectories."""

from __future__ import annotations

from ..envs.collect import CollectConfig as Config
from ..envs.collect import collect


def run(config: Config) -> int:
    """Collect, and say what there is now."""
    trajectories = collect(config)
    print(
        f"{trajectories.root}: {trajectories.num_episodes} episodes, "
        f"{int(trajectories.offsets[-1])} frames of {config.image_size}x{config.image_size} pixels"
    )
    return 0
