"""The table of one system of :mod:`.modality_study`: probes with intervals over seeds, verdicts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..core.errors import ConfigError
from .objective_tables import show, t_interval
from .results import Table

TITLES = {
    "pointjepa": "Point-JEPA on generated solids",
    "sjepa": "S-JEPA on generated stick figures",
    "bodies": "S-JEPA on bodies that MuJoCo moves",
}
ARM_NAMES = {
    "jepa": "as published, smaller",
    "views": "LeJEPA on the same tokens",
    "copied": "moving average off (momentum 0)",
    "shared": "no moving average, no stop-gradient",
}


def modality_table(scores: Sequence[dict[str, Any]], system: str) -> Table:
    """A row for each arm, and the floors. Raises ConfigError without scores of ``system``."""
    mine = [score for score in scores if score["settings"]["system"] == system]
    if not mine:
        raise ConfigError(f"no scores of {system!r}: a table needs at least one")
    arms: dict[str, list[dict[str, Any]]] = {}
    for score in mine:
        arms.setdefault(score["settings"]["arm"], []).append(score)
    rows = []
    for name, arm in arms.items():
        trained, before, made = (_of(arm, key) for key in ("accuracy", "untrained", "handmade"))
        gain, over = t_interval(trained - before), t_interval(trained - made)
        rank, std = (np.mean([s["facts"][key] for s in arm]) for key in ("rank", "std"))
        rows.append(
            [
                ARM_NAMES.get(name, name),
                str(arm[0]["settings"]["steps"]),
                str(len(arm)),
                show(t_interval(trained)),
                f"{show(gain, sign=True)} ({_word(gain)})",
                f"{show(over, sign=True)} ({_word(over)})",
                f"{rank:.1f}",
                f"{std:.3f}",
                _words(arm, "run_verdict"),
                _words(arm, "verdict"),
            ]
        )
    first = next(iter(arms.values()))
    for key, label in (("untrained", "untrained encoder"), ("handmade", "hand-made features")):
        floor = show(t_interval(_of(first, key)))
        rows.append([label, "0", str(len(first)), floor, *["–"] * 6])
    settings, chance = first[0]["settings"], first[0]["chance"]
    return Table(
        title=f"{TITLES[system]}: frozen linear probe of the class",
        columns=[
            "encoder",
            "steps",
            "seeds",
            "accuracy",
            "− untrained",
            "− hand-made",
            "rank",
            "std",
            "verdict without labels",
            "with the probe",
        ],
        rows=rows,
        note=f"Preset {settings['preset']}, {settings['train']} generated samples to train on, "
        f"{settings['probes']} others to probe (50 % to fit, 20 % to choose the penalty, 30 % to "
        f"report); the most frequent class is {chance:.3f} of them. Logistic regression on the "
        "mean and the largest of the tokens. Mean over seeds with Student's 95 % interval; "
        "differences are paired by seed. Rank and std: RankMe and median channel deviation of mean "
        "tokens, layer-normed. Verdicts: that of the training run, which sees no labels, and "
        "`collapse_verdict`, which also asks that a probe know nothing (a probe scales features up "
        "that hardly vary).",
    )


def _word(difference: Any) -> str:
    if math.isinf(difference.low):
        return "not judged: one seed"
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "tie"


def _words(arm: list[dict[str, Any]], key: str) -> str:
    """How often each verdict's first word came up."""
    words = Counter(score[key].partition(":")[0] for score in arm)
    return ", ".join(f"{word} {count} of {len(arm)}" for word, count in words.items())


def _of(arm: list[dict[str, Any]], key: str) -> np.ndarray:
    return np.array([score[key] for score in arm])
