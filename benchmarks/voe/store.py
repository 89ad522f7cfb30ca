"""What a scoring run keeps, so that every number can be computed again without a model.

RUN/set.json              videos, pairs, refusals, and the window config
    windows.npy           int64 [videos, windows]: equal numbers, equal windows; 0: no window
    losses/<scorer>.npy   float32 [videos, contexts, windows, steps], NaN: not predicted
    losses/<scorer>.json  its name, role and step
    tokens/<group>.npz    frames and token losses of single groups, for films
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ...core.config import from_table
from ...core.errors import DatasetError, TubeletError
from ...core.io import atomic_path, atomic_write_json
from ...datasets.voe.record import Pair, Refused, VoeSet, VoeVideo
from .surprise import Scorer, group_losses
from .windows import WindowConfig, sampled, starts

Role = Literal["model", "untrained", "baseline", "ceiling"]
KEPT = (
    *("name", "group", "possible", "principle", "condition", "kind", "split", "fps", "first"),
    *("t_event", "t_observable", "bridge", "hidden"),
)
"""What is kept of each video, beside the number of its frames."""


@dataclass(frozen=True, kw_only=True)
class VideoFacts:
    """A video of a stored run; as :class:`VoeVideo`, without frames."""

    name: str
    group: str
    possible: bool | None
    principle: str
    condition: str
    kind: str
    split: str
    fps: float
    first: int
    t_event: int | None
    t_observable: int | None
    bridge: int | None
    hidden: tuple[tuple[int, int], ...]
    frames: int


@dataclass(frozen=True, kw_only=True)
class VoeRun:
    """A stored run, read back."""

    path: Path
    layout: str
    config: WindowConfig
    videos: tuple[VideoFacts, ...]
    pairs: tuple[Pair, ...]
    refused: tuple[Refused, ...]
    ids: np.ndarray
    """int64 [videos, windows]"""
    scorers: dict[str, dict[str, Any]]
    """Name -> role, step, file."""

    @property
    def index(self) -> dict[str, int]:
        """Row of each video."""
        return {video.name: row for row, video in enumerate(self.videos)}

    def losses(self, scorer: str) -> np.ndarray:
        """float32 [videos, contexts, windows, steps], mapped from the file."""
        if scorer not in self.scorers:
            raise TubeletError(
                f"{self.path} has no losses of {scorer!r}: {', '.join(self.scorers)}"
            )
        return np.load(self.path / "losses" / self.scorers[scorer]["file"], mmap_mode="r")

    def of_role(self, role: Role) -> list[str]:
        """Names of the scorers of a role."""
        return [name for name, facts in self.scorers.items() if facts["role"] == role]

    def select(self, *, splits: Sequence[str] = (), kinds: Sequence[str] = ()) -> VoeRun:
        """The same run with the pairs of these splits and kinds only (empty: any)."""
        right = {
            v.group
            for v in self.videos
            if (not splits or v.split in splits) and (not kinds or v.kind in kinds)
        }
        return replace(self, pairs=tuple(p for p in self.pairs if p.group in right))


def open_run(path: Path) -> VoeRun:
    """Read a stored run back. Raises TubeletError if there is none, or a damaged one."""
    try:
        about = json.loads((path / "set.json").read_text(encoding="utf-8"))
        ids = np.load(path / "windows.npy", allow_pickle=False)
        scorers = {}
        for file in sorted((path / "losses").glob("*.json")):
            facts = json.loads(file.read_text(encoding="utf-8"))
            scorers[facts["name"]] = facts
        videos = tuple(
            VideoFacts(**{**v, "hidden": tuple(map(tuple, v["hidden"]))}) for v in about["videos"]
        )
        return VoeRun(
            path=path,
            layout=about["layout"],
            config=from_table(WindowConfig, about["windows"]),
            videos=videos,
            pairs=tuple(Pair(**p) for p in about["pairs"]),
            refused=tuple(Refused(**r) for r in about["refused"]),
            ids=ids,
            scorers=scorers,
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TubeletError(
            f"{path} holds no finished scoring run ({error!r}): run `tubelet voe score`"
        ) from error


def readable(voe: VoeSet, scorer: Scorer, config: WindowConfig, path: Path, batch: int) -> VoeSet:
    """Score every group with ``scorer`` and keep its losses; groups that cannot be read or scored
    are taken out and listed. Writes ``windows.npy`` and ``set.json``.

    Raises:
        DatasetError: no group is left.
    """
    bad: dict[str, str] = {}
    for group, videos in voe.groups().items():
        try:
            for video in videos:
                sampled(video, config)
        except DatasetError as error:
            bad[group] = str(error)
    voe = _without(voe, bad)
    bad = write_losses(voe, scorer, config, path, batch, role="baseline", with_ids=True)
    if bad:  # rows of groups that turned out damaged are dropped from what was written
        rows = [row for row, video in enumerate(voe.videos) if video.group not in bad]
        for file in (path / "windows.npy", *sorted((path / "losses").glob("*.npy"))):
            kept = np.load(file, mmap_mode="r")[rows]
            with atomic_path(file) as temporary, open(temporary, "wb") as out:
                np.save(out, kept)
        voe = _without(voe, bad)
    videos = [
        {**{key: getattr(v, key) for key in KEPT}, "frames": v.frames.count} for v in voe.videos
    ]
    about = {
        "layout": voe.name,
        "windows": asdict(config),
        "videos": videos,
        "pairs": [asdict(pair) for pair in voe.pairs],
        "refused": [asdict(refused) for refused in voe.refused],
    }
    atomic_write_json(path / "set.json", about)
    return voe


def write_losses(
    voe: VoeSet,
    scorer: Scorer,
    config: WindowConfig,
    path: Path,
    batch: int,
    *,
    role: Role,
    with_ids: bool = False,
) -> dict[str, str]:
    """Score all groups, one in memory at a time, and write one file per name of the scorer.

    Returns:
        groups that could not be scored, with the reason; empty, unless ``with_ids``.

    Raises:
        DatasetError: a group that cannot be scored, without ``with_ids``.
    """
    folder = path / "losses"
    folder.mkdir(parents=True, exist_ok=True)
    most = max(len(starts(len(sampled(v, config)), config)) for v in voe.videos)
    shape = (len(voe.videos), len(config.contexts), most, config.window // scorer.step)
    parts = [folder / f".{_slug(name)}.part" for name in scorer.names]
    ids = np.zeros((len(voe.videos), most), np.int64)
    bad: dict[str, str] = {}
    for part in parts:  # NaN is what a group that was refused keeps
        np.lib.format.open_memmap(part, "w+", np.float32, shape)[:] = np.nan
    row = 0
    for group, videos in voe.groups().items():
        rows = slice(row, row + len(videos))
        row = rows.stop
        try:
            found = group_losses(videos, scorer, config, batch=batch)
        except DatasetError as error:
            if not with_ids:
                raise
            bad[group] = str(error)
            continue
        count = found.ids.shape[1]
        ids[rows, :count] = found.ids
        for part, losses in zip(parts, found.losses, strict=True):
            # opened anew for each group: pages of a map that stays open stay in memory
            np.load(part, mmap_mode="r+")[rows, :, :count] = losses
    if with_ids:
        with atomic_path(path / "windows.npy") as temporary, open(temporary, "wb") as out:
            np.save(out, ids)
    for name, part in zip(scorer.names, parts, strict=True):
        part.replace(folder / f"{_slug(name)}.npy")
        facts = {"name": name, "role": role, "step": scorer.step, "file": f"{_slug(name)}.npy"}
        facts["role"] = role if name == scorer.names[0] else "baseline"
        atomic_write_json(folder / f"{_slug(name)}.json", facts)
    return bad


def has_losses(path: Path, name: str) -> bool:
    """Whether the losses of a scorer were written."""
    return (path / "losses" / f"{_slug(name)}.json").exists()


def _without(voe: VoeSet, bad: dict[str, str]) -> VoeSet:
    if not bad:
        return voe
    more = tuple(Refused(what=f"group {g}", reason=why) for g, why in bad.items())
    return replace(
        voe,
        videos=tuple(v for v in voe.videos if v.group not in bad),
        pairs=tuple(p for p in voe.pairs if p.group not in bad),
        refused=(*voe.refused, *more),
    )


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def grouped(videos: Sequence[VoeVideo]) -> tuple[VoeVideo, ...]:
    """The videos with each group's in one run, groups by first appearance."""
    order: dict[str, list[VoeVideo]] = {}
    for video in videos:
        order.setdefault(video.group, []).append(video)
    return tuple(video for members in order.values() for video in members)
