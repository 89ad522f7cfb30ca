"""Draw a plan, measure it, and reject what breaks a rule of exactness.

The rules: bridges of a splice are byte-equal and as long as asked; nothing that differs between the
tracks shows in them, with two pixels to spare at the cut; what tells A from B shows in at least
``SHOWN_PX`` pixels in ``SHOWN_FRAMES`` frames before the first cut and after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .assets import Rejected
from .draw import Painter
from .plan import SAME, Ask, Plan
from .track import Track, runs

MARGIN_PX = 2
SHOWN_PX = 20
SHOWN_FRAMES = 8


@dataclass(frozen=True)
class Drawn:
    """A quadruplet that keeps the rules.

    Attributes:
        frames: uint8 [T, H, W, 3] by recipe. tracks: by recipe. visible: int32 [T, N] by recipe.
        facts: what labels.jsonl says about the whole group. hidden: intervals by recipe.
        observable: by recipe, the first frame that differs from the prefix twin's.
    """

    frames: dict[str, np.ndarray]
    tracks: dict[str, Track]
    visible: dict[str, np.ndarray]
    facts: dict[str, Any]
    hidden: dict[str, list[tuple[int, int]]]
    observable: dict[str, int | None]


def draw(ask: Ask, plan: Plan, *, shadows: bool = False) -> Drawn:
    """The four videos of ``plan``, measured.

    Args:
        shadows: draw with shadow maps and skip the rules, for tests of the checks.

    Raises:
        Rejected: a rule is broken.
    """
    painter = Painter(plan.xml(shadows=shadows), plan.names, ask.size)
    sources = [*plan.tracks.values()]
    frames = dict(zip(plan.tracks, painter.frames(sources), strict=True))
    owners = dict(zip(plan.tracks, painter.owners(sources), strict=True))
    if plan.design == "splice":
        facts, plan = _splice_facts(ask, plan, painter, frames, owners, strict=not shadows)
    elif plan.design == "factorial":
        facts = {"cuts": [], "bridge": None, "chance_window": 0, "gap": 1}
    else:
        facts = {"cuts": [], "bridge": None, "chance_window": 0, "gap": None}
        facts |= {"t_event": None, "t_observable": None, "swapped": []}
        if "1x" in plan.tracks:
            facts |= _pair_facts(plan, frames)
    tracks = plan.all_tracks()
    pictures = dict(zip(tracks, painter.frames([*tracks.values()]), strict=True))
    maps = dict(zip(tracks, painter.owners([*tracks.values()]), strict=True))
    if plan.design == "factorial":
        facts |= _factorial_facts(ask, plan, tracks, pictures, strict=not shadows)
    visible = {name: _count(owner, len(plan.things)) for name, owner in maps.items()}
    facts["copy_friendly"] = _copy_friendly(plan, pictures, facts["t_observable"])
    size = _object_px(plan, visible)
    facts["checks"] = facts.get("checks", {}) | {
        "penetration": round(plan.penetration, 5),
        "object_px": size,
    }
    hidden = {name: _hidden(plan, tracks[name], visible[name], facts["swapped"]) for name in tracks}
    observable = {name: _observable(name, pictures) for name in tracks}
    return Drawn(pictures, tracks, visible, facts, hidden, observable)


def equal_frames(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """bool [T]: which frames of two videos uint8 [T, H, W, 3] are equal byte for byte."""
    return (a == b).reshape(len(a), -1).all(1)


def differing(a: Track, b: Track, same: float = SAME) -> np.ndarray:
    """bool [T, N]: which things are in different states in two tracks, by more than ``same``."""
    moved = np.abs(a.pose - b.pose).max(-1) > same
    return (a.present != b.present) | (moved & a.present & b.present)


def bridge_at(equal: np.ndarray, cut: int) -> tuple[int, int]:
    """The run of equal frames that holds frame ``cut`` or ends there; (cut, cut) without one."""
    for lo, hi in runs(equal):
        if lo <= cut <= hi:
            return lo, hi
    return cut, cut


def _splice_facts(
    ask: Ask,
    plan: Plan,
    painter: Painter,
    frames: dict[str, np.ndarray],
    owners: dict[str, np.ndarray],
    *,
    strict: bool,
) -> tuple[dict[str, Any], Plan]:
    a, b = plan.tracks["A"], plan.tracks["B"]
    equal, differ = equal_frames(frames["A"], frames["B"]), differing(a, b)
    if not plan.cuts:  # a null quadruplet: the "impossible" videos are copies
        none = {"cuts": [], "bridge": ask.frames, "chance_window": ask.frames, "gap": None}
        return none | {"t_event": None, "t_observable": None, "swapped": []}, plan
    margins = _margins(plan, painter, owners, differ)
    cuts, bridges = [], []
    for cut in plan.cuts:
        lo, hi = bridge_at(equal, cut)
        cuts.append(lo + int(np.argmax(margins[lo:hi])) if ask.occluded and hi > lo else cut)
        bridges.append((lo, hi))
    lengths = [hi - lo for lo, hi in bridges]
    if strict:
        if plan.exact and (lengths[0] != ask.bridge or min(lengths) < ask.bridge - 1):
            raise Rejected(f"bridges of {lengths} frames instead of {ask.bridge}")
        if ask.occluded and min(lengths) < 1:
            raise Rejected("no frame in which everything that differs is hidden")
        if len(set(bridges)) < len(bridges):
            raise Rejected("two cuts in one bridge")
        _hidden_in_bridges(ask, plan, owners, differ, margins, cuts, bridges)
        _shown(frames["A"], frames["B"], slice(0, bridges[0][0]), "before the event")
        _shown(frames["A"], frames["B"], slice(bridges[-1][1], None), "after the event")
    names = [plan.names[n] for n in np.flatnonzero(differ.any(0))]
    margin = min(float(margins[cut]) for cut in cuts) if ask.occluded else None
    facts = {
        "cuts": [
            {"frame": cut, "bridge": list(bridge), "length": bridge[1] - bridge[0]}
            for cut, bridge in zip(cuts, bridges, strict=True)
        ],
        "bridge": min(lengths),
        "chance_window": min(lengths) + 1,
        "gap": min(lengths) + 1,
        "t_event": cuts[0],
        "t_observable": bridges[0][1],
        "swapped": names,
        "checks": {"margin_px": margin},
    }
    moved = Plan(**{**vars(plan), "cuts": tuple(cuts)})
    return facts, moved


def _margins(
    plan: Plan, painter: Painter, owners: dict[str, np.ndarray], differ: np.ndarray
) -> np.ndarray:
    """How many pixels (0 to 4) the outlines of what differs are inside occluders: float [T].

    4 where nothing differs, -1 where something of it shows.
    """
    occluders = [
        n for n, thing in enumerate(plan.things) if thing.kind in ("occluder", "container")
    ]
    margins = np.full(len(differ), 4.0)
    for name, track in plan.tracks.items():
        bare = track.present.copy()
        bare[:, occluders] = False
        outlines = painter.owners([Track(track.pose, bare, track.camera, track.light)])[0]
        for t in np.flatnonzero(differ.any(1)):
            mine = [n for n in np.flatnonzero(differ[t]) if n not in occluders]
            outline = np.isin(outlines[t], mine)
            cover = np.isin(owners[name][t], occluders)
            margins[t] = min(margins[t], _inside(outline, cover))
    return margins


def _inside(outline: np.ndarray, cover: np.ndarray) -> float:
    """The largest dilation (pixels, at most 4) of ``outline`` within ``cover``; -1: none."""
    grown, reach = outline, -1
    while reach < 4 and not (grown & ~cover).any():
        reach += 1
        padded = np.pad(grown, 1)
        grown = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1]
        grown |= padded[1:-1, :-2] | padded[1:-1, 2:]
    return float(reach)


def _hidden_in_bridges(
    ask: Ask,
    plan: Plan,
    owners: dict[str, np.ndarray],
    differ: np.ndarray,
    margins: np.ndarray,
    cuts: list[int],
    bridges: list[tuple[int, int]],
) -> None:
    for cut, (lo, hi) in zip(cuts, bridges, strict=True):
        for t in range(lo, hi):
            for owner in owners.values():
                if np.isin(owner[t], np.flatnonzero(differ[t])).any():
                    raise Rejected("something that differs shows in a bridge")
        if ask.occluded and margins[cut] < MARGIN_PX:
            raise Rejected(f"less than {MARGIN_PX} pixels to spare at the cut")


def _shown(a: np.ndarray, b: np.ndarray, when: slice, where: str) -> None:
    pixels = (a[when] != b[when]).any(-1).sum((1, 2))
    if (pixels >= SHOWN_PX).sum() < SHOWN_FRAMES:
        raise Rejected(f"the difference shows too little {where}")


def _pair_facts(plan: Plan, frames: dict[str, np.ndarray]) -> dict[str, Any]:
    """Both impossible videos depart from their possible twins in the same frames."""
    apart = np.flatnonzero(differing(plan.tracks["1"], plan.tracks["1x"]).any(1))
    seen = np.flatnonzero(~equal_frames(frames["1"], frames["1x"]))
    if len(seen) < 3:
        raise Rejected("the gap shows the object in fewer than 3 frames")
    return {"t_event": int(apart[0]), "t_observable": int(seen[0]), "swapped": ["target"]}


def _factorial_facts(
    ask: Ask, plan: Plan, tracks: dict[str, Track], frames: dict[str, np.ndarray], *, strict: bool
) -> dict[str, Any]:
    apart = np.flatnonzero(differing(tracks["11"], tracks["12"], 0.0).any(1))
    if not len(apart):
        raise Rejected("both outcomes are the same")
    event = int(apart[0])
    seen = ~equal_frames(frames["11"], frames["12"]) | ~equal_frames(frames["22"], frames["21"])
    if strict:
        for one, two in (("11", "12"), ("22", "21")):
            _shown(frames[one], frames[two], slice(event, None), "after the event")
        for one, two in (("11", "21"), ("22", "12")):
            _shown(frames[one], frames[two], slice(0, event), "before the event")
    return {
        "t_event": event,
        "t_observable": int(np.flatnonzero(seen)[0]) if seen.any() else None,
        "swapped": list(plan.context),
    }


TWINS = {
    "AB": ("A", "B"),
    "BA": ("B", "A"),
    "A": ("AB", "BA"),
    "B": ("BA", "AB"),
    "12": ("11", "22"),
    "21": ("22", "11"),
    "11": ("12", "21"),
    "22": ("21", "12"),
    "1": ("1x", "1x"),
    "1x": ("1", "1"),
    "2": ("2x", "2x"),
    "2x": ("2", "2"),
}
"""(prefix twin, suffix twin) of each recipe."""


def _copy_friendly(
    plan: Plan, frames: dict[str, np.ndarray], observable: int | None
) -> bool | None:
    """Is the last informative frame closer to what follows in the possible twin, in both pairs?"""
    if observable is None or plan.design == "none":
        return None
    pairs = [("A", "AB"), ("B", "BA")] if plan.design == "splice" else [("11", "12"), ("22", "21")]
    if plan.design == "splice":
        seen = np.flatnonzero(~equal_frames(frames["A"], frames["B"])[:observable])
    else:
        seen = np.arange(observable)
    if not len(seen):
        return False
    after = slice(observable, observable + SHOWN_FRAMES)
    errors = [
        [np.abs(frames[n][after].astype(float) - frames[n][seen[-1]]).mean() for n in pair]
        for pair in pairs
    ]
    return all(possible < impossible for possible, impossible in errors)


def _observable(recipe: str, frames: dict[str, np.ndarray]) -> int | None:
    """The first frame in which a video differs from its prefix twin, if it does."""
    if recipe not in TWINS or TWINS[recipe][0] not in frames:
        return None
    apart = np.flatnonzero(~equal_frames(frames[recipe], frames[TWINS[recipe][0]]))
    return int(apart[0]) if len(apart) else None


def _count(owners: np.ndarray, things: int) -> np.ndarray:
    return np.stack([(owners == n).sum((1, 2)) for n in range(things)], axis=1).astype(np.int32)


def _object_px(plan: Plan, visible: dict[str, np.ndarray]) -> float:
    """The diameter in pixels of the disc as large as the first object at its largest."""
    first = next((n for n, thing in enumerate(plan.things) if thing.kind == "object"), None)
    if first is None:
        return 0.0
    area = max(int(v[:, first].max()) for v in visible.values())
    return round(float(2 * np.sqrt(area / np.pi)), 1)


def _hidden(
    plan: Plan, track: Track, visible: np.ndarray, swapped: list[str]
) -> list[tuple[int, int]]:
    mine = [plan.names.index(name) for name in swapped]
    there = track.present[:, mine].any(1)
    shows = (visible[:, mine] > 0).any(1)
    return runs(np.asarray(there & ~shows))
