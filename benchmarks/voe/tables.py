"""The tables of a scoring run, computed from stored losses alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...core.errors import TubeletError
from ...datasets.voe.record import Match
from ...envs.physics import PRINCIPLES
from ..results import Table
from ..stats import Estimate
from .judge import (
    Judged,
    auroc_interval,
    group_means,
    holm,
    judged,
    over_seeds,
    paired,
    permutation_p,
)
from .metrics import (
    Aggregate,
    auroc,
    by_chance,
    compare,
    frame_curve,
    late_windows,
    surprise,
    timing,
    window_losses,
)
from .settings import Reading
from .store import VoeRun
from .words import deviations, interval, percent, signed


@dataclass(frozen=True, kw_only=True)
class PairScores:
    """Outcomes of pairs: 1, ½ or 0."""

    values: np.ndarray
    groups: list[str]
    cells: list[tuple[str, str, str]]
    """(kind, principle, condition) of each pair."""
    names: list[tuple[str, str]]
    """(possible, impossible) of each pair."""

    def cell(self, cell: tuple[str, str, str]) -> tuple[np.ndarray, list[str]]:
        """Values and groups of one cell."""
        rows = [i for i, c in enumerate(self.cells) if c == cell]
        return self.values[rows], [self.groups[i] for i in rows]


def pair_scores(run: VoeRun, scorer: str, reading: Reading) -> PairScores:
    """Compare every pair.

    Raises:
        TubeletError: the run has no pairs of this kind (no labels, say).
    """
    index, losses = run.index, run.losses(scorer)
    pairs = [p for p in run.pairs if p.match in (reading.match, "all")]
    if not pairs:
        raise TubeletError(f"{run.path} has no {reading.match} pairs: nothing can be compared")
    number, values = reading.number(run), []
    for pair in pairs:
        p, i = index[pair.possible], index[pair.impossible]
        late = late_windows(run.ids[p], run.ids[i]) if reading.aggregate == "late" else None
        both = [
            surprise(window_losses(losses[row], number), reading.aggregate, late) for row in (p, i)
        ]
        if reading.aggregate == "late" and late is not None and not late.any():
            both = [0.0, 0.0]  # no window differs: a tie
        values.append(compare(*both, strict=reading.strict_ties))
    facts = [run.videos[index[p.possible]] for p in pairs]
    return PairScores(
        values=np.array(values),
        groups=[p.group for p in pairs],
        cells=[(v.kind, v.principle, v.condition) for v in facts],
        names=[(p.possible, p.impossible) for p in pairs],
    )


def accuracy_table(run: VoeRun, reading: Reading) -> Table:
    """Pair accuracy per principle and condition: the model, its gain over copy, every baseline."""
    model = _the_model(run)
    scores = {name: pair_scores(run, name, reading) for name in run.scorers}
    seeds = run.of_role("untrained")
    first = next(iter(scores.values()))
    cells = in_order(first.cells)
    others = [name for name in run.scorers if name != model and name not in seeds]
    others.sort(key=lambda name: (name != "copy", name))
    have_copy = model is not None and "copy" in scores
    columns = ["principle", "pairs (groups)", "chance by construction"]
    columns += [model] if model else []
    columns += ["gain over copy", "p (Holm)"] if have_copy else []
    columns += [*others, *([f"untrained ({len(seeds)} seeds)"] if seeds else [])]
    rows, p_values, labels = [], {}, {}
    tables = [(cell, f"{cell[1]}, {cell[2]}" if cell[2] else cell[1]) for cell in cells]
    for cell, label in tables:
        labels[cell] = label if cell[0] == "probe" else f"{label} ({cell[0]})"
    probes = {cell for cell in cells if cell[0] == "probe"}
    for cell in [*cells, None]:
        name = "all probes" if cell is None else labels[cell]
        picked = {key: _picked(s, probes if cell is None else {cell}) for key, s in scores.items()}
        row = _row(picked, name, model, others, seeds, have_copy, p_values)
        if row:
            rows.append((name, picked, row))
    adjusted = holm(p_values)
    chance = chance_groups(run)
    final = []
    for name, picked, row in rows:
        groups = picked[next(iter(picked))][1]
        share = np.mean([chance[g] for g in groups])
        cells_ = [name, f"{len(groups)} ({len(set(groups))})", percent(float(share)), *row]
        if have_copy:
            cells_[5] = f"{adjusted.get(name, math.nan):.2g}"
        final.append(cells_)
    how = "filtered" if reading.context == 0 else f"context {reading.context}"
    return Table(
        title=f"Pair accuracy, {reading.aggregate} surprise, {how}, {reading.match} pairs",
        columns=columns,
        rows=final,
        note="Percent; 95 % bootstrap intervals over groups (Wilson's where all are right or all "
        "wrong). Ties count "
        + ("as wrong" if reading.strict_ties else "one half")
        + ". Gain: model minus copying the last latent, same pairs. p: sign test of the gain over "
        "groups, Holm over rows. Untrained: mean, interval over seeds and groups, range of seeds. "
        "Chance by construction: groups whose possible and impossible videos have the same "
        "windows. Nothing was chosen on these pairs unless the title says so.",
    )


def in_order(cells: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Each cell once: probes first, and our principles in the order in which they are listed."""
    known = {name: place for place, name in enumerate(PRINCIPLES)}
    kinds = ("probe", "pair", "null", "control")

    def place(cell: tuple[str, str, str]) -> tuple[int, int]:
        kind, principle, _ = cell
        return kinds.index(kind) if kind in kinds else 4, known.get(principle, len(known))

    return sorted(sorted(dict.fromkeys(cells), key=lambda cell: cell[2], reverse=True), key=place)


