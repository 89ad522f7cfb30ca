"""Score a violation-of-expectation set: losses of a model and its baselines, kept and judged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np

from ...core.errors import ConfigError
from ...core.io import atomic_path, atomic_write_json
from ...core.progress import progress
from ...core.run import RunDir
from ...datasets.voe.intphys import write_submission
from ...datasets.voe.record import VoeSet, VoeVideo
from ...datasets.voe.registry import open_voe
from ..results import Table, save_result
from .models import load_candidate
from .pixels import PixelBaselines
from .resized import Resized
from .settings import Reading, ScoreConfig
from .store import VoeRun, grouped, has_losses, open_run, readable, write_losses
from .surprise import Scorer, group_losses
from .tables import (
    accuracy_table,
    grid_table,
    margin_table,
    metrics_table,
    pair_scores,
    video_surprises,
)
from .truth import TruthScorer


def score(config: ScoreConfig) -> list[Table]:
    """Score, store and judge; the tables are in the run folder too.

    A test set without labels gives a submission file instead of tables (IntPhys).

    Raises:
        ConfigError, DatasetError, CheckpointError: as readers and loaders do.
    """
    from ...vjepa.device import MAY_DIFFER, prepare

    if not config.data:
        raise ConfigError('data = "": name the folder of a set')
    device = prepare(config.device, config.threads)
    voe = _chosen(open_voe(config.data, config.layout), config)
    may_differ = (*MAY_DIFFER, "reading", "gallery", "choose", "batch")
    with RunDir.create(config.out, config, resume=config.resume, may_differ=may_differ) as folder:
        return score_set(voe, config, folder.path, device)


def score_set(voe: VoeSet, config: ScoreConfig, path: Path, device: str = "cpu") -> list[Table]:
    """As :func:`score`, for a set in memory, into an existing folder."""
    voe = replace(voe, videos=grouped(voe.videos))
    voe = readable(voe, Resized(PixelBaselines(), config.size), config.windows, path, config.batch)
    print(voe.report())
    model = None
    for scorer, role in _scorers(config, voe, device):
        made = scorer()
        model = made if role == "model" else model
        if not has_losses(path, made.names[0]):
            write_losses(voe, made, config.windows, path, config.batch, role=role)
    run = open_run(path)
    if not run.pairs:
        return _unlabelled(run, config, path)
    reading, judged = _reading(run, config)
    if config.gallery and model is not None:
        _gallery(run, voe, model, reading, config)
    return write_tables(judged, reading)


def write_tables(run: VoeRun, reading: Reading) -> list[Table]:
    """Compute all tables of a stored run and save them below it."""
    made = {"accuracy": accuracy_table(run, reading), "metrics": metrics_table(run, reading)}
    if any(pair.match == "suffix" for pair in run.pairs):
        made["suffix"] = accuracy_table(run, replace(reading, match="suffix"))
    made |= {"margins": margin_table(run, reading), "grid": grid_table(run)}
    for name, table in made.items():
        save_result(run.path, table, name=f"voe-{name}")
    return list(made.values())


def _chosen(voe: VoeSet, config: ScoreConfig) -> VoeSet:
    splits = config.splits or tuple(sorted({v.split for v in voe.videos} - {"train"}))
    return voe.select(splits=splits, kinds=config.kinds, groups=config.groups)


def _scorers(
    config: ScoreConfig, voe: VoeSet, device: str
) -> Iterator[tuple[Callable[[], Scorer], Literal["model", "untrained", "baseline", "ceiling"]]]:
    if all(video.truth for video in voe.videos):
        yield TruthScorer, "ceiling"
    if not config.model:
        return
    candidate = load_candidate(
        config.model,
        kind=config.kind,
        which=config.which,
        mask_index=config.mask_index,
        distance=config.distance,
        actions=config.actions,
        horizon=config.horizon,
        device=device,
    )
    yield lambda: Resized(candidate.scorer, config.size), "model"
    if config.critic:
        from .critic import critic_scorer
        from .dynamics import StepConfig

        judged = critic_scorer(
            config.model,
            config.critic,
            distance=config.distance,
            mask_index=config.mask_index,
            steps=StepConfig(actions=config.actions, horizon=config.horizon),
            device=device,
        )
        yield lambda: Resized(judged, config.size), "baseline"
    for seed in progress(range(config.untrained), "untrained"):
        yield lambda seed=seed: Resized(candidate.fresh(seed), config.size), "untrained"


def _reading(run: VoeRun, config: ScoreConfig) -> tuple[Reading, VoeRun]:
    """The reading of the main table, and the part of the run that it is for."""
    if config.choose == "fixed":
        return config.reading, run
    splits = {video.split for video in run.videos}
    if "val" not in splits or splits == {"val"}:
        raise ConfigError(f'choose = "val" needs the split val and another; there are {splits}')
    val = run.select(splits=["val"], kinds=["probe"])
    name = (run.of_role("model") or list(run.scorers))[0]
    options = [
        replace(config.reading, context=context, aggregate=how)
        for context in (*run.config.contexts, 0)
        for how in ("avg", "max")
    ]
    best = max(options, key=lambda r: pair_scores(val, name, r).values.mean())
    facts = {"context": best.context, "aggregate": best.aggregate, "on": "val"}
    atomic_write_json(run.path / "chosen.json", facts)
    return best, run.select(splits=sorted(splits - {"val"}))


def _unlabelled(run: VoeRun, config: ScoreConfig, path: Path) -> list[Table]:
    """The submission of a test set: plausibility falls with surprise, from 1 to 0."""
    name = (run.of_role("model") or list(run.scorers))[0]
    totals = video_surprises(run, name, config.reading)
    low, high = float(totals.min()), float(totals.max())
    scale = high - low if high > low else 1.0
    plausible = {
        video.name: 1 - (value - low) / scale
        for video, value in zip(run.videos, totals.tolist(), strict=True)
    }
    if run.layout == "intphys":
        write_submission(path / "submission.zip", plausible)
        print(f"no labels: submission in {path / 'submission.zip'}")
    atomic_write_json(path / "plausibility.json", plausible)
    return []


def _gallery(
    run: VoeRun, voe: VoeSet, model: Scorer, reading: Reading, config: ScoreConfig
) -> None:
    """Keep frames and token losses of some hits and misses."""
    name = model.names[0]
    scores = pair_scores(run, name, reading)
    number = reading.number(run)
    number = int(np.argmax(run.config.contexts)) if number is None else number
    videos = voe.groups()
    for outcome, word in ((1.0, "hit"), (0.0, "miss")):
        rows = [i for i, v in enumerate(scores.values) if v == outcome]
        seen = dict.fromkeys(scores.cells[i] for i in rows)  # principles in turn
        firsts = [next(i for i in rows if scores.cells[i] == cell) for cell in seen]
        for i in [*firsts, *(i for i in rows if i not in firsts)][: config.gallery]:
            pair = {v.name: v for v in videos[scores.groups[i]]}
            members = [pair[name] for name in scores.names[i]]
            found = group_losses(
                members, model, config.windows, batch=config.batch, tokens_of=number
            )
            assert found.tokens is not None
            file = run.path / "tokens" / f"{word}-{i:05d}.npz"
            with atomic_path(file) as temporary, open(temporary, "wb") as out:
                np.savez(
                    out,
                    tokens=found.tokens,
                    frames=np.stack([_whole(video) for video in members]),
                    names=np.array(scores.names[i]),
                    step=model.step,
                )


def _whole(video: VoeVideo) -> np.ndarray:
    return video.frames.read(range(video.frames.count))
