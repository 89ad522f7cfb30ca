"""IntPhys 2019 (Riochet et al., arXiv 1803.07616): dev and test sets, and test submissions.

    ROOT/{O1,O2,O3}/<scene>/{1,2,3,4}/scene/scene_001.png … and, in dev, status.json

O1 object permanence, O2 shape constancy, O3 continuity. Test sets have no status.json.
"""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path

from ...core.errors import DatasetError
from ...core.io import atomic_path
from .frames import ImageFrames
from .pairing import match_quadruplet
from .record import Pair, Refused, VoeSet, VoeVideo, uniform

BLOCKS = {"O1": "permanence", "O2": "shape", "O3": "continuity"}
FPS = 15.0
SIZE = (288, 288)


def read_intphys(root: Path, *, match: bool = True, size: tuple[int, int] = SIZE) -> VoeSet:
    """Read a dev or test folder.

    Args:
        match: pair the videos of labelled quadruplets, which reads their frames.
        size: what frames must measure (height, width).

    Raises:
        DatasetError: nothing usable in it.
    """
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for scene in sorted(path for block in BLOCKS for path in (root / block).glob("*")):
        group = f"{scene.parent.name}/{scene.name}"
        members, faults = [], []
        for run in "1234":
            try:
                members.append(_video(scene / run, group, size))
            except DatasetError as error:
                faults.append(Refused(what=f"{group}/{run}", reason=str(error)))
        reason = uniform(members)
        if faults:
            reason = f"{len(members)} of 4 videos are usable"
        elif not reason and len({video.possible is None for video in members}) > 1:
            reason = "some of its videos have a status.json, others have none"
        if not reason and match and members[0].possible is not None:
            found = match_quadruplet(members)
            if isinstance(found, str):
                reason = found
            else:
                pairs += found
        if reason:
            refused += [*faults, Refused(what=group, reason=reason)]
        else:
            videos += members
    if not videos and not refused:
        raise DatasetError(f"{root} has none of the folders {', '.join(BLOCKS)} with scenes")
    return VoeSet(name="intphys", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused))


def write_submission(path: Path, plausibility: Mapping[str, float]) -> None:
    """Write the zip with ``answer.txt`` that the challenge takes.

    Args:
        plausibility: video ("O1/0001/1") to a number in [0, 1], high for possible.

    Raises:
        DatasetError: a number outside [0, 1], or a quadruplet that is not complete.
    """
    for name, value in plausibility.items():
        if not 0 <= value <= 1:
            raise DatasetError(f"plausibility of {name} is {value}: it must lie in [0, 1]")
    groups = {name.rsplit("/", 1)[0] for name in plausibility}
    missing = [
        f"{g}/{run}" for g in sorted(groups) for run in "1234" if f"{g}/{run}" not in plausibility
    ]
    if missing or not plausibility:
        raise DatasetError(f"a submission needs all four videos of a scene; missing: {missing[:4]}")
    lines = [f"{name} {plausibility[name]:.9g}" for name in sorted(plausibility)]
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr(zipfile.ZipInfo("answer.txt"), "\n".join(lines) + "\n")


def _video(folder: Path, group: str, size: tuple[int, int]) -> VoeVideo:
    if not folder.is_dir():
        raise DatasetError("the folder is missing")
    frames = ImageFrames.of(folder / "scene", "scene_%03d.png")
    if frames.size != size:
        raise DatasetError(f"frames of {frames.size}, not {size} (height, width)")
    possible, tags = _label(folder / "status.json", frames.count)
    return VoeVideo(
        name=f"{group}/{folder.name}",
        group=group,
        frames=frames,
        possible=possible,
        principle=BLOCKS[group[:2]],
        split="dev" if possible is not None else "test",
        fps=FPS,
        tags=tags,
    )


def _label(path: Path, count: int) -> tuple[bool | None, dict[str, str]]:
    if not path.exists():
        return None, {}
    try:
        status = json.loads(path.read_text(encoding="utf-8"))
        header, frames = status["header"], status["frames"]
        label = header["is_possible"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"status.json has no label: {error!r}") from error
    if not isinstance(label, bool):
        raise DatasetError(f"status.json: is_possible = {label!r} is no truth value")
    if len(frames) != count:
        raise DatasetError(f"status.json tells of {len(frames)} frames, there are {count}")
    return label, {"block_name": str(header.get("block_name", ""))}
