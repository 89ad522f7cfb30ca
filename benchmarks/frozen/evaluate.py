"""One table of a frozen encoder: its probe beside the floors, on clips that chose nothing.

Rows: the encoder; the same architecture with fresh weights; principal components of the pixels;
the most frequent class. The three floors go through the same split, selection and interval.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ...core.errors import ConfigError, DatasetError, VideoDecodeError
from ...core.io import atomic_write_json
from ...core.progress import progress
from ...datasets.corpus import check_bad_share
from ...vjepa.attentive import AttentiveProbe
from ...vjepa.formats.checkpoint import Checkpoint
from ..probes import pca_features
from ..results import Table
from .features import (
    Encode,
    Features,
    average_views,
    extract,
    pixels,
    probe_logits,
    reader,
    untrained,
    weights_digest,
)
from .heads import attentive_head, linear_head, train_heads
from .labelled import read_labelled
from .protocol import read_views
from .readouts import knn, logistic, majority, ridge
from .selection import Candidates, Outcome, accuracy, judge, score
from .settings import Clips, EvaluateConfig, read_clips

READOUTS = {"knn": knn, "ridge": ridge, "logistic": logistic}


def evaluate(config: EvaluateConfig, checkpoint: Checkpoint, device: str = "cpu") -> Table:
    """Extract, train, choose and report; ``evaluate.json`` in the run folder has every number.

    Raises:
        ConfigError, DatasetError: settings, lists or files that cannot be used.
    """
    encoder = checkpoint.encoder.requires_grad_(False).eval().to(device)
    if config.probe == "imported":
        return _imported(config, checkpoint, device)
    clips, pool = read_clips(config), config.probe != "attentive"
    layers = config.protocol.layers
    mine = _extract(config, clips, reader(encoder, layers), weights_digest(encoder), pool, device)
    clips = clips.without(list(mine.bad))
    if config.export:
        from .pictures import export_features

        export_features(config.export, mine.values, clips.data)
    rows = {"encoder": _judged(config, clips, mine.values, config.probe, device)}
    probes = {"encoder": config.probe}
    if config.floors:
        fresh = untrained(encoder, config.seed)
        encode, identity = reader(fresh, layers), weights_digest(fresh)
        values = _extract(config, clips, encode, identity, pool, device).values
        rows["untrained encoder"] = _judged(config, clips, values, config.probe, device)
        probes["untrained encoder"] = config.probe
        probes["pixel PCA"] = "linear" if config.probe == "attentive" else config.probe
        values = _pixel_components(config, clips, encoder.config.width, device)
        rows["pixel PCA"] = _judged(config, clips, values, probes["pixel PCA"], device)
        guess = majority(clips.data.labels, clips.train, len(clips.data.classes))
        rows["most frequent class"] = [judge(guess, clips.data.labels, clips.valid, clips.test)]
        probes["most frequent class"] = "–"
    _write(config, rows)
    bad = f" {len(mine.bad)} files could not be read." if mine.bad else ""
    return Table(
        title=f"{config.encoder}: {config.probe} probe, frozen",
        columns=COLUMNS,
        rows=[_row(name, probes[name], some) for name, some in rows.items()],
        note=f"{config.data}: {len(clips.data.classes)} classes; {len(clips.train)} clips to train "
        f"on, {len(clips.valid)} to choose on, {len(clips.test)} to report on.{bad} Accuracy: "
        "mean over seeds of the probe chosen on validation clips, with the 95 % Wilson interval of "
        "the test clips. The last column is chosen on the test clips and too good: for "
        "comparison with published numbers only.",
    )


COLUMNS = (
    *("features", "probe", "test clips", "seeds", "test accuracy", "over seeds"),
    *("chosen", "validation", "best of grid on test (optimistic)"),
)


def _extract(
    config: EvaluateConfig, clips: Clips, encode: Encode, identity: str, pool: bool, device: str
) -> Features:
    return extract(
        encode,
        identity,
        clips.data.paths,
        config.protocol,
        config.cache or Path(config.out) / "cache",
        pool=pool,
        batch=config.batch,
        workers=config.workers,
        device=device,
        max_bad_share=config.max_bad_share,
    )


def _pixel_components(config: EvaluateConfig, clips: Clips, width: int, device: str) -> np.ndarray:
    """Principal components of the middle view's pixels, float32 ``[M, 1, 1, D]``."""
    values = _extract(config, clips, pixels, "pixels 16", False, device).values
    middle = values[:, values.shape[1] // 2]
    width = min(width, len(clips.train), 1500)
    return pca_features(middle, width, fit_rows=clips.train)[:, None, None]


def _judged(
    config: EvaluateConfig, clips: Clips, values: np.ndarray, probe: str, device: str
) -> list[Outcome]:
    """One outcome for every seed; one for readouts that have no randomness."""
    labels, classes = clips.data.labels, len(clips.data.classes)
    if probe in READOUTS:
        x = Features(values=values, bad={}).pooled()
        found = READOUTS[probe](x, labels, clips.train, classes)
        return [judge(found, labels, clips.valid, clips.test)]

    def trained(seed: int) -> Candidates:
        def make() -> torch.nn.Module:
            if probe == "linear":
                return linear_head(values, clips.train, classes)
            return attentive_head(values.shape[-1], classes, config.heads)

        return train_heads(
            make, values, labels, clips.train, config.heads, seed=seed, device=device
        )

    seeds = range(config.seed, config.seed + config.seeds)
    return [judge(trained(seed), labels, clips.valid, clips.test) for seed in seeds]


def _imported(config: EvaluateConfig, checkpoint: Checkpoint, device: str) -> Table:
    """The checkpoint's own probe on all of ``data``."""
    probe = checkpoint.probe
    if not isinstance(probe, AttentiveProbe):
        raise ConfigError(f"{config.encoder} holds no probe with one label for each clip")
    classes = _classes(checkpoint, probe, config.data)
    data, bad, rows = read_labelled(config.data, classes), {}, []
    found = []
    for number, path in enumerate(progress(data.paths, "classify", total=len(data))):
        try:
            clips = read_views(path, config.protocol)
        except VideoDecodeError as error:
            bad[path] = error.reason
            continue
        layers = config.protocol.layers
        logits = probe_logits(checkpoint.encoder, probe.to(device), clips, layers)
        found.append(average_views(logits))
        rows.append(number)
    check_bad_share(data.source, bad.items(), len(data), config.max_bad_share, "files")
    right, _ = score(torch.stack(found)[None].numpy(), data.labels[rows])
    outcome = Outcome(
        settings=("imported",),
        chosen=0,
        valid=np.full(1, np.nan),
        right=right[0],
        best_on_test=float(right.mean()),
    )
    _write(config, {"imported probe": [outcome]})
    return Table(
        title=f"{config.encoder}: imported probe, frozen",
        columns=COLUMNS,
        rows=[_row("encoder", "imported", [outcome])],
        note=f"{config.data}: {len(rows)} clips, {len(bad)} could not be read. Nothing was trained "
        "or chosen here.",
    )


def _classes(checkpoint: Checkpoint, probe: AttentiveProbe, source: str) -> tuple[str, ...]:
    """The probe's classes by name where the list uses names, else by number."""
    count, labels = probe.config.classes[0], checkpoint.provenance.labels
    numbers = tuple(str(number) for number in range(count))
    try:
        read_labelled(source, numbers)
    except DatasetError:
        return labels if len(labels) == count else numbers
    return numbers


def _row(name: str, probe: str, outcomes: list[Outcome]) -> list[str | float | int]:
    first, mean = outcomes[0], accuracy(outcomes)
    shares = [outcome.accuracy for outcome in outcomes]
    many = len(first.settings) > 1
    chosen = dict.fromkeys(outcome.settings[outcome.chosen] for outcome in outcomes)
    valid = np.mean([outcome.valid[outcome.chosen] for outcome in outcomes])
    best = np.mean([outcome.best_on_test for outcome in outcomes])
    return [
        name,
        probe,
        len(first.right),
        len(outcomes),
        f"{100 * mean.value:.1f} % [{100 * mean.low:.1f}, {100 * mean.high:.1f}]",
        f"{100 * min(shares):.1f}–{100 * max(shares):.1f} %" if len(shares) > 1 else "–",
        " | ".join(chosen),
        f"{100 * valid:.1f} %" if np.isfinite(valid) else "–",
        f"{100 * best:.1f} %" if many else "–",
    ]


def _write(config: EvaluateConfig, rows: dict[str, list[Outcome]]) -> None:
    """Every number behind the table."""
    facts: dict[str, Any] = {
        name: [
            {
                "settings": outcome.settings,
                "validation": [float(v) if np.isfinite(v) else None for v in outcome.valid],
                "chosen": outcome.chosen,
                "test_accuracy": outcome.accuracy,
                "best_on_test_optimistic": outcome.best_on_test,
                "test_right": outcome.right.astype(int).tolist(),
            }
            for outcome in outcomes
        ]
        for name, outcomes in rows.items()
    }
    atomic_write_json(Path(config.out) / "evaluate.json", facts)
