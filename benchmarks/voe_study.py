"""Does a tiny V-JEPA that has seen possible videos only expect physics?

    python -m tubelet.benchmarks.voe_study --preset small --out runs/voe_study
    python -m tubelet.benchmarks.voe_study --preset debug --out runs/voe_debug

One command from nothing to tables: a set is generated (training videos and quadruplets of all
twelve principles, visible and occluded) and checked, a V-JEPA is pretrained on its training videos,
and scored beside all baselines. The headline is the gain over copying the last latent. Context and
aggregate are chosen on the split val, tables are of test and ood.

What limits it is asked in two ways. Strata of the base arm, by principle: short and long gaps of
evidence, small and large objects, videos that copying decides. And arms that differ from the base
in one thing: how far a window reaches (memory), the pixels (resolution), the number of videos
(data), the width (capacity), the masks. ``--arms "window 24" "half data"`` adds some to what is
there; pairs are the same, so differences are paired, from the base, and for arms called "future
masks, …" also from the arm ``future masks``.

Resumable: every stage is kept below ``--out``, with its processor time in ``stages/*.json``, and
the command goes on where it stopped.

Writes ``set/``, ``train/<arm>/``, ``score/<arm>/``, ``results/*.json`` and ``tables.md``.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from ..core.config import did_you_mean
from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_json, atomic_write_text
from ..envs.physics.jobs import GenerateConfig
from .objective_tables import to_markdown
from .results import Table, load_results, save_result
from .study import check_settings, plain, slug
from .voe_arms import ARMS, Arm, score_config, train_config
from .voe_study_tables import arms_table, costs_table, strata_table


@dataclass(frozen=True, kw_only=True)
class VoeStudyConfig:
    """Generate, check, pretrain, score, and print the tables."""

    preset: Literal["small", "debug"] = "small"
    """small: the study. debug: all of it runs, nothing is learnt."""
    out: str = "runs/voe_study"
    """Folder of everything."""
    arms: tuple[str, ...] = ("base",)
    """What to train and score: base, "window 8", "window 24", "long clips", coarse, "half data",
    narrow, "future masks", and "future masks, X" for X = window 8, window 24, coarse, narrow, half
    data; those that are there already stay in the tables."""
    seed: int = 0
    """Seed of the set, of training and of the untrained models."""
    workers: int = 1
    """Processes that generate."""
    threads: int = 1
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.preset not in SIZES:
            raise ConfigError(f"preset = {self.preset!r}: choose one of {', '.join(SIZES)}")
        for name in self.arms:
            if name not in ARMS:
                hint = did_you_mean(name, ARMS)
                raise ConfigError(f"arms: no {name!r}{hint}; choose of {', '.join(ARMS)}")
        if self.workers < 1 or self.threads < 0 or self.seed < 0:
            raise ConfigError("workers must be at least 1, threads and seed at least 0")


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large the study is."""

    generate: GenerateConfig
    """The set."""
    arm: Arm = field(default_factory=Arm)
    """The base arm; the others change single fields of it."""
    untrained: int = 10
    """Untrained models beside the base arm; the others are compared with the base."""
    redraw: int = 32
    """Groups that the check draws again."""


SIZES = {
    "small": Size(generate=GenerateConfig(preset="small")),
    "debug": Size(
        generate=GenerateConfig(
            principles=("permanence", "gravity"), train=6, quads=1, val=1, ood=0, size=48
        ),
        arm=Arm(width=24, depth=1, frames=8, window=8, size=48, steps=3, batch=2),
        untrained=2,
        redraw=2,
    ),
}
"""By preset."""


def run_voe_study(config: VoeStudyConfig) -> list[Table]:
    """Do all of ``config`` that is not done yet; the tables of everything in the folder.

    Raises:
        ConfigError: ``out`` holds a study of other settings. TubeletError: the set fails its check.
    """
    out, size = Path(config.out), SIZES[config.preset]
    _same(out, {"preset": config.preset, "seed": config.seed} | plain(size))
    if config.threads:
        import torch

        torch.set_num_threads(config.threads)
    _stage(out, "generate", lambda: _generate(config, size))
    _stage(out, "check", lambda: _check(out, size))
    for name in config.arms:
        arm = replace(size.arm, **ARMS[name])
        _stage(out, f"train-{arm.trained_as}", lambda arm=arm: _train(out, arm, config))
        _stage(
            out, f"score-{slug(name)}", lambda n=name, arm=arm: _score(out, n, arm, size, config)
        )
    tables = _tables(out)
    atomic_write_text(out / "tables.md", "\n".join(map(to_markdown, tables)))
    return tables


