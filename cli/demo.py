"""``tubelet demo``: the whole of tubelet on one simulated arm, from nothing to an HTML report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..benchmarks.demo import DemoConfig, run_demo
from ..core.run import RunDir


@dataclass(frozen=True, kw_only=True)
class Config(DemoConfig):
    """Collect videos of a MuJoCo arm, train two world models on them, reach image goals, report.

    The same command again goes on where a stopped demo was.
    """


def long() -> Config:
    """Sized for an hour on two cores: longer training, three seeds."""
    return replace(
        Config(),
        out="runs/demo-long",
        pretrain_steps=1200,
        vjepa_steps=1500,
        end_to_end_steps=1800,
        seeds=3,
    )


PRESETS = {"demo": Config, "long": long}


def run(config: Config) -> int:
    """Run the demo and say where the report is."""
    with RunDir.create(Path(config.out), config, resume=True, may_differ=("cores",)):
        page = run_demo(config)
    print(f"open {page}")
    return 0
