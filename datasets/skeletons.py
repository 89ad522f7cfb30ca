"""Skeletons of NTU RGB+D: its ``.skeleton`` files, read and written, and its splits.

A file ``S001C002P003R001A013.skeleton`` (setup, camera, performer, repetition, action) holds the
number of frames; for each frame the number of bodies; for each body a line of ten values that
begins with its id, the number of joints, and a line of eleven or twelve values for each joint, of
which the first three are metres.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_write_text
from .labelled import LabelledSet, collect

JOINTS = (
    "base of the spine",
    "middle of the spine",
    "neck",
    "head",
    "left shoulder",
    "left elbow",
    "left wrist",
    "left hand",
    "right shoulder",
    "right elbow",
    "right wrist",
    "right hand",
    "left hip",
    "left knee",
    "left ankle",
    "left foot",
    "right hip",
    "right knee",
    "right ankle",
    "right foot",
    "spine",
    "tip of the left hand",
    "left thumb",
    "tip of the right hand",
    "right thumb",
)
"""Names by number, from 0."""

Split = Literal["all", "xsub-train", "xsub-test", "xview-train", "xview-test"]
XSUB_TRAIN = frozenset((1, 2, 4, 5, 8, 9, 13, 14, 15, 16, 17, 18, 19, 25, 27, 28, 31, 34, 35, 38))
"""Performers of NTU RGB+D (60 actions) that are trained on; the rest are tested."""
XVIEW_TRAIN = frozenset((2, 3))
"""Cameras likewise."""
MAX_BAD_SHARE = 0.05
"""Share of a set's files that may be bad."""
_NAME = re.compile(r"S(\d{3})C(\d{3})P(\d{3})R(\d{3})A(\d{3})")
_FIELDS = ("setup", "camera", "performer", "repetition", "action")


def read_skeletons(
    folder: str | os.PathLike[str],
    *,
    split: Split = "all",
    frames: int = 120,
    max_bad_share: float = MAX_BAD_SHARE,
) -> LabelledSet:
    """All ``.skeleton`` files below a folder, as sequences float32 ``[M, frames, 25, 3]``.

    Of several bodies the one that moves most is taken. Every sequence is brought to ``frames``
    frames by linear interpolation, the base of its spine to the origin in the first frame, and its
    axes to (right, ahead, up): the camera's are (right, up, towards what it sees). Labels are
    action numbers less 1; ``groups`` has setup, camera, performer, repetition and action.

    Raises:
        ConfigError: no such split, or no frames.
        DatasetError: nothing usable, or more than ``max_bad_share`` bad. Files with coordinates
            that are no numbers are bad, and named with the joint and frame.
    """
    if frames < 1:
        raise ConfigError(f"frames = {frames}: must be at least 1")
    paths = sorted(Path(folder).rglob("*.skeleton"))
    named = [(path, numbers) for path in paths if (numbers := _numbers(path.stem)) is not None]
    chosen = [(path, numbers) for path, numbers in named if _in_split(numbers, split)]
    if not chosen:
        raise DatasetError(
            f"{folder} has no .skeleton file of split {split!r} "
            f"(of {len(paths)}, {len(named)} are named like S001C002P003R001A013)"
        )
    actions = max(numbers["action"] for _, numbers in named)

    def found() -> Iterator[tuple[str, np.ndarray | str, int]]:
        for path, numbers in chosen:
            try:
                sample: np.ndarray | str = resampled(main_body(read_bodies(path)), frames)
            except DatasetError as error:
                sample = str(error)
            yield path.stem, sample, numbers["action"] - 1

    return collect(
        found(),
        classes=tuple(f"A{action:03d}" for action in range(1, actions + 1)),
        source=str(folder),
        max_bad_share=max_bad_share,
        groups={key: [numbers[key] for _, numbers in chosen] for key in _FIELDS},
    )


