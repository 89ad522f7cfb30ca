"""Tables of disturbed episodes: what is seen at once and what shows in motion only, apart."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ...envs.perturb import KINDS
from ..results import Table
from .judge import auroc_interval, holm, judged, over_seeds, paired
from .metrics import auroc, timing
from .settings import Reading
from .store import VideoFacts, VoeRun
from .tables import PairScores, curve, pair_scores, video_surprises
from .words import interval, percent, signed

BASELINES = ("copy", "pixel persistence", "frame difference")


@dataclass(frozen=True)
class Row:
    """Which pairs a row is of."""

    name: str
    kind: str
    condition: str
    principle: str
    """Empty: all."""

    def holds(self, video: VideoFacts) -> bool:
        """Whether a video belongs to it."""
        return (
            video.kind == self.kind
            and video.condition in (self.condition, self.condition or video.condition)
            and video.principle in (self.principle, self.principle or video.principle)
        )


def rows_of(run: VoeRun) -> list[Row]:
    """Every change under its condition, each condition as a whole, and the null control."""
    probes = [v for v in run.videos if v.kind == "probe"]
    found = []
    for condition in dict.fromkeys(v.condition for v in probes):
        kinds = {v.principle for v in probes if v.condition == condition}
        kinds = [*sorted(kinds, key=[*KINDS].index)]
        found += [Row(kind, "probe", condition, kind) for kind in kinds]
        if len(kinds) > 1:
            found.append(Row(f"all: {condition}", "probe", condition, ""))
    return [*found, Row("null control", "null", "", "")]


def pair_table(run: VoeRun, reading: Reading) -> Table:
    """Pair accuracy of each change: the model, its gain over copy, the baselines."""
    scores = {name: pair_scores(run, name, reading) for name in run.scorers}
    model, seeds = run.of_role("model")[0], run.of_role("untrained")
    rows, p_values = [], {}
    for row in rows_of(run):
        picked = _picked(run, next(iter(scores.values())), row)
        if not len(picked):
            continue
        values = {name: s.values[picked] for name, s in scores.items()}
        any_scores = scores[model]
        clusters = [any_scores.groups[i] for i in picked]
        changed = [run.videos[run.index[any_scores.names[i][1]]] for i in picked]
        seen = np.mean([v.t_observable is not None for v in changed])
        gain = paired(values[model], values["copy"], clusters, name=f"{row.name}/gain")
        if row.kind == "probe":
            p_values[row.name] = gain.p
        cells = [row.name, row.condition or "–", len(set(clusters)), percent(float(seen))]
        cells.append(_accuracy(values[model], clusters, f"{row.name}/model"))
        cells += [signed(gain.estimate), row.name]
        cells += [_accuracy(values[b], clusters, f"{row.name}/{b}") for b in BASELINES]
        if seeds:
            all_seeds = np.stack([values[seed] for seed in seeds])
            cells.append(interval(over_seeds(all_seeds, clusters, name=row.name)))
        rows.append(cells)
    adjusted = holm(p_values)
    for cells in rows:
        cells[6] = f"{adjusted[cells[6]]:.2g}" if cells[6] in adjusted else "–"
    against = {
        "prefix": "the same episode without the change",
        "suffix": "the same actions in a world that was so from the first frame on",
    }[reading.match]
    columns = ["change", "what shows", "episodes", "seen", "model", "gain over copy", "p (Holm)"]
    columns += [*BASELINES, *([f"untrained ({len(seeds)})"] if seeds else [])]
    return Table(
        title=f"Pair accuracy against {against} ({reading.aggregate} surprise)",
        columns=columns,
        rows=rows,
        note="Percent, 95 % bootstrap intervals over episodes (Wilson's where all are right or all "
        "wrong); ties one half. Seen: changed episodes in which any pixel differs from the one "
        "without; where none does, the pair ties. Gain: model minus copying the last latent, same "
        "pairs; p: sign test over episodes, Holm over rows. Null control: the change's code at "
        "size 0, which must be at 50.",
    )


def auroc_table(run: VoeRun, reading: Reading) -> Table:
    """Single episodes: can the changed be told from both kinds of possible ones by surprise?"""
    model, seeds = run.of_role("model")[0], run.of_role("untrained")
    totals = {name: video_surprises(run, name, reading) for name in run.scorers}
    rows = []
    for row in rows_of(run):
        if row.kind == "null":
            continue
        picked = [i for i, v in enumerate(run.videos) if row.holds(v)]
        positive = np.array([run.videos[i].possible is False for i in picked])
        clusters = [run.videos[i].group for i in picked]
        cells = [row.name, row.condition, f"{positive.sum()} / {(~positive).sum()}"]
        for name in (model, *BASELINES):
            cells.append(_auroc(totals[name][picked], positive, clusters, f"{row.name}/{name}"))
        if seeds:
            each = [auroc(totals[s][picked][positive], totals[s][picked][~positive]) for s in seeds]
            cells.append(f"{np.mean(each):.3f} ({min(each):.3f} to {max(each):.3f})")
        rows.append([*cells, *_timing(run, model, row, reading)])
    columns = ["change", "what shows", "changed / not", "model", *BASELINES]
    columns += [f"untrained ({len(seeds)})"] if seeds else []
    return Table(
        title=f"AUROC of single episodes ({reading.aggregate} surprise)",
        columns=[*columns, "margin %", "in time", "too early"],
        rows=rows,
        note="95 % bootstrap intervals over episodes; untrained: mean and range of seeds. Possible "
        "episodes are those without the change and those that were always so. Margin: surprise "
        "of the changed episode above the one without, in percent of it. In time: the difference "
        "of the model's curves peaks within a window of the change; too early: before that.",
    )


def _picked(run: VoeRun, scores: PairScores, row: Row) -> np.ndarray:
    index = run.index
    return np.array([i for i, (p, _) in enumerate(scores.names) if row.holds(run.videos[index[p]])])


def _accuracy(values: np.ndarray, clusters: list[str], name: str) -> str:
    return interval(judged(values.tolist(), clusters, name=name).estimate)


def _auroc(scores: np.ndarray, positive: np.ndarray, clusters: list[str], name: str) -> str:
    return interval(auroc_interval(scores, positive, clusters, name=name), percent=False)


def _timing(run: VoeRun, model: str, row: Row, reading: Reading) -> list[str]:
    """Margin, found in time and too early, of pairs with the unchanged episode."""
    index, totals = run.index, video_surprises(run, model, reading)
    gaps, found = [], []
    for pair in run.pairs:
        p, i = index[pair.possible], index[pair.impossible]
        if pair.match != "prefix" or not row.holds(run.videos[p]):
            continue
        gaps.append((totals[i] - totals[p]) / totals[p] if totals[p] else math.nan)
        event = run.videos[i].t_observable
        if event is None:
            continue
        possible, changed = (curve(run, model, r, reading) for r in (p, i))
        hit, early, _ = timing(possible, changed, event, run.config.span)
        if not math.isnan(hit):
            found.append((hit, early))
    hits = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return [f"{100 * np.mean(gaps):+.1f}", percent(float(hits[0])), percent(float(hits[1]))]
