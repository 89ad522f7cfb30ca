"""``tubelet voe``: violation-of-expectation videos, their checks, scores and reports."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..benchmarks.voe.settings import PerturbConfig, ReportConfig, ScoreConfig
from ..envs.physics.check import CheckConfig
from ..envs.physics.jobs import GenerateConfig
from ..envs.physics.show import RenderConfig

if TYPE_CHECKING:
    from ..benchmarks.results import Table

Command = (
    Annotated[GenerateConfig, tyro.conf.subcommand("generate", prefix_name=False)]
    | Annotated[CheckConfig, tyro.conf.subcommand("check", prefix_name=False)]
    | Annotated[RenderConfig, tyro.conf.subcommand("render", prefix_name=False)]
    | Annotated[ScoreConfig, tyro.conf.subcommand("score", prefix_name=False)]
    | Annotated[PerturbConfig, tyro.conf.subcommand("perturb", prefix_name=False)]
    | Annotated[ReportConfig, tyro.conf.subcommand("report", prefix_name=False)]
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Does a model expect physics? Generate videos, check them, draw them, score models on them;
    or disturb the episodes of an environment and score its world models."""

    command: Annotated[Command, tyro.conf.arg(name="")]
    """What to do."""


def run(config: Config) -> int:
    """Do it; ``check`` returns 1 for a set that fails."""
    return _RUN[type(config.command)](config.command)


def _generate(config: GenerateConfig) -> int:
    from ..envs.physics.generate import generate

    told = generate(config)
    counts = ", ".join(f"{count} {part}" for part, count in told["videos"].items())
    print(f"{config.out}: {counts} videos of {told['frames']} frames, {told['size']} pixels")
    if config.export == "intphys":
        from ..envs.physics.intphys_export import export

        print(f"IntPhys layout: {export(config.out, f'{config.out}-intphys')}")
    return 0


def _check(config: CheckConfig) -> int:
    from ..envs.physics.check import check

    report = check(config)
    print(report.text())
    return 0 if report.passed else 1


def _render(config: RenderConfig) -> int:
    from ..envs.physics.show import render

    print(render(config))
    return 0


def _score(config: ScoreConfig) -> int:
    from ..benchmarks.voe.score import score

    _print(score(config), config.out)
    return 0


def _perturb(config: PerturbConfig) -> int:
    from ..benchmarks.voe.perturb import perturb

    _print(perturb(config), config.out)
    return 0


def _report(config: ReportConfig) -> int:
    from ..benchmarks.voe.report import report

    print(report(config))
    return 0


_LEFT_OUT = ("pixel linear", "linear", "chance by construction", "p (Holm)", "false alarm")
"""Columns that the console leaves to the report."""


def _print(tables: Sequence[Table], out: str) -> None:
    from .console import print_blocks

    for table in tables:
        print_blocks(table, [c for c in table.columns if c not in _LEFT_OUT])
    print(f"run: {out} (all columns: {out}/results, or tubelet voe report --runs {out})")


_RUN: dict[type, Any] = {
    GenerateConfig: _generate,
    CheckConfig: _check,
    RenderConfig: _render,
    ScoreConfig: _score,
    PerturbConfig: _perturb,
    ReportConfig: _report,
}
