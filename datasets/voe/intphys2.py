"""IntPhys 2 (Bordes et al., arXiv 2506.09849): as released, and as its prediction evaluation wants.

    ROOT/metadata.csv + Videos/<file>.mp4            Debug, Main; HeldOut (without labels)
    ROOT/labels.csv   + Images/<video>/*.png         one folder of frames per video

A scene has four videos, two pairs of a possible and an impossible one; in Debug every video was
rendered three times, and each rendering is a group here.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from pathlib import Path

from ...core.errors import DatasetError
from .frames import Frames, ListedFrames, VideoFrames
from .record import Pair, Refused, VoeSet, VoeVideo, uniform

TYPES = ("1_Possible", "1_Impossible", "2_Possible", "2_Impossible")


def read_intphys2(root: Path) -> VoeSet:
    """Read Debug, Main or HeldOut.

    Raises:
        DatasetError: no table of videos, a table without the needed columns, or nothing usable.
    """
    rows = _rows(root)
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for group, members in _groups(rows).items():
        found, faults = {}, []
        for kind, row in members:
            try:
                found[kind or row["file"]] = _video(root, group, row, kind)
            except DatasetError as error:
                faults.append(Refused(what=row["file"], reason=str(error)))
        labelled = [kind for kind, _ in members if kind]
        reason = uniform(list(found.values()))
        if faults or len(found) != 4 or (labelled and set(labelled) != set(TYPES)):
            types = sorted(found) if labelled else f"{len(found)} videos"
            reason = f"not four usable videos, one of each type: {types}"
        if reason:
            refused += [*faults, Refused(what=f"scene {group}", reason=reason)]
            continue
        videos += found.values()
        if labelled:
            pairs += [
                Pair(
                    group=group,
                    possible=found[f"{n}_Possible"].name,
                    impossible=found[f"{n}_Impossible"].name,
                    match="all",
                )
                for n in "12"
            ]
    return VoeSet(name="intphys2", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused))


def _rows(root: Path) -> list[dict[str, str]]:
    table = next((root / n for n in ("metadata.csv", "labels.csv") if (root / n).exists()), None)
    if table is None:
        raise DatasetError(f"{root} has neither metadata.csv nor labels.csv")
    with open(table, newline="", encoding="utf-8") as file:
        rows = [{k: v or "" for k, v in row.items() if k} for row in csv.DictReader(file)]
    for row in rows:
        row["file"] = row.get("file_name") or row.get("filename") or ""
        if not row["file"] or not row.get("SceneIndex"):
            raise DatasetError(f"{table}: a row names no file or no SceneIndex: {row}")
    return rows


def _groups(rows: list[dict[str, str]]) -> dict[str, list[tuple[str, dict[str, str]]]]:
    """Rows by scene and rendering, each with its type (empty: no label)."""
    times: dict[tuple[str, str], int] = defaultdict(int)
    groups: dict[str, list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for row in rows:
        kind, scene = row.get("type", ""), row["SceneIndex"]
        if kind and kind not in TYPES:
            raise DatasetError(f"{row['file']}: type {kind!r} is none of {', '.join(TYPES)}")
        number = times[scene, kind] if kind else times[scene, kind] // 4
        times[scene, kind] += 1
        groups[scene if number == 0 else f"{scene}.{number}"].append((kind, row))
    return groups


def _video(root: Path, group: str, row: dict[str, str], kind: str) -> VoeVideo:
    file = Path(row["file"])
    if ".." in file.parts or file.is_absolute():
        raise DatasetError("the path leaves the folder")
    folder = root / "Images" / file.stem
    frames: Frames
    if folder.is_dir():
        frames = ListedFrames.of(folder)
    else:
        inside = root / file if file.parts[0] == "Videos" else root / "Videos" / file
        frames = VideoFrames.of(inside)
    return VoeVideo(
        name=file.stem,
        group=group,
        frames=frames,
        possible=kind.endswith("_Possible") if kind else None,
        principle=row.get("condition", ""),
        condition=row.get("Difficulty", ""),
        split=root.name.lower(),
        fps=60.0,
        tags={key: row.get(key, "") for key in ("env", "occluder", "Camera", "game_name")},
    )
