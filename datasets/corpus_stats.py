"""What a corpus holds, in numbers and pictures: a page, the same as JSON, and a contact sheet."""

from __future__ import annotations

import base64
import html
import io
import os
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import VideoDecodeError
from ..core.io import atomic_write_bytes, atomic_write_json, atomic_write_text
from ..core.rng import numpy_generator
from .decode import open_video
from .entries import BadVideo, CorpusIndex, VideoEntry
from .storage import shown

THUMB = 96
"""Side of a picture on the contact sheet, in pixels."""
_COLUMNS = 8


def summary(index: CorpusIndex) -> dict[str, Any]:
    """The corpus in numbers, ready for JSON.

    Keys: ``source``; ``videos``, ``images``, ``frames``, ``hours``, ``gigabytes``; ``bad`` and
    ``duplicates`` and ``ignored`` (counts); ``bad_by_reason``, ``codecs``, ``resolutions``,
    ``bits``, ``rotations`` (value -> count, most frequent first); ``seconds``, ``fps``, ``gop``
    (keyframe distances) and ``frames_per_video``: five numbers each (min, quartiles, max), absent
    without videos; ``variable_rate`` and ``open_gop`` (counts); ``files``: path -> reason of each
    bad file, and path -> the one that it equals of each duplicate.
    """
    images = [entry for entry in index.entries if entry.info.is_image]
    videos = [entry for entry in index.entries if not entry.info.is_image]
    facts: dict[str, Any] = {
        "source": shown(index.source),
        "videos": len(videos),
        "images": len(images),
        "frames": sum(entry.num_frames for entry in videos),
        "hours": round(sum(map(_seconds, videos)) / 3600, 4),
        "gigabytes": round(sum(entry.bytes for entry in index.entries) / 1e9, 4),
        "bad": len(index.quarantine),
        "duplicates": len(index.duplicates),
        "ignored": len(index.ignored),
        "bad_by_reason": reasons(index.quarantine),
        "codecs": _counts(entry.info.codec for entry in index.entries),
        "resolutions": _counts(f"{entry.width}x{entry.height}" for entry in index.entries),
        "bits": _counts(str(entry.info.bits) for entry in index.entries),
        "rotations": _counts(str(entry.info.rotation) for entry in index.entries),
        "variable_rate": sum(not entry.info.constant_rate for entry in videos),
        "open_gop": sum(entry.info.open_gop for entry in videos),
    }
    if videos:
        facts |= {
            "seconds": _five(map(_seconds, videos)),
            "fps": _five(entry.fps for entry in videos),
            "frames_per_video": _five(entry.num_frames for entry in videos),
            "gop": _five(length for entry in videos for length in gop_lengths(entry)),
        }
    facts["files"] = {
        "bad": {shown(bad.path): bad.reason for bad in index.quarantine},
        "duplicates": {shown(path): shown(of) for path, of in index.duplicates},
    }
    return facts


def reasons(bad: Iterable[BadVideo]) -> dict[str, int]:
    """How many files are bad for each reason, numbers and names aside; most frequent first."""
    return _counts(re.sub(r"\d+(\.\d+)?", "…", item.reason) for item in bad)


def gop_lengths(entry: VideoEntry) -> np.ndarray:
    """int64 [K]: frames from each keyframe to the next, or to the end."""
    return np.diff([*entry.info.keyframes, entry.num_frames])


