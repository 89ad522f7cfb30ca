"""What resumable studies share: which arms and seeds, and scores that are kept with their settings.

A study keeps one file per arm and seed, with the settings that made it; a finished file is read,
never made again, and one of other settings is refused.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..core.io import atomic_write_json, atomic_write_text
from .objective_tables import to_markdown
from .results import Table, save_result

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def check_parts(
    preset: str,
    presets: Collection[str],
    arms: Sequence[str],
    every: Collection[str],
    seeds: int,
    seeds_from: int,
) -> None:
    """Refuse what a study cannot run. Raises ConfigError, naming the field and the nearest arm."""
    if seeds < 1 or seeds_from < 0:
        raise ConfigError(
            f"seeds = {seeds} must be at least 1 and seeds_from = {seeds_from} at least 0"
        )
    if preset not in presets:
        raise ConfigError(f"preset = {preset!r}: choose one of {', '.join(presets)}")
    for name in arms:
        if name not in every:
            hint = did_you_mean(name, every)
            raise ConfigError(f"arms: no {name!r}{hint}; choose of {', '.join(every)}")
    if not arms:
        raise ConfigError(f"arms = (): name some of {', '.join(every)}")


def plain(config: DataclassInstance) -> dict[str, Any]:
    """A config as JSON would give it back: tuples are lists."""
    return json.loads(json.dumps(asdict(config)))


def scored(
    path: Path, settings: Mapping[str, Any], judge: Callable[[], dict[str, Any]]
) -> dict[str, Any]:
    """The file at ``path``, made of ``settings`` and what ``judge`` finds unless it is there.

    Raises:
        ConfigError: it was made with other settings (names them).
    """
    if not path.exists():
        atomic_write_json(path, {"settings": dict(settings)} | judge())
    found = json.loads(path.read_text(encoding="utf-8"))
    check_settings(path, found["settings"], settings)
    return found


def check_settings(path: Path, stored: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
    """Refuse a file that was made with other settings. Raises ConfigError, naming each."""
    changed = [
        f"{key} = {stored.get(key)}, not {value}"
        for key, value in settings.items()
        if stored.get(key) != value
    ]
    if changed:
        raise ConfigError(f"{path} was made with {'; '.join(changed)}: name another --out")


def run_parts(
    out: Path,
    arms: Sequence[str],
    seeds: Iterable[int],
    settings: Mapping[str, Any],
    judge: Callable[[str, int], dict[str, Any]],
) -> list[dict[str, Any]]:
    """Judge every arm with every seed that is not judged yet; all scores in the folder, also those
    of other arms and seeds.

    Raises:
        ConfigError: a file holds scores of other settings.
    """
    for seed in seeds:
        for name in arms:
            path = out / "scores" / f"{slug(name)}-{seed}.json"
            scored(path, {"arm": name, "seed": seed} | dict(settings), partial(judge, name, seed))
    return [json.loads(p.read_text("utf-8")) for p in sorted((out / "scores").glob("*.json"))]


def slug(name: str) -> str:
    """An arm's name as part of a file's."""
    return name.replace(",", "").replace(" ", "-")


def write_tables(out: Path, name: str, tables: Sequence[Table], after: str = "") -> None:
    """Store ``tables`` as results called ``name-0``, … and all of them, then ``after``, as
    ``tables.md``."""
    for number, table in enumerate(tables):
        save_result(out, table, name=f"{name}-{number}")
    atomic_write_text(out / "tables.md", "\n".join(map(to_markdown, tables)) + after)
