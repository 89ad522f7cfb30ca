"""What checks of experts and of the oracle share: play problem after problem, and keep what
came out in one JSON file that a later start goes on with."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from ..core.io import atomic_write_json
from ..core.machine import command, facts, version
from ..envs.base import GoalEnv
from .stats import wilson_interval

SAVE_EACH = 10
"""Problems between two writes."""

Policy = Callable[[int], np.ndarray]
"""``act(t) -> action [a]`` for an environment's current episode."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Played:
    """One episode: success bool ``[M + 1]`` (first: at the reset), the last step's distances, and
    seconds of processor time."""

    success: np.ndarray
    distance: dict[str, float]
    cpu_seconds: float

    def outcome(self) -> dict[str, Any]:
        """As JSON values; ``first`` is the first successful step or -1."""
        first = int(self.success.argmax()) if self.success.any() else -1
        gaps = {name: round(gap, 4) for name, gap in self.distance.items()}
        seconds = round(self.cpu_seconds, 4)
        return {
            "end": bool(self.success[-1]),
            "first": first,
            "distance": gaps,
            "cpu_seconds": seconds,
        }


def play(
    env: GoalEnv,
    start: np.ndarray,
    goal: np.ndarray,
    budget: int,
    controller: Callable[[GoalEnv], Policy],
) -> Played:
    """Play ``budget`` steps from one state towards another by what ``controller`` makes after the
    reset."""
    began = time.process_time()
    _, info = env.reset(options={"state": start, "goal_state": goal})
    act, success = controller(env), [info["success"]]
    for t in range(budget):
        info = env.step(act(t))[4]
        success.append(info["success"])
    return Played(
        success=np.array(success),
        distance=info["distance"],
        cpu_seconds=time.process_time() - began,
    )


def summary(outcomes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """``n``, ``success_at_end`` and ``success_at_any`` (value, low, high: 95 % Wilson),
    ``solved_at_reset`` (share), ``first_success`` (median step over successes), ``cpu_seconds`` per
    problem, ``failures`` (their numbers and final distances)."""
    n = len(outcomes)
    firsts = [outcome["first"] for outcome in outcomes if outcome["first"] >= 0]
    return {
        "n": n,
        "success_at_end": asdict(wilson_interval(sum(o["end"] for o in outcomes), n)),
        "success_at_any": asdict(wilson_interval(len(firsts), n)),
        "solved_at_reset": sum(first == 0 for first in firsts) / n,
        "first_success": float(np.median(firsts)) if firsts else None,
        "cpu_seconds": sum(o["cpu_seconds"] for o in outcomes) / n,
        "failures": [
            {"episode": k, "distance": o["distance"]}
            for k, o in enumerate(outcomes)
            if not o["end"]
        ],
    }


class Rows:
    """The results file: one row per environment, seed and settings.

    Raises:
        ConfigError: the file is not one of these.
    """

    def __init__(self, path: Path):
        self.path = path
        try:
            self.rows: list[dict[str, Any]] = (
                json.loads(path.read_text(encoding="utf-8"))["rows"] if path.exists() else []
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"{path}: no results of a check ({error}); name another") from error

    def extend(
        self,
        facts_of_row: dict[str, Any],
        n: int,
        episode: Callable[[int], Played],
        say: Callable[[str], None] = print,
    ) -> dict[str, Any]:
        """Play problems until the row of these facts holds at least ``n``; returns the row.

        Args:
            facts_of_row: ``env``, ``seed``, ``budget`` and whatever else decides the outcome.
            episode: plays the problem of a number, the same whenever it is asked.
        """
        key = json.loads(json.dumps(facts_of_row | {"mujoco": version("mujoco")}))
        same = [all(row.get(k) == v for k, v in key.items()) for row in self.rows]
        place = same.index(True) if any(same) else len(same)
        outcomes: list[dict[str, Any]] = [] if place == len(same) else self.rows[place]["outcomes"]
        while True:
            row = key | (summary(outcomes) if outcomes else {}) | {"outcomes": outcomes}
            if outcomes:
                self.rows[place : place + 1] = [row]
                self._save()
            if len(outcomes) >= n:
                say(line(row))
                return row
            until = min(n, len(outcomes) + SAVE_EACH)
            outcomes = [*outcomes, *(episode(k).outcome() for k in range(len(outcomes), until))]

    def _save(self) -> None:
        value = {"rows": self.rows, "command": command(), "machine": facts()}
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_json(self.path, value)


def line(row: dict[str, Any]) -> str:
    """One line for the terminal."""
    end, first = row["success_at_end"], row["first_success"]
    when = "" if first is None else f" first at step {first:.0f}"
    return (
        f"{row['env']:<27} success@end {end['value']:.1%} [{end['low']:.1%}, {end['high']:.1%}] "
        f"@any {row['success_at_any']['value']:.1%},{when} of {row['budget']}, n = {row['n']}, "
        f"{row['cpu_seconds']:.2f} s of processor time each "
        f"(200: {row['cpu_seconds'] * 200 / 60:.1f} minutes)"
    )


def parser(name: str, description: str | None, *, n: int) -> argparse.ArgumentParser:
    """``--env``, ``--n``, ``--seed`` and ``--out`` of ``python -m tubelet.benchmarks.NAME``."""
    made = argparse.ArgumentParser(
        prog=f"python -m tubelet.benchmarks.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--env", nargs="+", default=[], help="ids (default: all)")
    made.add_argument("--n", type=int, default=n, help=f"problems each (default {n})")
    made.add_argument("--seed", type=int, default=0, help="of the problems")
    made.add_argument("--out", type=Path, default=Path(f"benchmarks/results/{name}.json"))
    return made