def _picked(scores: PairScores, cells: set) -> tuple[np.ndarray, list[str]]:
    rows = [i for i, cell in enumerate(scores.cells) if cell in cells]
    return scores.values[rows], [scores.groups[i] for i in rows]


def _row(
    picked: dict[str, tuple[np.ndarray, list[str]]],
    name: str,
    model: str | None,
    others: Sequence[str],
    seeds: Sequence[str],
    have_copy: bool,
    p_values: dict[str, float],
) -> list[str]:
    """Cells after the third; empty without pairs. Adds the gain's p to ``p_values``."""
    groups = picked[next(iter(picked))][1]
    if not groups:
        return []
    row = []
    if model is not None:
        row.append(_judged(picked[model][0], groups, f"{name}/model"))
        if have_copy:
            gain = paired(picked[model][0], picked["copy"][0], groups, name=f"{name}/gain")
            p_values[name] = gain.p
            row += [signed(gain.estimate), ""]
    row += [_judged(picked[other][0], groups, f"{name}/{other}") for other in others]
    if seeds:
        values = np.stack([picked[seed][0] for seed in seeds])
        estimate, means = over_seeds(values, groups, name=name), values.mean(1)
        spread = f"{percent(means.min())} to {percent(means.max())}"
        row.append(f"{interval(estimate)}; {spread}")
    return row


def metrics_table(run: VoeRun, reading: Reading) -> Table:
    """Every metric of every scorer over all probes."""
    run = run.select(kinds=["probe"])
    columns = ["scorer", "pairs avg", "pairs max", "pairs late", "quadruplets", "both pairs right"]
    columns += ["AUROC avg", "AUROC max", "AUROC of group", "found in time", "false alarm"]
    rows = []
    for name in run.scorers:
        accuracies = []
        for how in ("avg", "max", "late"):
            read = Reading(aggregate=how, context=reading.context, match=reading.match)
            values = pair_scores(run, name, read)
            accuracies.append(values.values.mean())
        quads = quadruplets(run, name, reading)
        single = single_videos(run, name, reading)
        times = timings(run, name, reading)
        rows.append(
            [
                name,
                *map(percent, accuracies),
                *(percent(q) for q in quads),
                interval(single[0], percent=False),
                f"{single[1]:.3f}",
                f"{single[2]:.3f}",
                *map(percent, times),
            ]
        )
    return Table(
        title="All metrics, all probes",
        columns=columns,
        rows=rows,
        note="Quadruplets: mean surprise of the possible two below that of the impossible two, "
        "ties one half (IntPhys's official relative score). Both pairs right: chance is a quarter. "
        "AUROC of single videos, impossible positive; of group: after taking each group's mean "
        "away. Found in time: the difference of the curves peaks within a window of the first "
        "frame that shows the event; false alarm: it peaks earlier than that.",
    )


