"""Write a set: groups in parallel, each whole or not at all, the same bytes for any workers."""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import signal
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...core.errors import DatasetError
from ...core.io import atomic_write_json, atomic_write_text
from ...core.machine import version
from ...core.progress import progress
from ...core.rng import numpy_generator
from ..rendering import gl_backend
from .jobs import FPS, GenerateConfig, Job, jobs, make, name_of
from .layout import FORMAT, VERSION, clean_up, read_set, write_lines, write_truth, write_video
from .plan import Ask, Plan
from .quadruplet import TWINS, Drawn

IMPOSSIBLE = ("AB", "BA", "12", "21", "1x", "2x")


def generate(config: GenerateConfig) -> dict[str, Any]:
    """Write the groups of ``config`` that its folder lacks; returns ``dataset.json``.

    Prints the rate. Raises:
        DatasetError: the folder holds another set, or cannot be written. ConfigError: a cell has
            no scene that keeps the rules. RenderError: no OpenGL.
    """
    root = Path(config.out)
    if (root / "dataset.json").is_file():
        return _finished(config, root)
    _begin(config, root)
    backend = gl_backend()  # fail here, once, rather than in every worker
    everything = jobs(config)
    if not everything:
        raise DatasetError("there is nothing to generate: ask for quadruplets or training videos")
    missing = [job for job in everything if not _part(config, job).is_file()]
    start = time.perf_counter()
    try:
        with _pool(config, missing) as results:
            videos = sum(progress(results, "generate videos", total=len(missing)))
        told = _finish(config, root, everything, backend)
    except OSError as error:
        raise DatasetError(f"cannot write {config.out}: {error}") from error
    seconds = time.perf_counter() - start
    if videos:
        print(f"{videos} videos in {seconds:.1f} s: {videos / seconds:.2f} videos/s")
    return told


def write_group(config: GenerateConfig, job: Job) -> int:
    """Make one group and write its files, its labels last; returns how many videos it has."""
    ask, plan, drawn, attempt = make(config, job)
    folder, group = Path(config.out) / job.part, name_of(config.seed, *job.names)
    recipes = list(drawn.tracks)
    order = numpy_generator(config.seed, *job.names, "slots").permutation(len(recipes))
    ids = {
        recipe: name_of(config.seed, *job.names, int(slot))
        for recipe, slot in zip(recipes, order, strict=True)
    }
    records = []
    for recipe, slot in zip(recipes, order, strict=True):
        write_video(folder, ids[recipe], drawn.frames[recipe])
        write_truth(folder, ids[recipe], drawn.tracks[recipe], drawn.visible[recipe])
        record = {"video": ids[recipe], "group": group, "slot": int(slot)}
        records.append(record | label(config, job, ask, plan, drawn, recipe, ids, attempt))
    atomic_write_text(folder / "scenes" / f"{group}.xml", plan.xml())
    atomic_write_json(_part(config, job), records)
    return len(records)


def label(
    config: GenerateConfig,
    job: Job,
    ask: Ask,
    plan: Plan,
    drawn: Drawn,
    recipe: str,
    ids: dict[str, str],
    attempt: int,
) -> dict[str, Any]:
    """One record of ``labels.jsonl`` without ids and slot: see :mod:`tubelet.envs.physics`."""
    twins = [ids[name] for name in TWINS[recipe]] if recipe in TWINS else [None, None]
    impossible = recipe in IMPOSSIBLE
    return {
        "part": job.part,
        "split": job.split,
        "kind": job.kind,
        "principle": job.principle,
        "condition": job.condition,
        "variant": plan.variant,
        "design": plan.design,
        "role": "impossible" if impossible else "possible",
        "surprising": impossible or recipe in plan.surprising,
        "recipe": recipe,
        "prefix_twin": twins[0],
        "suffix_twin": twins[1],
        **drawn.facts,
        "t_observable": drawn.observable[recipe],
        "hidden": [list(interval) for interval in drawn.hidden[recipe]],
        "axes": {
            "visibility": ask.condition,
            "objects": sum(thing.kind == "object" for thing in plan.things),
            "events": max(1, len(plan.cuts)),
            "bridge": ask.bridge,
            "distractors": sum(thing.name.startswith("bystander") for thing in plan.things),
            "object_px": drawn.facts["checks"]["object_px"],
            "camera": "moving" if ask.moving else "fixed",
            **plan.axes,
        },
        "things": [
            {
                "name": thing.name,
                "kind": thing.kind,
                "shape": thing.shape,
                "size": list(thing.size),
                "rgb": list(thing.rgb),
                "held_out": thing.held_out,
            }
            for thing in plan.things
        ],
        "camera": {
            "path": "moving" if ask.moving else "fixed",
            "azimuth": round(plan.stage.azimuth, 3),
            "elevation": round(plan.stage.elevation, 3),
            "distance": round(plan.stage.distance, 3),
            "fovy": round(plan.stage.fovy, 3),
        },
        "seed": [config.seed, *job.names],
        "attempt": attempt,
    }


