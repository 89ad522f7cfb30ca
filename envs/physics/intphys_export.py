"""A set in the folder layout of IntPhys 2019 (Riochet et al.), so that its loaders read it.

``dev/O1/01/1/{scene,depth,masks}/..._001.png`` and ``status.json``: block O1 is object permanence,
O2 shape constancy, O3 continuity; the other principles follow as O4, O5, …; the runs 1 to 4 of a
group are in its shuffled order. ``train/00001_train/…`` holds the training videos.
"""

from __future__ import annotations

import os
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import DatasetError
from ...core.io import atomic_write_json
from ...core.progress import progress
from ...core.rng import numpy_generator
from . import PRINCIPLES
from .layout import TIME_STAMP, read_lines, read_set, read_truth, read_video

BLOCKS = ("permanence", "shape", "continuity")
BLOCKS += tuple(name for name in PRINCIPLES if name not in BLOCKS)
"""The principles of O1, O2, …"""


def export(root: str | os.PathLike[str], out: str | os.PathLike[str]) -> Path:
    """Write the test quadruplets and the training videos of the set ``root``; returns ``out``.

    Raises:
        DatasetError: no finished set, or ``out`` is not empty.
    """
    root, out = Path(root), Path(out)
    told = read_set(root)
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out} is not empty: remove it, or name another folder")
    partial = out.with_name(f".{out.name}-partial")
    shutil.rmtree(partial, ignore_errors=True)
    for place, part, records in progress(_places(root, told), "export"):
        for folder, record in zip(place, records, strict=True):
            _write(partial / folder, root / part, record, told["seed"])
    partial.mkdir(parents=True, exist_ok=True)
    if out.is_dir():
        out.rmdir()
    partial.rename(out)
    return out


def _places(root: Path, told: dict[str, Any]) -> list[tuple[list[str], str, list[dict[str, Any]]]]:
    """Folders and records of each group to write."""
    found, counts = [], defaultdict(int)
    groups: dict[str, list[dict[str, Any]]] = defaultdict(list)
    if "probe" in told["videos"]:
        for record in read_lines(root / "probe" / "labels.jsonl"):
            if record["kind"] == "probe" and record["split"] == "test":
                groups[record["group"]].append(record)
    for records in groups.values():
        block = BLOCKS.index(records[0]["principle"]) + 1
        counts[block] += 1
        records = sorted(records, key=lambda record: record["slot"])
        scene = f"dev/O{block}/{counts[block]:02d}"
        found.append(([f"{scene}/{run}" for run in range(1, 5)], "probe", records))
    if "train" in told["videos"]:
        for number, record in enumerate(read_lines(root / "train" / "labels.jsonl"), 1):
            found.append(([f"train/{number:05d}_train"], "train", [record]))
    return found


def _write(folder: Path, source: Path, record: dict[str, Any], seed: int) -> None:
    """One video: its frames, depth, masks and status."""
    from PIL import Image

    from .draw import Painter

    xml = (source / "scenes" / f"{record['group']}.xml").read_text(encoding="utf-8")
    names = [thing["name"] for thing in record["things"]]
    frames = np.asarray(read_video(source, record["video"]))
    painter = Painter(xml, names, frames.shape[1])
    track, _ = read_truth(source, record["video"])
    owners = painter.owners([track])[0]
    depth = 65535 - np.clip(np.round(painter.depth(track) * 1000), 0, 65535)
    levels = _grey_levels(seed, record, len(frames), len(names) + 1)
    masks = np.take_along_axis(levels, owners.reshape(len(frames), -1) + 1, axis=1)
    layers = {
        "scene": frames,
        "depth": depth.astype(np.uint16),
        "masks": masks.reshape(owners.shape).astype(np.uint8),
    }
    for layer, pictures in layers.items():
        (folder / layer).mkdir(parents=True)
        for number, picture in enumerate(pictures, 1):
            path = folder / layer / f"{layer}_{number:03d}.png"
            Image.fromarray(picture).save(path)
            os.utime(path, (TIME_STAMP, TIME_STAMP))
    atomic_write_json(folder / "status.json", _status(record, track, levels))
    os.utime(folder / "status.json", (TIME_STAMP, TIME_STAMP))


def _grey_levels(seed: int, record: dict[str, Any], frames: int, things: int) -> np.ndarray:
    """Levels of the masks, drawn anew for every frame so that they tell nothing: uint8 [T, N]."""
    rng = numpy_generator(seed, "voe", "masks", record["video"])
    return np.stack([rng.permutation(255)[:things] + 1 for _ in range(frames)])


def _status(record: dict[str, Any], track: Any, levels: np.ndarray) -> dict[str, Any]:
    """The header and the objects per frame, in IntPhys's keys."""
    things = record["things"]
    block = 0 if record["part"] == "train" else BLOCKS.index(record["principle"]) + 1
    frames = []
    for t in range(track.frames):
        frame: dict[str, Any] = {}
        masks = {"background": int(levels[t, 0])}
        for n, thing in enumerate(things):
            if track.present[t, n]:
                frame[thing["name"]] = {
                    "kind": thing["kind"],
                    "shape": thing["shape"],
                    "location": track.pose[t, n, :3].tolist(),
                    "rotation": track.pose[t, n, 3:].tolist(),
                }
                masks[thing["name"]] = int(levels[t, n + 1])
        frames.append(frame | {"masks": masks})
    header = {
        "block_name": f"O{block}" if block else "train",
        "block_type": "train" if record["part"] == "train" else "dev",
        "is_possible": record["role"] == "possible",
        "camera": track.camera[0].tolist(),
        "principle": record["principle"],
        "condition": record["condition"],
    }
    return {"header": header, "frames": frames}
