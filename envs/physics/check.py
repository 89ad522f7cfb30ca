"""``tubelet voe check``: does only physics tell possible from impossible? Each failure has a name.

Exactness is checked in every group by comparing bytes; leaks by statistics over all groups; and a
sample of groups is drawn again from the stored states.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...core.errors import ConfigError
from ...core.io import atomic_write_json
from . import leaks
from .layout import read_lines, read_set, read_truth, read_video
from .quadruplet import MARGIN_PX, SHOWN_FRAMES, SHOWN_PX, equal_frames
from .simulate import PENETRATION

Records = list[dict[str, Any]]
EXACT = ("permanence", "shape", "colour", "identity", "occlusion")
"""Principles whose occluded bridges are as long as asked; others' follow from the motion."""


@dataclass(frozen=True, kw_only=True)
class CheckConfig:
    """Check a set of violation-of-expectation videos. Exit code 1 if anything fails."""

    data: str = "runs/voe"
    """Folder of the set."""
    redraw: int = 32
    """Groups to draw again from their stored states and compare byte for byte."""
    seed: int = 0
    """Seed of the sample, the probe's folds and the untrained encoders."""

    def __post_init__(self) -> None:
        if self.redraw < 0:
            raise ConfigError(f"redraw = {self.redraw}: must be at least 0")