def _generate(config: VoeStudyConfig, size: Size) -> dict[str, Any]:
    from ..envs.physics.generate import generate

    made = replace(size.generate, out=f"{config.out}/set", seed=config.seed, workers=config.workers)
    told = generate(made)
    return {"videos": told["videos"], "frames": told["frames"], "pixels": told["size"]}


def _check(out: Path, size: Size) -> dict[str, Any]:
    from ..envs.physics.check import CheckConfig, check

    report = check(CheckConfig(data=str(out / "set"), redraw=size.redraw))
    print(report.text())
    if not report.passed:
        raise TubeletError(f"{out / 'set'} fails its check: nothing is trained on it")
    return {"checks": len(report.names)}


def _train(out: Path, arm: Arm, config: VoeStudyConfig) -> dict[str, Any]:
    from ..vjepa.pretrain_recipe import pretrain_encoder

    videos = out / "set"
    if arm.share < 1:  # the first files by name; names are hashes
        files = sorted((out / "set" / "train" / "videos").glob("*.npy"))
        videos = out / "train" / f"{arm.trained_as}.txt"
        lines = [str(file.absolute()) for file in files[: max(1, round(arm.share * len(files)))]]
        atomic_write_text(videos, "\n".join(lines) + "\n")
    folder = out / "train" / arm.trained_as
    run = train_config(arm, str(videos), str(folder), seed=config.seed, threads=config.threads)
    pretrain_encoder(run)
    verdict = (folder / "verdict.txt").read_text(encoding="utf-8").strip()
    return {"steps": arm.steps, "verdict": verdict}


def _score(out: Path, name: str, arm: Arm, size: Size, config: VoeStudyConfig) -> dict[str, Any]:
    from .voe.score import score

    score(
        score_config(
            arm,
            data=str(out / "set"),
            model=str(out / "train" / arm.trained_as),
            out=str(out / "score" / slug(name)),
            untrained=0 if ARMS[name] else size.untrained,
            threads=config.threads,
        )
    )
    return {"arm": name, "settings": asdict(arm)}


def _tables(out: Path) -> list[Table]:
    """The base arm's accuracies and metrics (or the first arm's), strata, arms, and costs."""
    scored = {p.name: p for p in sorted((out / "score").iterdir()) if (p / "results").is_dir()}
    names = {slug(name): name for name in ARMS}
    runs = {name: scored[part] for part, name in names.items() if part in scored}
    first = next(iter(runs))
    tables = [r.value for r in load_results(runs[first]) if isinstance(r.value, Table)]
    tables.append(strata_table(runs[first], out / "set"))
    if len(runs) > 1:
        tables.append(arms_table(runs))
    masked = {name: path for name, path in runs.items() if name.startswith("future masks")}
    if len(masked) > 1 and "future masks" in masked:
        tables.append(arms_table(masked))
    stages = {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted((out / "stages").glob("*.json"))
    }
    tables.append(costs_table(stages))
    for number, table in enumerate(tables):
        save_result(out, table, name=f"voe-study-{number:02d}")
    return tables


def _stage(out: Path, name: str, work: Callable[[], dict[str, Any]]) -> None:
    """Do a stage that was not finished, and note its processor time, children's included (of the
    run that finished it)."""
    file = out / "stages" / f"{name}.json"
    if file.exists():
        return
    before = _cpu()
    facts = work()
    atomic_write_json(file, facts | {"cpu_seconds": _cpu() - before})


def _cpu() -> float:
    uses = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(use.ru_utime + use.ru_stime for use in uses)


def _same(out: Path, settings: dict[str, Any]) -> None:
    """Refuse a folder that holds a study of other settings; note these in a new one."""
    file = out / "study.json"
    if not file.exists():
        atomic_write_json(file, settings)
    check_settings(out, json.loads(file.read_text(encoding="utf-8")), settings)


if __name__ == "__main__":
    import tyro

    for table in run_voe_study(tyro.cli(VoeStudyConfig, description=__doc__)):
        print(to_markdown(table))
