"""All results of a suite in one tidy table: a row per method, seed and problem."""

from __future__ import annotations

import csv
import io
import json
import os
from pathlib import Path
from typing import Any

from ..core.io import atomic_write_text
from .goal_reaching import GoalReachingResult
from .results import load_results

COLUMNS: tuple[str, ...] = (
    "env",
    "goals",
    "role",
    "method",
    "seed",
    "problem",
    "success_end",
    "success_any",
    "first_success",
    "start_distance",
    "end_distance",
    "budget",
    "seconds_per_action",
    "model_calls_per_action",
    "episodes_sha256",
)


def rows(result: GoalReachingResult) -> list[dict[str, Any]]:
    """A result as rows of :data:`COLUMNS`; distances are JSON objects, name to value."""
    shared = {
        "env": result.env_id,
        "goals": result.kind,
        "role": result.role,
        "method": result.name,
        "seed": "" if result.seed is None else result.seed,
        "budget": result.budget,
        "seconds_per_action": result.seconds,
        "model_calls_per_action": "" if result.model_calls is None else result.model_calls,
        "episodes_sha256": result.episodes_sha256,
    }

    def at(step: int, problem: int) -> str:
        values = {k: round(float(v[problem, step]), 5) for k, v in result.distance.items()}
        return json.dumps(values, sort_keys=True)

    return [
        shared
        | {
            "problem": problem,
            "success_end": int(result.at_end[problem]),
            "success_any": int(result.at_any[problem]),
            "first_success": int(result.first_success[problem]),
            "start_distance": at(0, problem),
            "end_distance": at(-1, problem),
        }
        for problem in range(len(result))
    ]


def write_tidy(run: str | os.PathLike[str]) -> Path:
    """Write ``<run>/results.csv`` from every goal-reaching result below the run; its path."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for stored in load_results(run):
        if isinstance(stored.value, GoalReachingResult):
            writer.writerows(rows(stored.value))
    path = Path(run) / "results.csv"
    atomic_write_text(path, text.getvalue())
    return path
