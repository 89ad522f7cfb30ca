"""GRASP level 2 (Jassim et al., arXiv 2311.09048): ``{P_,IP_}<Property>/000.mp4`` …, by name.

Pairs are two renders of one seed, not equal up to an event, and their videos are compressed with
loss: a property needs a baseline beside it, not 50 %.
"""

from __future__ import annotations

from pathlib import Path

from ...core.errors import DatasetError
from .frames import VideoFrames
from .record import Pair, Refused, VoeSet, VoeVideo, uniform

CONCEPTS = {
    "Collision": ("collision",),
    "Continuity": ("continuity",),
    "Gravity": ("gravity",),
    "GravityContinuity": ("gravity", "continuity"),
    "GravityInertia": ("gravity", "inertia"),
    "GravitySupport": ("gravity", "support"),
    "Inertia": ("inertia",),
    "ObjectPermanence": ("permanence",),
    "SolidityContinuity": ("solidity", "continuity"),
    "Unchangeableness": ("colour",),
}
"""Property, without its number -> what it tests. A property counts under each."""


def read_grasp(root: Path) -> VoeSet:
    """Read the folder ``level2``.

    Raises:
        DatasetError: no property folder, or nothing usable.
    """
    root = root / "level2" if (root / "level2").is_dir() else root
    names = sorted({p.name.split("_", 1)[1] for k in ("P", "IP") for p in root.glob(f"{k}_*")})
    if not names:
        raise DatasetError(f"{root} has no folders P_<Property> and IP_<Property>")
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for prop in names:
        files = {
            path.name for kind in ("P", "IP") for path in (root / f"{kind}_{prop}").glob("*.mp4")
        }
        for file in sorted(files):
            group = f"{prop}/{Path(file).stem}"
            try:
                pair = [_video(root, kind, prop, file, group) for kind in ("P", "IP")]
                reason = uniform(pair)
            except DatasetError as error:
                pair, reason = [], str(error)
            if reason:
                refused.append(Refused(what=group, reason=reason))
                continue
            videos += pair
            pairs.append(
                Pair(group=group, possible=pair[0].name, impossible=pair[1].name, match="all")
            )
    return VoeSet(name="grasp", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused))


def _video(root: Path, kind: str, prop: str, file: str, group: str) -> VoeVideo:
    path = root / f"{kind}_{prop}" / file
    if not path.exists():
        raise DatasetError(f"{kind}_{prop}/{file} is missing: the pair has one video only")
    frames = VideoFrames.of(path)
    return VoeVideo(
        name=f"{kind}_{prop}/{Path(file).stem}",
        group=group,
        frames=frames,
        possible=kind == "P",
        principle=prop,
        fps=frames.info.fps,
        tags={"concepts": list(CONCEPTS.get(prop.rstrip("0123456789"), ()))},
    )