def contact_sheet(index: CorpusIndex, count: int, seed: int = 0) -> np.ndarray:
    """uint8 [rows * 96, 768, 3]: the middle frames of ``count`` videos drawn at random, in order of
    their paths; a frame that cannot be decoded stays grey."""
    rng = numpy_generator(seed, "contact-sheet")
    chosen = np.sort(rng.choice(len(index), min(count, len(index)), replace=False))
    rows = max(1, -(-len(chosen) // _COLUMNS))
    sheet = np.full((rows, _COLUMNS, THUMB, THUMB, 3), 96, np.uint8)
    for place, number in enumerate(chosen):
        entry = index[int(number)]
        try:
            with open_video(entry.path, info=entry.info) as video:
                sheet[divmod(place, _COLUMNS)] = video.get_frames([entry.num_frames // 2], THUMB)[0]
        except VideoDecodeError:
            continue
    return sheet.swapaxes(1, 2).reshape(rows * THUMB, _COLUMNS * THUMB, 3)


def write_report(
    index: CorpusIndex, folder: str | os.PathLike[str], *, pictures: int = 24, seed: int = 0
) -> dict[str, Any]:
    """Write ``report.html``, ``report.json`` and ``contact_sheet.jpg`` into ``folder``; returns
    :func:`summary`."""
    from PIL import Image

    folder, facts = Path(folder), summary(index)
    file = io.BytesIO()
    Image.fromarray(contact_sheet(index, pictures, seed)).save(file, "JPEG", quality=85)
    atomic_write_bytes(folder / "contact_sheet.jpg", file.getvalue())
    atomic_write_json(folder / "report.json", facts)
    atomic_write_text(folder / "report.html", _page(index, facts, file.getvalue()))
    return facts


def _seconds(entry: VideoEntry) -> float:
    """Length in seconds, the last frame counted as long as the average one."""
    return entry.num_frames / entry.fps if entry.fps else 0.0


def _counts(values: Iterable[str]) -> dict[str, int]:
    return dict(Counter(values).most_common())


def _five(values: Iterable[float]) -> list[float]:
    numbers = np.fromiter(values, np.float64)
    return [round(float(v), 3) for v in np.quantile(numbers, [0, 0.25, 0.5, 0.75, 1])]


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;color:#222;padding:0 1rem}
table{border-collapse:collapse;margin:.5rem 0 1.5rem}td,th{padding:.15rem .8rem .15rem 0;
text-align:left;vertical-align:top}td.n{text-align:right;font-variant-numeric:tabular-nums}
.bar{background:#4a7fb5;height:.7rem;display:inline-block}img{max-width:100%}
code{overflow-wrap:anywhere}
"""


def _page(index: CorpusIndex, facts: dict[str, Any], picture: bytes) -> str:
    plain = ("videos", "images", "frames", "hours", "gigabytes", "bad", "duplicates", "ignored")
    plain += ("variable_rate", "open_gop")
    parts = [
        f"<h1>{html.escape(facts['source'])}</h1>",
        _table([[key.replace("_", " "), facts[key]] for key in plain]),
        f'<img alt="" src="data:image/jpeg;base64,{base64.b64encode(picture).decode()}">',
    ]
    spread = [[key, *facts[key]] for key in ("seconds", "fps", "frames_per_video", "gop")
              if key in facts]  # fmt: skip
    if spread:
        parts += [
            "<h2>Spread</h2>",
            _table(spread, ("", "least", "25 %", "median", "75 %", "most")),
        ]
    if facts["videos"]:
        lengths = [_seconds(entry) for entry in index.entries if not entry.info.is_image]
        parts += ["<h2>Lengths in seconds</h2>", _histogram(np.array(lengths))]
    for key in ("codecs", "resolutions", "bits", "rotations", "bad_by_reason"):
        if facts[key]:
            rows = [[name, count] for name, count in list(facts[key].items())[:30]]
            parts += [f"<h2>{key.replace('_', ' ').capitalize()}</h2>", _table(rows)]
    for key, title in (("bad", "Bad files"), ("duplicates", "Duplicates")):
        if facts["files"][key]:
            rows = [[path, why] for path, why in facts["files"][key].items()]
            parts += [f"<h2>{title}</h2>", _table(rows)]
    body = "\n".join(parts)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Corpus</title>'
        f"<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n"
    )


def _table(rows: list[list[Any]], head: Iterable[str] = ()) -> str:
    lines = ["".join(f"<th>{html.escape(cell)}</th>" for cell in head)]
    for row in rows:
        cells = (
            f"<td>{html.escape(cell)}</td>"
            if isinstance(cell, str)
            else f'<td class="n">{cell}</td>'
            for cell in row
        )
        lines.append("".join(cells))
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines if line) + "</table>"


def _histogram(values: np.ndarray, bins: int = 20) -> str:
    counts, edges = np.histogram(values, bins=bins if np.ptp(values) else 1)
    rows = "".join(
        f'<tr><td class="n">{low:.2f}–{high:.2f}</td><td class="n">{count}</td>'
        f'<td><span class="bar" style="width:{20 * count / counts.max():.2f}rem"></span></td></tr>'
        for count, low, high in zip(counts, edges[:-1], edges[1:], strict=True)
    )
    return f"<table>{rows}</table>"
