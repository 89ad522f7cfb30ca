"""Results in a run folder: ``results/*.json`` (and ``results/films/*.mp4``), read back by reports.

Every file says its kind, its value, the command and the machine it came from, and is written
atomically. Saving under the same name again replaces the result.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..core import machine
from ..core.errors import TubeletError
from ..core.io import atomic_write_text
from .goal_reaching import GoalReachingResult
from .landscape import Landscape
from .probes import ProbeResult

UPSCALE = 4
FILM_FPS = 15


@dataclass(frozen=True, kw_only=True)
class Table:
    """Any other table worth showing.

    Attributes:
        title: heading. columns: titles. rows: one list of cells per row (strings or numbers).
        note: how to read it: n, seeds, split.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str | float | int]]
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Table:
        """The table that :meth:`to_json` wrote."""
        return cls(**value)


Value = GoalReachingResult | ProbeResult | Landscape | Table
_KINDS: dict[str, Any] = {
    "goal_reaching": GoalReachingResult,
    "probe": ProbeResult,
    "landscape": Landscape,
    "table": Table,
}


@dataclass(frozen=True, kw_only=True)
class Film:
    """An mp4 of one episode (start | goal | rollout) and whether it ended in success."""

    path: Path
    problem: int
    hit: bool


@dataclass(frozen=True, kw_only=True)
class Stored:
    """A result read back: the value, the command and machine that made it, its films."""

    value: Value
    command: str
    machine: dict[str, Any]
    films: tuple[Film, ...] = field(default=())


def save_result(run: str | os.PathLike[str], value: Value, *, name: str | None = None) -> Path:
    """Write one result (its films first) below the run folder and return the JSON's path.

    Args:
        name: file name without suffix; by default made from the kind, method, goals and seed.
    """
    folder = Path(run) / "results"
    kind = next(kind for kind, cls in _KINDS.items() if isinstance(value, cls))
    name = _default_name(kind, value) if name is None else name
    films = _save_films(folder, name, value) if isinstance(value, GoalReachingResult) else []
    path = folder / f"{name}.json"
    stored = {
        "kind": kind,
        "command": " ".join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "machine": machine.facts(),
        "films": films,
        "value": value.to_json(),
    }
    atomic_write_text(path, json.dumps(stored, allow_nan=False) + "\n")
    return path


def load_results(run: str | os.PathLike[str]) -> list[Stored]:
    """All results below the run folder, by file name.

    Raises TubeletError naming a damaged file, or one of a kind that is not known here.
    """
    folder = Path(run) / "results"
    return [_load(path) for path in sorted(folder.glob("*.json"))]


def film(result: GoalReachingResult, problem: int) -> np.ndarray:
    """Start | goal | rollout side by side, enlarged: uint8 ``[M + 1, 4 H, 12 W + 16, 3]``.

    A bar under the rollout is green at the steps where the goal counts as reached, else grey.
    """
    frames, goal = result.films[problem], result.goals[problem]
    gap = np.full((goal.shape[0] * UPSCALE, 8, 3), 255, np.uint8)
    start, target = (_enlarge(image) for image in (frames[0], goal))
    return np.stack(
        [
            np.hstack([start, gap, target, gap, _marked(_enlarge(frame), reached)])
            for frame, reached in zip(frames, result.success[problem], strict=True)
        ]
    )


def _enlarge(image: np.ndarray) -> np.ndarray:
    return image.repeat(UPSCALE, 0).repeat(UPSCALE, 1)


def _marked(image: np.ndarray, reached: bool) -> np.ndarray:
    image[-6:] = (40, 160, 90) if reached else (150, 150, 150)
    return image


def _save_films(folder: Path, name: str, result: GoalReachingResult) -> list[dict[str, Any]]:
    from ..datasets.video_writer import write_video

    films = []
    for problem in sorted(result.films):
        clip = film(result, problem)
        held = np.concatenate([clip, clip[-1:].repeat(FILM_FPS // 2, 0)])
        file = f"films/{name}-{problem:04d}.mp4"
        write_video(folder / file, held, fps=FILM_FPS, crf=23)
        films.append({"file": file, "problem": problem, "hit": bool(result.at_end[problem])})
    return films


def _default_name(kind: str, value: Value) -> str:
    if isinstance(value, GoalReachingResult):
        label = [value.env_id, value.kind, value.name, "" if value.seed is None else value.seed]
    elif isinstance(value, ProbeResult):
        label = [value.name, "" if value.step is None else value.step]
    else:
        label = [value.title if isinstance(value, Table) else value.name]
    text = "-".join(map(str, label))
    slug = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:80]
    return f"{kind}-{slug}-{hashlib.sha256(text.encode()).hexdigest()[:6]}"


def _load(path: Path) -> Stored:
    try:
        stored = json.loads(path.read_text(encoding="utf-8"))
        return Stored(
            value=_KINDS[stored["kind"]].from_json(stored["value"]),
            command=stored["command"],
            machine=stored["machine"],
            films=tuple(
                Film(path=path.parent / f["file"], problem=f["problem"], hit=f["hit"])
                for f in stored["films"]
            ),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TubeletError(f"{path}: not a readable result ({error!r}); delete or redo") from error
