"""One self-contained HTML page: no scripts, no requests, every shown string escaped.

The content is data: sections with text, tables, figures and videos, written in the order given.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Sequence
from html import escape
from pathlib import Path

from ..core.io import atomic_write_text

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"

_STYLE = """
:root { color-scheme: light dark; --bg: #fbfbfd; --card: #ffffff; --ink: #1d2430; --soft: #5d6675;
  --line: #dde1e8; --accent: #1f6fb5; --good: #15803d; --bad: #b42318; --row: #f3f5f8; }
@media (prefers-color-scheme: dark) { :root { --bg: #12151b; --card: #1a1f28; --ink: #e6e9ef;
  --soft: #9aa4b4; --line: #2c3440; --accent: #6cb2f2; --good: #57c98a; --bad: #ff8a80;
  --row: #212835; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--bg); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", sans-serif; }
main, header { max-width: 1240px; margin: 0 auto; padding: 0 24px; }
header { padding-top: 40px; }
h1 { font-size: 30px; line-height: 1.2; margin: 0 0 8px; letter-spacing: -.01em; }
h2 { font-size: 21px; margin: 0 0 12px; }
h3 { font-size: 16px; margin: 24px 0 8px; }
p { margin: 0 0 12px; max-width: 78ch; }
.soft, .note, figcaption { color: var(--soft); font-size: 14px; }
.note { margin-top: 8px; max-width: none; overflow-wrap: anywhere; }
nav { display: flex; flex-wrap: wrap; gap: 6px 18px; margin: 18px 0 8px; font-size: 15px; }
a { color: var(--accent); text-decoration: none; }
a:hover { text-decoration: underline; }
section { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
  padding: 22px 24px; margin: 18px 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: 13.5px;
  font-variant-numeric: tabular-nums; }
th, td { padding: 7px 9px; border-bottom: 1px solid var(--line); text-align: right;
  vertical-align: top; }
th { font-weight: 600; color: var(--soft); vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
td { white-space: nowrap; }
td:first-child { white-space: normal; min-width: 130px; }
tr.strong td { font-weight: 600; background: var(--row); }
tr.weak td { color: var(--soft); }
td.good { color: var(--good); } td.bad { color: var(--bad); }
.callout { font-size: 18px; font-weight: 600; }
.callout.good { color: var(--good); } .callout.bad { color: var(--bad); }
figure { margin: 12px 0 18px; }
figure svg, figure img { max-width: 100%; height: auto; display: block; }
.videos { display: grid; grid-template-columns: repeat(auto-fill, minmax(440px, 1fr)); gap: 14px; }
.videos figure { margin: 0; }
video { width: 100%; border-radius: 8px; display: block; background: #888; }
pre { overflow-x: auto; font-size: 13px; background: var(--row); padding: 12px;
  border-radius: 8px; }
summary { cursor: pointer; color: var(--accent); }
footer { text-align: center; padding: 12px 0 40px; }
"""


class Report:
    """Collects sections and writes them as one HTML file.

    Args:
        title: of the page. subtitle: one line under it.
    """

    def __init__(self, title: str, subtitle: str = ""):
        self.title, self.subtitle = title, subtitle
        self._sections: list[tuple[str, list[str]]] = []

    def add_section(self, title: str) -> None:
        """Begin a section; everything added next belongs to it."""
        self._sections.append((title, []))

    def add_heading(self, title: str) -> None:
        """A heading inside the section."""
        self._add(f"<h3>{escape(title)}</h3>")

    def add_text(self, text: str) -> None:
        """Paragraphs, separated by empty lines."""
        for paragraph in text.split("\n\n"):
            self._add(f"<p>{escape(paragraph)}</p>")

    def add_callout(self, text: str) -> None:
        """One line that stands out, coloured by its first word: healthy, warning or collapsed."""
        kind = {"healthy": "good", "collapsed": "bad"}.get(text.split(":")[0].strip(), "soft")
        self._add(f'<p class="callout {kind}">{escape(text)}</p>')

    def add_table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[object]],
        *,
        note: str = "",
        emphasis: Sequence[str] | None = None,
    ) -> None:
        """A table whose first column is left-aligned. Cells "yes" and "no" are coloured.

        Args:
            note: printed under it. emphasis: per row ``"strong"``, ``"weak"`` or ``""``.
        """
        head = "".join(f'<th scope="col">{escape(c)}</th>' for c in columns)
        marks = emphasis or [""] * len(rows)
        body = "".join(
            f'<tr class="{escape(mark)}">{"".join(map(_cell, row))}</tr>'
            for mark, row in zip(marks, rows, strict=True)
        )
        self._add(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
            f"<tbody>{body}</tbody></table></div>"
        )
        if note:
            self._add(f'<p class="note">{escape(note)}</p>')

    def add_figure(self, image: str | bytes, caption: str) -> None:
        """A drawing: an ``<svg>`` element from :mod:`charts` (inserted as it is) or PNG bytes."""
        if isinstance(image, str):
            picture = image
        else:
            picture = f'<img alt="{escape(caption)}" src="{_data_uri("image/png", image)}">'
        self._add(f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>")

    def add_videos(self, videos: Sequence[tuple[bytes | str | os.PathLike[str], str]]) -> None:
        """Looping mp4 videos (bytes or a path) with their captions, side by side."""
        figures = []
        for video, caption in videos:
            content = video if isinstance(video, bytes) else Path(video).read_bytes()
            figures.append(
                f"<figure><video controls autoplay loop muted playsinline "
                f'src="{_data_uri("video/mp4", content)}"></video>'
                f"<figcaption>{escape(caption)}</figcaption></figure>"
            )
        self._add(f'<div class="videos">{"".join(figures)}</div>')

    def add_video(self, video: bytes | str | os.PathLike[str], caption: str) -> None:
        """One looping mp4 video."""
        self.add_videos([(video, caption)])

    def add_details(self, summary: str, text: str) -> None:
        """Preformatted text that opens on a click."""
        self._add(
            f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"
        )

    def html(self) -> str:
        """The whole page."""
        links = "".join(
            f'<a href="#s{i}">{escape(title)}</a>' for i, (title, _) in enumerate(self._sections)
        )
        sections = "\n".join(
            f'<section id="s{i}"><h2>{escape(title)}</h2>\n{"".join(parts)}</section>'
            for i, (title, parts) in enumerate(self._sections)
        )
        subtitle = f'<p class="soft">{escape(self.subtitle)}</p>' if self.subtitle else ""
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f'<link rel="icon" href="data:,"><title>{escape(self.title)}</title>'
            f"<style>{_STYLE}</style></head>\n<body><header><h1>{escape(self.title)}</h1>"
            f"{subtitle}<nav>{links}</nav></header>\n<main>{sections}</main>"
            '<footer class="soft">Written by tubelet. This page holds everything it shows.</footer>'
            "</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page atomically."""
        atomic_write_text(path, self.html())

    def _add(self, part: str) -> None:
        if not self._sections:
            self.add_section("Results")
        self._sections[-1][1].append(part + "\n")


def _cell(value: object) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    mark = {"yes": ' class="good"', "no": ' class="bad"'}.get(text, "")
    return f"<td{mark}>{escape(text)}</td>"


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
