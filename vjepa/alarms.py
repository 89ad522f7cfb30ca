"""Alarms of discriminative feedback: is the critic of use, and is the encoder the worse for it?

Read off what is logged, and nothing else, so that a resumed run raises the same ones. Each is a
warning with its value, in the console and, as ``alarm/NAME``, in the log.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..core.run import RunDir, read_metrics
from .objectives.feedback import FeedbackConfig, Kind
from .parallel import rank

SPAN = 500
"""Steps for which an accuracy has to be so, and between two alarms of one kind that stays on."""
SURE, USELESS = 0.95, 0.52
"""Accuracies of a critic between which it can teach something."""
RANK_LOSS = 0.2
"""Share of the highest effective rank that may be lost."""
RANKS = ("target_rank", "val/latent_rank")


class Alarm(NamedTuple):
    """One warning."""

    name: str
    value: float
    text: str


class FeedbackAlarms:
    """Sees every logged line of a run, in order, and says what is wrong.

    Args:
        kind: of the feedback. The accuracy of "energy" counts matches in the batch, for which one
            half is no chance level: it has no alarm below.
    """

    def __init__(self, kind: Kind):
        self._kind: Kind = kind
        self._since: dict[str, int] = {}
        self._rung: dict[str, int] = {}
        self._highest = 0.0

    def see(self, step: int, values: Mapping[str, Any]) -> list[Alarm]:
        """The alarms of one logged line (a value that was not finite may be None)."""
        known = {k: float(v) for k, v in values.items() if v is not None}
        found: list[Alarm | None] = []
        accuracy = known.get("train/feedback_accuracy")
        if accuracy is not None:
            found.append(self._lasting(step, "critic_sure", accuracy, accuracy > SURE))
            if self._kind != "energy":
                found.append(self._lasting(step, "critic_useless", accuracy, accuracy < USELESS))
        limit = known.get("train/feedback_at_limit")
        if limit is not None:
            factor = known.get("train/feedback_factor", limit)
            found.append(self._now(step, "factor_at_limit", factor, limit >= 1))
        for name in RANKS:
            if name in known:
                self._highest = max(self._highest, known[name])
                low = known[name] < (1 - RANK_LOSS) * self._highest
                found.append(self._now(step, "rank_lost", known[name], low))
        return [alarm for alarm in found if alarm is not None]

    def _lasting(self, step: int, name: str, value: float, on: bool) -> Alarm | None:
        """An alarm for what has been so for ``SPAN`` steps."""
        if not on:
            self._since.pop(name, None)
        since = self._since.setdefault(name, step) if on else step
        return self._now(step, name, value, on and step - since >= SPAN)

    def _now(self, step: int, name: str, value: float, on: bool) -> Alarm | None:
        if not on:
            self._rung.pop(name, None)
            return None
        if name in self._rung and step - self._rung[name] < SPAN:
            return None
        self._rung[name] = step
        return Alarm(name, value, self._text(name, value))

    def _text(self, name: str, value: float) -> str:
        if name == "critic_sure":
            return (
                f"the critic's accuracy is {value:.3f}, above {SURE} for {SPAN} steps: it tells "
                "predictions from targets whatever the predictor does (raise feedback.noise or "
                "feedback.slope, or lower feedback.width)"
            )
        if name == "critic_useless":
            return (
                f"the critic's accuracy is {value:.3f}, below {USELESS} for {SPAN} steps: it "
                "teaches nothing (lower feedback.noise, or raise feedback.width)"
            )
        if name == "factor_at_limit":
            return (
                f"the feedback's factor is at its limit ({value:.3g}): the critic is flat where "
                "predictions are, and feedback is weaker than feedback.ratio asks for"
            )
        return (
            f"the effective rank is {value:.1f}, more than {RANK_LOSS:.0%} below the highest so "
            f"far ({self._highest:.1f}): feedback may be narrowing the latents (lower "
            "feedback.ratio)"
        )


class WatchedRun(RunDir):
    """A run folder whose logged lines are watched: ``run``'s, with alarms after each."""

    def __init__(self, run: RunDir, kind: Kind):
        self._run, self.path = run, run.path
        self._kind: Kind = kind
        self._alarms = FeedbackAlarms(kind)

    def log(self, step: int, **scalars: Any) -> None:
        """As RunDir, then the alarms of this line."""
        self._run.log(step, **scalars)
        if rank():
            return
        for alarm in self._alarms.see(step, scalars):
            print(f"warning: step {step}: {alarm.text}", file=sys.stderr)
            self._run.log(step, **{f"alarm/{alarm.name}": alarm.value})

    def truncate_after(self, step: int) -> None:
        """As RunDir; what is left has been seen."""
        self._run.truncate_after(step)
        self._alarms = FeedbackAlarms(self._kind)
        for line in read_metrics(self.path):
            self._alarms.see(line.pop("step"), line)

    def close(self) -> None:
        """As RunDir."""
        self._run.close()


def watched(run: RunDir, feedback: FeedbackConfig | None) -> RunDir:
    """``run``, with alarms where there is feedback."""
    return run if feedback is None else WatchedRun(run, feedback.kind)