def quadruplets(run: VoeRun, scorer: str, reading: Reading) -> tuple[float, float]:
    """Accuracy of quadruplets (mean of P against mean of I), and of both pairs being right.

    Average surprise is the mean over all windows of the two videos, in one exact sum: equal sets of
    windows tie.
    """
    losses, number = run.losses(scorer), reading.number(run)
    wanted = {p.group for p in run.pairs}
    members: dict[str, dict[bool, list[np.ndarray]]] = {}
    for row, video in enumerate(run.videos):
        if video.group in wanted and video.possible is not None:
            roles = members.setdefault(video.group, {True: [], False: []})
            roles[video.possible].append(window_losses(losses[row], number))

    def total(videos: list[np.ndarray]) -> float:
        if reading.aggregate == "avg":
            return surprise(np.concatenate(videos), "avg")
        return math.fsum(surprise(windows, "max") for windows in videos) / len(videos)

    official = [compare(total(m[True]), total(m[False])) for m in members.values()]
    scores = pair_scores(run, scorer, reading)
    both = group_means(scores.values, scores.groups) == 1.0
    return float(np.mean(official)), float(both.mean())


def video_surprises(run: VoeRun, scorer: str, reading: Reading) -> np.ndarray:
    """Surprise of every video, float64 ``[videos]``; "late" is read as "max"."""
    how: Aggregate = "max" if reading.aggregate == "late" else reading.aggregate
    losses, number = run.losses(scorer), reading.number(run)
    return np.array([surprise(window_losses(rows, number), how) for rows in losses])


def single_videos(run: VoeRun, scorer: str, reading: Reading) -> tuple[Estimate, float, float]:
    """AUROC of single videos: average (with interval), maximum, average within groups."""
    wanted = {p.group for p in run.pairs}
    rows = [r for r, v in enumerate(run.videos) if v.group in wanted and v.possible is not None]
    groups = [run.videos[r].group for r in rows]
    impossible = np.array([run.videos[r].possible is False for r in rows])
    by = {}
    for how in ("avg", "max"):
        read = Reading(aggregate=how, context=reading.context)
        by[how] = video_surprises(run, scorer, read)[rows]
    unknown = np.isnan(by["avg"])
    if unknown.any():
        return Estimate(math.nan, math.nan, math.nan), math.nan, math.nan
    _, which = np.unique(groups, return_inverse=True)
    centred = by["avg"] - (np.bincount(which, by["avg"]) / np.bincount(which))[which]
    return (
        auroc_interval(by["avg"], impossible, groups, name=scorer),
        auroc(by["max"][impossible], by["max"][~impossible]),
        auroc(centred[impossible], centred[~impossible]),
    )


def timings(run: VoeRun, scorer: str, reading: Reading) -> tuple[float, float]:
    """Shares of prefix pairs whose surprise peaks in time, and too early; NaN without events."""
    index, found = run.index, []
    for pair in run.pairs:
        p, i = index[pair.possible], index[pair.impossible]
        event = run.videos[i].t_observable
        if pair.match != "prefix" or event is None:
            continue
        a, b = (curve(run, scorer, row, reading) for row in (p, i))
        hit, early, _ = timing(a, b, event, run.config.span)
        if not math.isnan(hit):
            found.append((hit, early))
    hits = np.mean(found, axis=0) if found else (math.nan, math.nan)
    return float(hits[0]), float(hits[1])