def read_bodies(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The bodies of one file by id: float32 ``[T_b, J, 3]`` metres in the camera's axes, of the
    frames in which each was seen.

    Raises:
        DatasetError: another layout, no body, or a coordinate that is no number; names the file,
            and the joint and frame or the line.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DatasetError(f"{path.name} cannot be read: {error.strerror}") from error
    cursor = _Cursor(path.name, lines)
    bodies: dict[str, list[np.ndarray]] = {}
    for frame in range(cursor.count("frames")):
        for _ in range(cursor.count("bodies")):
            body = cursor.words(10)[0]
            joints = np.array([cursor.joint() for _ in range(cursor.count("joints"))], np.float32)
            bad = ~np.isfinite(joints).all(axis=-1)
            if bad.any():
                which = int(bad.argmax())
                name = f" ({JOINTS[which]})" if len(joints) == len(JOINTS) else ""
                raise DatasetError(
                    f"{path.name}: joint {which}{name} is no number in frame {frame} "
                    f"({bad.sum()} joints there): leave the file out or repair it"
                )
            bodies.setdefault(body, []).append(joints)
    if not bodies:
        raise DatasetError(f"{path.name}: no body in any frame")
    shapes = {joints.shape for seen in bodies.values() for joints in seen}
    if len(shapes) != 1:
        counts = sorted(shape[0] for shape in shapes)
        raise DatasetError(f"{path.name}: bodies with {counts} joints")
    return {body: np.stack(seen) for body, seen in bodies.items()}


def write_skeleton(path: str | os.PathLike[str], body: np.ndarray) -> None:
    """Write one body ``[T, J, 3]`` (right, ahead, up; metres, to a tenth of a millimetre) in the
    layout that :func:`read_bodies` reads, atomically. What else the layout has of a joint is 0.

    Raises DatasetError for a coordinate that is no number.
    """
    refuse_nan(body, Path(path).name)
    lines = [str(len(body))]
    for frame in np.stack([body[..., 0], body[..., 2], -body[..., 1]], axis=-1):
        lines += ["1", "0" + " 0" * 9, str(len(frame))]
        lines += [f"{x:.4f} {y:.4f} {z:.4f}" + " 0" * 9 for x, y, z in frame]
    atomic_write_text(path, "\n".join(lines) + "\n")


def main_body(bodies: dict[str, np.ndarray]) -> np.ndarray:
    """The body whose joints vary most over time (summed variance times frames), ``[T, J, 3]``."""
    return max(bodies.values(), key=lambda x: float(x.var(axis=0).sum() * len(x)))


def resampled(body: np.ndarray, frames: int) -> np.ndarray:
    """``body [T, J, 3]`` at ``frames`` evenly spaced times, in (right, ahead, up), from the origin.

    Raises DatasetError for a coordinate that is no number.
    """
    refuse_nan(body, "skeleton")
    times = np.linspace(0, len(body) - 1, frames)
    before = np.floor(times).astype(int).clip(max=max(len(body) - 2, 0))
    after = (before + 1).clip(max=len(body) - 1)
    share = (times - before)[:, None, None]
    x = (1 - share) * body[before] + share * body[after]
    x = np.stack([x[..., 0], -x[..., 2], x[..., 1]], axis=-1)  # what is near is ahead
    return (x - x[:1, :1]).astype(np.float32)


def refuse_nan(x: np.ndarray, name: str) -> None:
    """Raise DatasetError, naming joint and frame, unless all of ``x [T, J, 3]`` are numbers."""
    bad = ~np.isfinite(x).all(axis=-1)
    if bad.any():
        frame, joint = np.argwhere(bad)[0]
        raise DatasetError(
            f"{name}: joint {joint} is no number in frame {frame} ({bad.sum()} of {bad.size} "
            "positions are not): leave it out or repair it"
        )


class _Cursor:
    """Reads lines in order, and says where it stopped understanding them."""

    def __init__(self, name: str, lines: list[str]):
        self.name, self.lines, self.place = name, lines, 0

    def words(self, least: int) -> list[str]:
        if self.place >= len(self.lines):
            raise DatasetError(f"{self.name} ends after line {self.place}: it is truncated")
        words = self.lines[self.place].split()
        self.place += 1
        if len(words) < least:
            raise DatasetError(
                f"{self.name}, line {self.place}: {len(words)} values, at least {least} expected"
            )
        return words

    def count(self, what: str) -> int:
        word = self.words(1)[0]
        if not word.isdigit():
            raise DatasetError(f"{self.name}, line {self.place}: {word!r} is no number of {what}")
        return int(word)

    def joint(self) -> list[float]:
        return [_float(word) for word in self.words(11)[:3]]


def _float(word: str) -> float:
    try:
        return float(word)
    except ValueError:
        return math.nan


def _numbers(stem: str) -> dict[str, int] | None:
    found = _NAME.fullmatch(stem)
    return dict(zip(_FIELDS, map(int, found.groups()), strict=True)) if found else None


def _in_split(numbers: dict[str, int], split: str) -> bool:
    if split == "all":
        return True
    inside = {
        "xsub": numbers["performer"] in XSUB_TRAIN,
        "xview": numbers["camera"] in XVIEW_TRAIN,
    }
    kind, _, part = split.partition("-")
    if kind not in inside or part not in ("train", "test"):
        raise ConfigError(
            f"split = {split!r}: choose all, xsub-train, xsub-test, xview-train or xview-test"
        )
    return inside[kind] == (part == "train")
