"""What every reader of violation-of-expectation sets gives: videos, groups, pairs, refusals.

A *group* is what was made together: four matched videos, two possible (P) and two impossible (I),
or one pair. A *pair* is one P and one I that are compared. Labels are never guessed: a video whose
label is not known has ``possible = None`` and is in no pair.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from ...core.errors import DatasetError

Match = Literal["prefix", "suffix", "all"]
"""prefix: equal up to the event; suffix: equal from some frame on; all: every P against every I."""


class Frames(Protocol):
    """Frames of one video by number.

    Attributes:
        count: frames of the video. size: (height, width) in pixels.
    """

    @property
    def count(self) -> int: ...

    @property
    def size(self) -> tuple[int, int]: ...

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        """The frames ``numbers``: uint8 ``[T, H, W, 3]``. Raises DatasetError naming the file."""
        ...


@dataclass(frozen=True, kw_only=True)
class VoeVideo:
    """One video, and what is known about it."""

    name: str
    """Unique within the set."""
    group: str
    """Quadruplet or pair that it belongs to."""
    frames: Frames
    """Its frames."""
    possible: bool | None = None
    """The label; None: not given."""
    principle: str = ""
    """What is violated in its group."""
    condition: str = ""
    """visible, occluded, a difficulty: as the set calls it."""
    kind: str = "probe"
    """probe; null (no difference: chance is right); control (surprising but legal); pair (matched
    in pairs only: reported apart)."""
    split: str = "test"
    """val, test, …"""
    fps: float = 0.0
    """Frames per second; 0: not known."""
    first: int = 0
    """First frame that counts."""
    t_event: int | None = None
    """Frame from which an impossible video departs from what is possible."""
    t_observable: int | None = None
    """First frame in which that shows."""
    bridge: int | None = None
    """Identical frames around the swap, in which nothing tells the videos apart."""
    hidden: tuple[tuple[int, int], ...] = ()
    """Spans [lo, hi) of frames in which what is swapped is out of sight."""
    truth: str = ""
    """File with the true states, where there is one."""
    actions: np.ndarray | None = None
    """Logged actions float32 ``[count, a]``: entry t leads from frame t to t + 1."""
    tags: dict[str, Any] = field(default_factory=dict)
    """More facts, by name: for strata."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """A possible and an impossible video to compare."""

    group: str
    possible: str
    impossible: str
    match: Match = "prefix"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A file or group that was left out, and why."""

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class VoeSet:
    """A violation-of-expectation set, as read."""

    name: str
    """Layout: tubelet, intphys, grasp, inflevel, intphys2, physical-concepts, …"""
    videos: tuple[VoeVideo, ...]
    pairs: tuple[Pair, ...] = ()
    refused: tuple[Refused, ...] = ()

    def __post_init__(self) -> None:
        if not self.videos:
            reasons = "; ".join(f"{r.what}: {r.reason}" for r in self.refused[:3])
            raise DatasetError(f"no usable video in this {self.name} set. {reasons}".rstrip())
        twice = [name for name, n in Counter(v.name for v in self.videos).items() if n > 1]
        if twice:
            raise DatasetError(f"two videos are called {twice[0]!r}")
        by_name = {video.name: video for video in self.videos}
        for pair in self.pairs:
            for name, wanted in ((pair.possible, True), (pair.impossible, False)):
                video = by_name.get(name)
                if video is None or video.possible is not wanted or video.group != pair.group:
                    found = "missing" if video is None else f"labelled {video.possible}"
                    raise DatasetError(
                        f"pair of group {pair.group}: {name!r} should be a "
                        f"{'possible' if wanted else 'impossible'} video of it and is {found}"
                    )

    def groups(self) -> dict[str, list[VoeVideo]]:
        """Videos by group, in order."""
        found: dict[str, list[VoeVideo]] = {}
        for video in self.videos:
            found.setdefault(video.group, []).append(video)
        return found

    def select(
        self, *, splits: Sequence[str] = (), kinds: Sequence[str] = (), groups: int = 0
    ) -> VoeSet:
        """The groups whose videos are all of these splits and kinds (empty: any), the first
        ``groups`` of each principle and condition (0: all).

        Raises DatasetError if none is left.
        """
        kept, counts = set(), Counter()
        for name, videos in self.groups().items():
            right = all(
                (not splits or v.split in splits) and (not kinds or v.kind in kinds) for v in videos
            )
            cell = (videos[0].kind, videos[0].principle, videos[0].condition)
            if right and (not groups or counts[cell] < groups):
                counts[cell] += 1
                kept.add(name)
        if not kept:
            have = sorted({f"{v.split}/{v.kind}" for v in self.videos})
            raise DatasetError(
                f"no group of splits {list(splits)} and kinds {list(kinds)}; the set has "
                f"{', '.join(have)}"
            )
        return replace(
            self,
            videos=tuple(v for v in self.videos if v.group in kept),
            pairs=tuple(p for p in self.pairs if p.group in kept),
        )

    def report(self) -> str:
        """How many videos, groups and pairs, and every refusal with its reason."""
        unlabelled = sum(video.possible is None for video in self.videos)
        lines = [
            f"{self.name}: {len(self.videos)} videos in {len(self.groups())} groups, "
            f"{len(self.pairs)} pairs, {unlabelled} videos without a label, "
            f"{len(self.refused)} refused"
        ]
        return "\n".join([*lines, *(f"  refused {r.what}: {r.reason}" for r in self.refused)])


def uniform(videos: Sequence[VoeVideo]) -> str:
    """Why these videos of one group cannot be compared; empty if they can."""
    lengths = {video.frames.count - video.first for video in videos}
    sizes = {video.frames.size for video in videos}
    if len(lengths) > 1:
        return f"its videos have unequal lengths: {sorted(lengths)} frames"
    if len(sizes) > 1:
        return f"its videos have unequal frame sizes: {sorted(sizes)}"
    codings = {_coding(video.frames) for video in videos}
    if len(codings) > 1:
        return f"its videos are coded differently, one was encoded again: {sorted(codings)}"
    return ""


def _coding(frames: Frames) -> str:
    """Codec, depth and frame rate of a video file; empty for other sources."""
    info = getattr(frames, "info", None)
    return "" if info is None else f"{info.codec}, {info.bits} bits, {info.fps:.3f} fps"
