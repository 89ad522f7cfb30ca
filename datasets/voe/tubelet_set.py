"""Sets that ``tubelet voe generate`` writes (layout: :mod:`tubelet.envs.physics`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...core.errors import DatasetError
from .frames import NpyFrames
from .record import Match, Pair, Refused, VoeSet, VoeVideo, uniform


def read_tubelet(root: Path, part: str = "probe") -> VoeSet:
    """Read the part ``probe`` or ``train``.

    Raises:
        DatasetError: no finished set, of another version, or nothing usable in it.
    """
    about = _json(root / "dataset.json")
    if about.get("format") != "tubelet-voe" or about.get("version") != 1:
        raise DatasetError(
            f"{root / 'dataset.json'}: format {about.get('format')!r} version "
            f"{about.get('version')!r}; this reads tubelet-voe version 1"
        )
    refused: list[Refused] = []
    groups: dict[str, list[tuple[VoeVideo, dict[str, Any]]]] = {}
    for line in _lines(root / part / "labels.jsonl"):
        try:
            video = _video(root / part, line, float(about.get("fps", 0)))
        except (DatasetError, KeyError, TypeError, ValueError) as error:
            reason = f"no {error}" if isinstance(error, KeyError) else str(error)
            refused.append(Refused(what=str(line.get("video")), reason=reason))
            continue
        groups.setdefault(video.group, []).append((video, line))
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    wanted = 4 if part == "probe" else 1
    for name, members in groups.items():
        reason = uniform([video for video, _ in members])
        if len(members) != wanted:
            reason = f"{len(members)} of {wanted} videos are usable"
        if reason:
            refused.append(Refused(what=f"group {name}", reason=reason))
            continue
        videos += [video for video, _ in members]
        pairs += _pairs(members)
    return VoeSet(name="tubelet", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused))


def _video(folder: Path, line: dict[str, Any], fps: float) -> VoeVideo:
    name = str(line["video"])
    role = line["role"]
    if role not in ("possible", "impossible"):
        raise DatasetError(f"role {role!r} is neither possible nor impossible")
    frames = NpyFrames.of(folder / "videos" / f"{name}.npy")
    truth = folder / "truth" / f"{name}.npz"
    return VoeVideo(
        name=name,
        group=str(line["group"]),
        frames=frames,
        possible=role == "possible",
        principle=line["principle"],
        condition=line.get("condition") or "",
        kind=line["kind"],
        split=line["split"],
        fps=fps,
        t_event=line.get("t_event"),
        t_observable=line.get("t_observable"),
        bridge=line.get("bridge"),
        hidden=tuple((int(lo), int(hi)) for lo, hi in line.get("hidden") or ()),
        truth=str(truth) if truth.exists() else "",
        tags={
            key: line.get(key)
            for key in ("variant", "design", "recipe", "slot", "gap", "copy_friendly", "surprising")
        }
        | {"things": line.get("things") or [], "axes": line.get("axes") or {}},
    )


def _pairs(members: list[tuple[VoeVideo, dict[str, Any]]]) -> list[Pair]:
    names = {video.name for video, _ in members}
    found = []
    for video, line in members:
        twins: dict[Match, Any] = {m: line.get(f"{m}_twin") for m in ("prefix", "suffix")}
        for match, twin in twins.items():
            if video.possible is False and twin in names:
                found.append(
                    Pair(group=video.group, possible=twin, impossible=video.name, match=match)
                )
    return found


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}; is the set finished?") from error
    if not isinstance(found, dict):
        raise DatasetError(f"{path} is no JSON object")
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    try:
        text = path.read_text(encoding="utf-8")
        return [json.loads(line) for line in text.splitlines() if line]
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
