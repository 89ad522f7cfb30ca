"""InfLevel-lab (Weihs et al., 2022): real videos, judged by all comparisons within a group.

    ROOT/{continuity,gravity,solidity}/<camera>__<category>__<cover>__<object>__<trial>[__LR|RL].mp4

Trials of continuity: vv and ii are possible, vi and iv impossible; of gravity and solidity: ui and
cv possible, uv and ci impossible. For the last two the evidence (is the cover open?) is in the
priming at the start, so that videos are read whole: a window that does not reach back to it cannot
tell. Lengths differ within groups; the leading frames of longer videos are left out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

from ...core.errors import DatasetError
from .frames import VideoFrames
from .record import Pair, Refused, VoeSet, VoeVideo, uniform

POSSIBLE = {"vv": True, "ii": True, "vi": False, "iv": False}
COVERED = {"ui": True, "cv": True, "uv": False, "ci": False}
TRIALS = {"continuity": POSSIBLE, "gravity": COVERED, "solidity": COVERED}


def read_inflevel(root: Path) -> VoeSet:
    """Read the folder ``inflevel_lab``.

    Raises:
        DatasetError: none of the three folders, or nothing usable.
    """
    root = root / "inflevel_lab" if (root / "inflevel_lab").is_dir() else root
    groups: dict[str, list[VoeVideo]] = {}
    refused: list[Refused] = []
    for principle in TRIALS:
        for path in sorted((root / principle).glob("*.mp4")):
            try:
                video = _video(path, principle)
            except DatasetError as error:
                refused.append(Refused(what=f"{principle}/{path.name}", reason=str(error)))
                continue
            groups.setdefault(video.group, []).append(video)
    if not groups and not refused:
        raise DatasetError(f"{root} has no videos in {', '.join(TRIALS)}")
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    for name, members in groups.items():
        counts = Counter(video.tags["trial"] for video in members)
        wanted = TRIALS[members[0].principle]
        shortest = min(video.frames.count for video in members)
        members = [replace(v, first=v.frames.count - shortest) for v in members]
        reason = uniform(members)
        if counts != Counter(list(wanted)):
            reason = f"trials {dict(counts)} instead of one each of {', '.join(wanted)}"
        if reason:
            refused.append(Refused(what=name, reason=reason))
            continue
        videos += members
        pairs += [
            Pair(group=name, possible=p.name, impossible=i.name, match="all")
            for p in members
            for i in members
            if p.possible is True and i.possible is False
        ]
    return VoeSet(name="inflevel", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused))


def _video(path: Path, principle: str) -> VoeVideo:
    parts = path.stem.split("__")
    if len(parts) not in (5, 6) or parts[4] not in TRIALS[principle]:
        raise DatasetError(
            "the name is not <camera>__<category>__<cover>__<object>__<trial>[__LR|RL] with a "
            f"trial of {', '.join(TRIALS[principle])}"
        )
    camera, category, cover, thing, trial = parts[:5]
    direction = parts[5] if len(parts) == 6 else ""
    frames = VideoFrames.of(path)
    return VoeVideo(
        name=f"{principle}/{path.stem}",
        group="/".join([principle, camera, cover, thing, direction]).rstrip("/"),
        frames=frames,
        possible=TRIALS[principle][trial],
        principle=principle,
        fps=frames.info.fps,
        tags={"trial": trial, "category": category, "camera": camera},
    )
