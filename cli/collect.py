"""``tubelet collect``: record interaction episodes as video and trajectories."""

from __future__ import annotations

import json

from ..envs.collect import COVERAGE_PATH, collect
from ..envs.collect import CollectConfig as Config
from ..envs.coverage import Coverage


def run(config: Config) -> int:
    """Collect, and say what there is now and what it covers."""
    trajectories = collect(config)
    print(
        f"{trajectories.root}: {trajectories.num_episodes} episodes, "
        f"{int(trajectories.offsets[-1])} frames of {config.image_size}x{config.image_size} pixels"
    )
    measured = json.loads((trajectories.root / COVERAGE_PATH).read_text(encoding="utf-8"))
    for line in Coverage(**measured).lines():
        print(f"  {line}")
    return 0