@dataclass
class Report:
    """What was checked. ``failures``: messages by the name of the check; ``facts``: numbers."""

    names: list[str] = field(default_factory=list)
    failures: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Did every check pass?"""
        return not any(self.failures.values())

    def expect(self, name: str, fine: bool, message: str) -> None:
        """Record that ``name`` was checked, and the message if it is not fine."""
        if name not in self.names:
            self.names.append(name)
        if not fine:
            self.failures[name].append(message)

    def text(self) -> str:
        """A line per check, its first failures below it, and the verdict."""
        lines = []
        for name in self.names:
            wrong = self.failures.get(name, [])
            fact = self.facts.get(name)
            lines.append(f"{'FAIL' if wrong else 'ok  '}  {name}" + (f"  {fact}" if fact else ""))
            lines += [f"        {message}" for message in wrong[:3]]
            lines += [f"        and {len(wrong) - 3} more"] if len(wrong) > 3 else []
        bad = [name for name in self.names if self.failures.get(name)]
        lines.append(f"FAILED: {', '.join(bad)}" if bad else f"passed all {len(self.names)} checks")
        return "\n".join(lines)


def check(config: CheckConfig) -> Report:
    """Run every check, write the report beside the set (``check.json``), and return it.

    Raises:
        DatasetError: there is no finished set, or its tables cannot be read.
    """
    root = Path(config.data)
    told, report = read_set(root), Report()
    labels = {p: read_lines(root / p / "labels.jsonl") for p in told["videos"]}
    for part, records in labels.items():
        _files(root / part, records, told, report)
    if report.passed or not report.failures["files"]:
        groups = _groups(labels.get("probe", []))
        for records in groups.values():
            _group(root / "probe", records, told, report)
        _truth(root, labels, report)
        _leaks(root / "probe", [g for g in groups.values() if _paired(g)], config.seed, report)
        _duplicates(root, labels, report)
        _redraw(root, labels, told, config, report)
    value = {"passed": report.passed, "checks": report.names, "failures": dict(report.failures)}
    atomic_write_json(root / "check.json", value | {"facts": report.facts})
    return report


def _groups(records: Records) -> dict[str, Records]:
    groups = defaultdict(list)
    for record in records:
        groups[record["group"]].append(record)
    return dict(groups)


def _paired(records: Records) -> bool:
    return records[0]["kind"] == "probe"


def _files(folder: Path, records: Records, told: dict[str, Any], report: Report) -> None:
    """Names, sizes, time stamps and formats of the video files."""
    frames, size, names = told["frames"], told["size"], [r["video"] for r in records]
    paths = [folder / "videos" / f"{r['video']}.npy" for r in records]
    found = {path.name for path in (folder / "videos").iterdir()}
    missing = [path.name for path in paths if path.name not in found]
    report.expect("files", not missing, f"{folder.name}: {len(missing)} missing, {missing[:2]}")
    odd = sorted(found - {path.name for path in paths})
    report.expect("files", not odd, f"{folder.name}: {len(odd)} that no label names, {odd[:2]}")
    plain = [r["video"] for r in records if not re.fullmatch(r"[0-9a-f]{16}", r["video"])]
    report.expect("names", not plain, f"{len(plain)} names are not 16 hex digits: {plain[:2]}")
    if missing:
        return
    report.expect(
        "order of the tables",
        names == sorted(names)
        and names == [r["video"] for r in read_lines(folder / "videos.jsonl")],
        f"{folder.name}: not sorted by name",
    )
    shapes = Counter(
        (v.shape, str(v.dtype)) for v in (read_video(folder, r["video"]) for r in records)
    )
    expected = ((frames, size, size, 3), "uint8")
    report.expect("format", set(shapes) <= {expected}, f"shapes and types {dict(shapes)}")
    sizes = {path.stat().st_size for path in paths}
    report.expect("file size", len(sizes) <= 1, f"{len(sizes)} different sizes")
    stamps = {path.stat().st_mtime_ns for path in paths}
    report.expect("time stamps", len(stamps) <= 1, f"{len(stamps)} different times of change")


def _group(folder: Path, records: Records, told: dict[str, Any], report: Report) -> None:
    """Balance and exactness of one group, from the bytes of its frames."""
    first = records[0]
    name = f"{first['principle']}/{first['condition']} {first['group']}"
    roles = Counter(r["role"] for r in records)
    wanted = {"possible": 4} if first["kind"] == "control" else {"possible": 2, "impossible": 2}
    report.expect("balance", roles == wanted, f"{name}: {dict(roles)}")
    slots = sorted(r["slot"] for r in records)
    report.expect("balance", slots == [0, 1, 2, 3], f"{name}: slots {slots}")
    if first["kind"] == "control" or roles != wanted:
        return
    videos = {r["video"]: np.asarray(read_video(folder, r["video"])) for r in records}
    if first["design"] == "splice":
        _splice(name, records, videos, report)
    for record in records:
        twin, event = videos[record["prefix_twin"]], record["t_event"]
        event = told["frames"] if event is None else event
        same = equal_frames(videos[record["video"]], twin)
        report.expect("prefix", bool(same[:event].all()), f"{name}: {record['recipe']}")
        if record["t_observable"] is not None:
            leaves = not same[record["t_observable"]] and same[: record["t_observable"]].all()
            report.expect(
                "t_observable", bool(leaves), f"{name}: {record['recipe']} leaves elsewhere"
            )
            _shown(name, record, videos[record["video"]], twin, report)
    if first["design"] == "factorial":
        _factorial(folder, name, records, report)


def _splice(name: str, records: Records, videos: dict[str, np.ndarray], report: Report) -> None:
    by_role = defaultdict(Counter)
    for record in records:
        by_role[record["role"]].update(_hashes(videos[record["video"]]))
    same = by_role["possible"] == by_role["impossible"]
    report.expect("frame multiset", same, f"{name}: possible and impossible differ in frames")
    recipes = {r["recipe"]: videos[r["video"]] for r in records}
    equal = equal_frames(recipes["A"], recipes["B"])
    first = records[0]
    for cut in first["cuts"]:
        lo, hi = cut["bridge"]
        fine = bool(equal[lo:hi].all()) and hi - lo == cut["length"] and lo <= cut["frame"] <= hi
        edges = (lo == 0 or not equal[lo - 1]) and (hi == len(equal) or not equal[hi])
        report.expect("bridge", fine and edges, f"{name}: tracks are not equal on just {lo}:{hi}")
        hides = first["condition"] == "visible" or hi > lo
        report.expect("bridge", hides, f"{name}: occluded, but no frame hides the difference")
    hidden = first["kind"] == "probe" and first["condition"] == "occluded"
    if hidden and first["principle"] in EXACT:
        asked, got = first["axes"]["bridge"], first["cuts"][0]["length"]
        report.expect("bridge", got == asked, f"{name}: {got} equal frames instead of {asked}")
    margin = first["checks"].get("margin_px")
    if hidden:
        spare = margin is not None and margin >= MARGIN_PX
        report.expect("margin", spare, f"{name}: {margin} pixels to spare at the cut")
    if first["cuts"]:
        least = min(cut["length"] for cut in first["cuts"])
        fine = first["bridge"] == least and first["chance_window"] == least + 1
        report.expect("chance window", fine, f"{name}: stored {first['chance_window']}")


def _shown(
    name: str, record: dict[str, Any], video: np.ndarray, twin: np.ndarray, report: Report
) -> None:
    pixels = (video != twin).any(-1).sum((1, 2))
    enough = (pixels >= SHOWN_PX).sum() >= (3 if record["kind"] == "pair" else SHOWN_FRAMES)
    report.expect("outcome shows", bool(enough), f"{name}: {record['recipe']}, {pixels.max()} px")


def _factorial(folder: Path, name: str, records: Records, report: Report) -> None:
    """Context and outcome of the impossible videos are those of possible ones."""
    tracks = {r["recipe"]: read_truth(folder, r["video"])[0] for r in records}
    things = [thing["name"] for thing in records[0]["things"]]
    context = [things.index(thing) for thing in records[0]["swapped"]]
    rest = [n for n in range(len(things)) if n not in context]
    for recipe in ("12", "21"):
        scene, outcome = tracks[recipe[0] * 2], tracks[recipe[1] * 2]
        mine = tracks[recipe]
        fine = all(
            np.array_equal(getattr(mine, part)[:, which], getattr(other, part)[:, which])
            for part in ("pose", "present")
            for which, other in ((context, scene), (rest, outcome))
        )
        report.expect("replayed outcome", fine, f"{name}: {recipe} is no recombination")


def _truth(root: Path, labels: dict[str, Records], report: Report) -> None:
    for part, records in labels.items():
        for record in records:
            track, visible = read_truth(root / part, record["video"])
            sound = bool(np.isfinite(track.pose).all() and np.isfinite(track.camera).all())
            deep = record["checks"].get("penetration", 0.0)
            where = f"{record['principle']} {record['video']}"
            report.expect("legal tracks", sound and deep <= PENETRATION, f"{where}: {deep} m deep")
            things = [thing["name"] for thing in record["things"]]
            mine = [things.index(thing) for thing in record["swapped"]]
            for lo, hi in record["hidden"]:
                seen = int((visible[lo:hi, mine] * track.present[lo:hi, mine]).sum())
                report.expect("hidden", not seen, f"{where}: {seen} pixels show in {lo}:{hi}")
            if record["condition"] == "occluded" and record["cuts"]:
                cut = record["cuts"][0]["frame"]
                spans = any(lo <= cut < hi for lo, hi in record["hidden"])
                there = track.present[min(cut, len(visible) - 1), mine].any()
                moving = [n for n in mine if record["things"][n]["kind"] != "object"]
                relevant = there and not moving and record["kind"] == "probe"
                report.expect("hidden", spans or not relevant, f"{where}: shows at the cut {cut}")
    for path in {root / p / "scenes" / f"{r['group']}.xml" for p in labels for r in labels[p]}:
        text = path.read_text(encoding="utf-8")
        dark = 'castshadow="true"' in text or 'shadowsize="0"' not in text
        shiny = re.search(r'(reflectance|specular)="(?!0"|0 0 0")', text) is not None
        report.expect(
            "shadows and reflections", not dark and not shiny, f"switched on in {path.name}"
        )


def _leaks(folder: Path, groups: list[Records], seed: int, report: Report) -> None:
    """Statistics within quadruplets: each must be as if the labels were random."""
    values: dict[str, list[leaks.Quad]] = defaultdict(list)
    features, roles, names = [], [], []
    for records in groups:
        videos = {r["video"]: np.asarray(read_video(folder, r["video"])) for r in records}
        for key, number in {
            "slot": lambda r: r["slot"],
            "name": lambda r: int(r["video"], 16) if _hex(r["video"]) else r["slot"],
            "file size": lambda r: (folder / "videos" / f"{r['video']}.npy").stat().st_size,
            "time stamp": lambda r: (folder / "videos" / f"{r['video']}.npy").stat().st_mtime_ns,
            "compressed size": lambda r, v=videos: leaks.compressed_size(v[r["video"]]),
            "mean frame": lambda r, v=videos: float(_evidence(r, v[r["video"]]).mean()),
        }.items():
            values[key].append(_quad(records, number))
        for record in records:
            features.append(leaks.frame_features(_evidence(record, videos[record["video"]]), seed))
            roles.append(record["role"] == "impossible")
            names.append(record["group"])
        _chance(records, videos, seed, report)
    if groups:
        x, y, g = np.stack(features), np.array(roles), np.array(names)
        values["single-frame probe"] = leaks.probe(x, y, g, seed)
        flip = np.random.default_rng(seed).permutation(len(y))
        values["probe of shuffled labels"] = leaks.probe(x, y[flip], g, seed)
    for key, quads in values.items():
        quads = [quad for quad in quads if quad[0] and quad[1]]
        z = leaks.z_score(quads)
        report.facts[f"leak: {key}"] = f"AUC {leaks.auc(quads):.3f}, z {z:+.2f}, n {len(quads)}"
        fine = abs(z) <= leaks.LIMIT
        report.expect(f"leak: {key}", fine, f"tells the labels: |z| {abs(z):.1f} > {leaks.LIMIT}")


def _evidence(record: dict[str, Any], video: np.ndarray) -> np.ndarray:
    """Frames in which single frames must not tell: all of a splice, those before the event."""
    return video if record["design"] == "splice" else video[: record["t_event"]]


def _hex(name: str) -> bool:
    return re.fullmatch(r"[0-9a-f]+", name) is not None


def _quad(records: Records, value) -> leaks.Quad:
    return (
        [value(r) for r in records if r["role"] == "possible"],
        [value(r) for r in records if r["role"] == "impossible"],
    )


def _chance(records: Records, videos: dict[str, np.ndarray], seed: int, report: Report) -> None:
    """Short-window theorem: any score by windows within ``chance_window`` frames is a draw."""
    window = records[0]["chance_window"]
    if records[0]["design"] != "splice":
        return
    sums: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for record in records:
        scores = leaks.window_scores(videos[record["video"]], window, seed)
        for scorer, each in scores.items():
            sums[scorer][record["role"]] += float(each.sum())
    for scorer, by_role in sums.items():
        p, i = by_role["possible"], by_role["impossible"]
        fine = abs(p - i) <= 1e-9 * max(1.0, abs(p))
        where = f"{records[0]['principle']} {records[0]['group']}"
        report.expect("short windows", fine, f"{where}: {scorer} at {window} frames, {i - p:+.3g}")


def _duplicates(root: Path, labels: dict[str, Records], report: Report) -> None:
    """No frame of the probes is among the training videos, nor anything close to one."""
    if not {"train", "probe"} <= set(labels):
        return
    seen = {
        h for r in labels["train"] for h in set(_hashes(read_video(root / "train", r["video"])))
    }
    shared = [
        r["video"]
        for r in labels["probe"]
        if seen & set(_hashes(read_video(root / "probe", r["video"])))
    ]
    report.expect("duplicates", not shared, f"{len(shared)} probes share frames with training")
    small = {
        part: np.stack([_thumbnail(read_video(root / part, r["video"])) for r in labels[part]])
        for part in ("train", "probe")
    }
    least = min(float(np.abs(small["train"] - one).mean(1).min()) for one in small["probe"])
    report.facts["duplicates"] = f"nearest training video: {least:.1f} of 255 on average"
    report.expect("duplicates", least > 1.0, "a probe looks like a training video")


def _redraw(
    root: Path,
    labels: dict[str, Records],
    told: dict[str, Any],
    config: CheckConfig,
    report: Report,
) -> None:
    """The stored frames are what the stored states look like, byte for byte."""
    from .show import draw_again

    groups = [(p, records) for p in labels for records in _groups(labels[p]).values()]
    order = np.random.default_rng(config.seed).permutation(len(groups))[: config.redraw]
    for part, records in (groups[n] for n in order):
        again = draw_again(root / part, records, told["size"])
        for record in records:
            same = np.array_equal(again[record["video"]], read_video(root / part, record["video"]))
            report.expect(
                "lossless", same, f"{record['video']}: frames are not those of its states"
            )
    report.facts["lossless"] = f"{len(order)} groups drawn again"


def _hashes(video: np.ndarray) -> list[bytes]:
    return [hashlib.sha256(np.ascontiguousarray(frame).tobytes()).digest() for frame in video]


def _thumbnail(video: np.ndarray) -> np.ndarray:
    """Every eighth frame at 8 x 8: float32 [F]."""
    step = video.shape[1] // 8
    return np.asarray(video[::8, ::step, ::step], np.float32).reshape(-1)
