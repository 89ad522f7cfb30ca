"""The page of one training run: is it healthy, what did it see, and what do its features show?"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.config import load_config
from ..core.errors import TubeletError
from ..vjepa.diagnostics import verdict
from ..vjepa.pretrain import with_objective
from ..vjepa.pretrain_recipe import PretrainRunConfig, load_features
from . import charts
from .clip_pictures import Example, example_clip, feature_pictures, mask_strip
from .report import Report

Line = Mapping[str, Any]

GROUPS = {
    "Losses": "Each term by itself, and their weighted sum.",
    "Optimisation": "Learning rate and norm of the gradient before it is clipped.",
    "Pace": "Share of the time that training waited for data, and rates.",
    "Diagnostics": "Of the targets and predictions of a batch; what they mean stands above.",
    "Probes of labelled clips": "Accuracy on the half of the clips that taught the probes nothing.",
    "Other": "Everything else that was logged.",
}
"""Groups of logged scalars and what they are."""
_PACE = ("wait_share", "spikes", "per_second", "flops", "mfu", "seconds", "memory")
_SLOW = 0.2


def add_training(report: Report, run: Path, lines: Sequence[Line]) -> None:
    """Sections about the run folder ``run``, whose ``metrics.jsonl`` holds ``lines``."""
    config = _pretraining(run)
    _health(report, run, lines, config)
    _curves(report, lines)
    _corpus(report, run)
    if config is not None:
        _pictures(report, run, config)
    _machine(report, run)


def explain(last: Line, width: int) -> list[str]:
    """Sentences that say in words what the diagnostics of one report mean.

    Args:
        last: scalars of one report, by name. width: of the encoder's tokens.
    """

    def has(*names: str) -> bool:
        return all(last.get(name) is not None for name in names)

    said = []
    if has("clip_std", "target_rank"):
        said.append(
            f"At the same place of different clips, features differ by a standard deviation of "
            f"{last['clip_std']:.3f} (under 0.05 is little, under 0.01 is collapse). They span "
            f"{last['target_rank']:.1f} effective dimensions of {width} (under "
            f"{0.05 * width:.1f} is few, under 2 is collapse)."
        )
    if has("prediction_std"):
        said.append(
            f"Predictions vary by {last['prediction_std']:.3f}; under 0.01 they would be constant."
        )
    if has("loss_over_mean"):
        ratio = last["loss_over_mean"]
        used = "the visible part is being used" if ratio < 1 else "context is not used yet"
        said.append(
            f"The error on hidden tokens is {ratio:.2f} times that of always predicting the mean "
            f"over clips: {used}."
        )
    if has("pixel_r2"):
        said.append(
            f"A linear probe without labels decodes coarse pixels with R² {last['pixel_r2']:.2f}; "
            "on few clips it is often below 0, and only its course over steps says something."
        )
    return said


def group_of(name: str) -> str:
    """Which of :data:`GROUPS` a logged scalar belongs to."""
    head, _, tail = name.rpartition("/")
    if head.startswith("probe") or name.startswith("probe/"):
        return "Probes of labelled clips"
    if tail in ("lr", "grad_norm", "weight_decay", "momentum"):
        return "Optimisation"
    if any(word in tail for word in _PACE):
        return "Pace"
    if head.startswith(("train", "valid")):
        return "Losses"
    return "Other" if head else "Diagnostics"


def _pretraining(run: Path) -> PretrainRunConfig | None:
    """The config of a run of ``tubelet pretrain``, None for any other run."""
    try:
        table = tomllib.loads((run / "config.toml").read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    if not (table.get("videos") or table.get("images")):
        return None
    return load_config(PretrainRunConfig, run / "config.toml")


def _health(
    report: Report, run: Path, lines: Sequence[Line], config: PretrainRunConfig | None
) -> None:
    report.add_section("Is it healthy?")
    last = _last(lines, "clip_std")
    if config is not None:
        width = config.train.pyramid_or_encoder.width
        if last is None:
            report.add_text("No diagnostics were logged yet, so nothing can be said of collapse.")
        else:
            numbers = {k: math.nan if v is None else float(v) for k, v in last.items()}
            report.add_callout(verdict(numbers, width=width))
            report.add_text("\n\n".join(explain(last, width)))
    _prediction(report, run)
    losses = [line["train/loss"] for line in lines if line.get("train/loss") is not None]
    if losses:
        report.add_text(
            f"{lines[-1]['step'] + 1} steps. The loss went from {losses[0]:.4f} to "
            f"{losses[-1]:.4f}; where targets move along, that says little: it may fall, rise, and "
            "fall to nothing when features collapse."
        )
    waits = [line["pace/wait_share"] for line in lines if line.get("pace/wait_share") is not None]
    if waits:
        share = sum(waits) / len(waits)
        advice = (
            "Reading is what limits this run: give it --workers, or --cache where the corpus fits."
            if share > _SLOW
            else "Reading keeps up."
        )
        report.add_text(f"Waiting for data took {100 * share:.1f} % of the time. {advice}")
    bad = sorted({name for line in lines for name, value in line.items() if value is None})
    if bad:
        report.add_text(f"Logged as NaN or infinite at least once: {', '.join(bad)}.")


def _prediction(report: Report, run: Path) -> None:
    """What ``tubelet train`` measured on held-out episodes."""
    path = run / "prediction.json"
    if not path.exists():
        return
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TubeletError(f"{path}: not readable JSON ({error}); delete it") from error
    if isinstance(facts.get("over_copy"), int | float):
        report.add_text(
            f"On held-out episodes the squared error of predictions is {facts['over_copy']:.3g} "
            "times that of copying the first latent (under 1 is better than copying)."
        )
    if isinstance(facts.get("shuffled"), int | float):
        report.add_text(
            f"With the actions of other episodes it is {facts['shuffled']:.3g} times as large "
            "(near 1, actions are ignored)."
        )
    report.add_details("prediction.json", json.dumps(facts, indent=2))


def _curves(report: Report, lines: Sequence[Line]) -> None:
    names = dict.fromkeys(name for line in lines for name in line if name != "step")
    report.add_section("Curves")
    for group, about in GROUPS.items():
        chosen = [name for name in names if group_of(name) == group]
        if chosen:
            some = [{k: v for k, v in line.items() if k in (*chosen, "step")} for line in lines]
            report.add_heading(group)
            report.add_figure(charts.training_curves({"run": some}, most=24), about)


def _corpus(report: Report, run: Path) -> None:
    path = run / "corpus.json"
    if not path.exists():
        return
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
        bad, ignored = dict(facts.get("bad", {})), list(facts.get("ignored", []))
        usable, frames, source = facts["videos"], facts["frames"], facts["source"]
    except (ValueError, KeyError, TypeError) as error:
        raise TubeletError(f"{path}: not readable ({error!r}); delete it") from error
    report.add_section("Data")
    report.add_table(
        ["source", "usable files", "frames", "left out as bad", "of other kinds"],
        [[source, usable, frames, len(bad), len(ignored)]],
    )
    if bad:
        report.add_details(
            f"{len(bad)} files that were left out, and why",
            "\n".join(f"{name}: {reason}" for name, reason in sorted(bad.items())),
        )
    text = run / "corpus.txt"
    if text.exists():
        report.add_details("corpus.txt", text.read_text(encoding="utf-8", errors="replace"))


def _pictures(report: Report, run: Path, config: PretrainRunConfig) -> None:
    report.add_section("What it sees")
    train = with_objective(config.train, config.objective) if config.objective else config.train
    try:
        example = example_clip(run, config)
    except TubeletError as error:
        report.add_text(f"No picture of clips: {error}")
        return
    report.add_text(f"A clip from the middle of {example.path}.")
    if train.motion is None and not train.by_views:
        strip, names = mask_strip(example.video, train)
        report.add_heading("Masks")
        report.add_figure(
            strip,
            f"The clip, and below it {', '.join(names)}: what the encoder sees is as it is, what "
            "is to be predicted is tinted, and what is neither is grey.",
        )
    _features(report, run, example)


def _features(report: Report, run: Path, example: Example) -> None:
    report.add_heading("Features")
    try:
        strip, film = feature_pictures(load_features(run), example.video)
    except TubeletError as error:
        report.add_text(f"No picture of features: {error}")
        return
    report.add_figure(
        strip,
        "The clip, and the first three principal components of its tokens as red, green and blue, "
        "over time. What the encoder takes for one thing has one colour.",
    )
    if film is not None:
        report.add_video(film, "The same as a film: the clip, and its features.")


def _machine(report: Report, run: Path) -> None:
    path = run / "versions.json"
    if not path.exists():
        return
    try:
        starts = json.loads(path.read_text(encoding="utf-8"))["starts"]
        rows = [
            [
                number,
                start.get("processor") or "–",
                start.get("cores") or "–",
                ", ".join(start.get("devices") or []) or "none",
                start.get("memory_gib") or "–",
                (start.get("packages") or {}).get("torch") or "–",
                (start.get("commit") or "–")[:12],
            ]
            for number, start in enumerate(starts, start=1)
        ]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TubeletError(f"{path}: not readable ({error!r}); delete it") from error
    report.add_section("Machine")
    columns = ["start", "processor", "cores", "accelerators", "memory (GiB)", "torch", "commit"]
    report.add_table(columns, rows)


def _last(lines: Sequence[Line], name: str) -> Line | None:
    return next((line for line in reversed(lines) if name in line), None)