def curve(run: VoeRun, scorer: str, row: int, reading: Reading) -> np.ndarray:
    """Surprise per frame of one video; filtered reads the longest context."""
    number = reading.number(run)
    number = int(np.argmax(run.config.contexts)) if number is None else number
    video = run.videos[row]
    return frame_curve(
        run.losses(scorer)[row, number],
        step=run.scorers[scorer]["step"],
        stride=run.config.stride,
        skip=run.config.skip,
        first=video.first,
        frames=video.frames + run.config.skip * run.scorers[scorer]["step"],
    )[: video.frames]


def grid_table(run: VoeRun, match: Match = "prefix") -> Table:
    """The model under every context and aggregate, with the untrained mean beside it."""
    run = run.select(kinds=["probe"])
    model, seeds = _the_model(run), run.of_role("untrained")
    name = model if model is not None else next(iter(run.scorers))
    rows = []
    for context in (*run.config.contexts, 0):
        row: list[str] = ["filtered" if context == 0 else str(context)]
        for how in ("avg", "max", "late"):
            read = Reading(aggregate=how, context=context, match=match)
            text = percent(pair_scores(run, name, read).values.mean())
            if seeds:
                means = [pair_scores(run, seed, read).values.mean() for seed in seeds]
                text += f" (untrained {percent(float(np.mean(means)))})"
            row.append(text)
        rows.append(row)
    return Table(
        title=f"Every context and aggregate: {name}, {match} pairs, all probes",
        columns=["context", "avg", "max", "late"],
        rows=rows,
        note="The best cell of this table is no result: it was chosen on the data it is judged on. "
        "Choose on val, or fix the setting beforehand.",
    )


def chance_groups(run: VoeRun) -> dict[str, bool]:
    """Group -> whether its average surprise is at chance by construction."""
    members: dict[str, dict[bool, list[np.ndarray]]] = {}
    for row, video in enumerate(run.videos):
        if video.possible is not None:
            roles = members.setdefault(video.group, {True: [], False: []})
            roles[video.possible].append(run.ids[row])
    return {g: bool(m[True] and m[False]) and by_chance(m) for g, m in members.items()}


def margin_table(run: VoeRun, reading: Reading) -> Table:
    """How far apart surprises are, and InfLevel's permutation test."""
    run = run.select(kinds=["probe"])
    wanted = {p.group for p in run.pairs}
    rows_of = [r for r, v in enumerate(run.videos) if v.group in wanted and v.possible is not None]
    groups = [run.videos[r].group for r in rows_of]
    impossible = np.array([run.videos[r].possible is False for r in rows_of])
    seeds, rows, index = run.of_role("untrained"), [], run.index
    for name in [n for n in run.scorers if n not in seeds]:
        totals = video_surprises(run, name, reading)
        names = pair_scores(run, name, reading).names
        gaps = np.array([totals[index[i]] - totals[index[p]] for p, i in names])
        if np.isnan(gaps).any():
            continue
        base = float(np.mean([totals[index[p]] for p, _ in names]))
        spread = float(gaps.std(ddof=1)) if len(gaps) > 1 else math.nan
        every = permutation_p(totals[rows_of], impossible, groups)
        share = gaps.mean() / base if base else math.nan
        rows.append(
            [
                name,
                f"{gaps.mean():.4g}",
                percent(float(share)),
                deviations(gaps.mean(), spread),
                f"{every:.3g}",
            ]
        )
    return Table(
        title="Margins",
        columns=["scorer", "mean I - P", "% of surprise", "in deviations", "permutation p"],
        rows=rows,
        note="I - P: surprise of the impossible less that of the possible video of a pair. "
        "Permutation p: every P against every I of a group, labels shuffled within groups "
        "(InfLevel's test), one-sided, 2,000 draws.",
    )


def _the_model(run: VoeRun) -> str | None:
    models = run.of_role("model")
    return models[0] if models else None


def _judged(values: np.ndarray, groups: Sequence[str], name: str) -> str:
    if np.isnan(values).any():
        return "–"
    found: Judged = judged(values.tolist(), groups, name=name)
    return interval(found.estimate)