def _part(config: GenerateConfig, job: Job) -> Path:
    return Path(config.out) / job.part / "parts" / f"{name_of(config.seed, *job.names)}.json"


def _begin(config: GenerateConfig, root: Path) -> None:
    """Mark the folder as this set's, or refuse one that is another's."""
    mark, mine = root / "unfinished.json", config.same_set()
    if mark.is_file():
        _refuse_other(mine, json.loads(mark.read_text(encoding="utf-8")), root)
    elif root.is_dir() and any(root.iterdir()):
        raise DatasetError(f"{root} is not empty and holds no set: name another folder")
    else:
        atomic_write_json(mark, mine)


def _finished(config: GenerateConfig, root: Path) -> dict[str, Any]:
    found = read_set(root)
    _refuse_other(config.same_set(), found["config"], root)
    print(f"{root} is complete")
    return found


def _refuse_other(mine: dict[str, Any], theirs: dict[str, Any], root: Path) -> None:
    other = [f"{k} = {theirs.get(k)!r}" for k in mine if mine[k] != theirs.get(k)]
    if other:
        raise DatasetError(f"{root} holds another set ({', '.join(other)}): name another folder")


def _finish(
    config: GenerateConfig, root: Path, everything: list[Job], backend: str
) -> dict[str, Any]:
    """Gather the labels, and write ``dataset.json`` last."""
    counts, cells = Counter(), Counter()
    for part in sorted({job.part for job in everything}):
        mine = [job for job in everything if job.part == part]
        records = [r for job in mine for r in json.loads(_part(config, job).read_text("utf-8"))]
        records.sort(key=lambda record: record["video"])
        frames = config.resolved().frames
        index = [{"video": r["video"], "group": r["group"], "frames": frames} for r in records]
        write_lines(root / part / "videos.jsonl", index)
        write_lines(root / part / "labels.jsonl", records)
        counts[part] = len(records)
        cells.update(f"{j.split}/{j.kind}/{j.principle}/{j.condition}" for j in mine)
    told = {
        "format": FORMAT,
        "version": VERSION,
        "preset": config.preset,
        "seed": config.seed,
        "frames": config.resolved().frames,
        "size": config.resolved().size,
        "fps": FPS,
        "videos": dict(counts),
        "cells": dict(sorted(cells.items())),
        "config": config.same_set(),
        "software": {"mujoco": version("mujoco"), "numpy": version("numpy"), "gl": backend},
    }
    atomic_write_json(root / "dataset.json", told)
    (root / "unfinished.json").unlink(missing_ok=True)
    for part in counts:
        clean_up(root / part)
    return told


@contextmanager
def _pool(config: GenerateConfig, missing: list[Job]) -> Iterator[Iterable[int]]:
    """Results of :func:`write_group` as they come, from this process or from several."""
    workers = min(config.workers or os.cpu_count() or 1, -(-len(missing) // 4))
    write = functools.partial(write_group, config)
    if workers <= 1:
        yield map(write, missing)
        return
    context = multiprocessing.get_context("spawn")  # OpenGL must not cross a fork
    ignore_ctrl_c = (signal.SIGINT, signal.SIG_IGN)  # this process answers it, and ends the others
    with context.Pool(workers, initializer=signal.signal, initargs=ignore_ctrl_c) as pool:
        yield pool.imap_unordered(write, missing, chunksize=1)
