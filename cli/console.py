"""Wide tables for a terminal: columns in blocks that fit, no cell cut off."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..benchmarks.results import Table

_FRAME = 3
"""Characters that a column needs beside its text."""


def print_blocks(table: Table, columns: Sequence[str] = (), *, width: int = 0) -> None:
    """Print ``table`` in blocks side by side under each other, the first column in each.

    Args:
        columns: those to print, where the table has them; empty: all. width: of the terminal in
            characters; 0: as it is.
    """
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    console = Console(width=width or None)
    chosen = [c for c in table.columns if not columns or c in columns]
    places = [list(table.columns).index(c) for c in chosen]
    rows = [[shortened(str(row[p])) for p in places] for row in table.rows]
    widths = _widths(chosen, rows)
    for number, block in enumerate(blocks(chosen, rows, console.width)):
        grid = Grid(title=Text(table.title) if number == 0 else None, title_justify="left")
        for column in block:
            head = textwrap.fill(chosen[column], widths[column])
            justify = "right" if column else "left"
            grid.add_column(Text(head), justify=justify, width=widths[column], no_wrap=True)
        for row in rows:
            grid.add_row(*(Text(row[column]) for column in block))
        console.print(grid)
    console.print(Text(table.note, style="dim"))


def blocks(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[list[int]]:
    """Which columns go into each block: the first, and as many as fit into ``width`` characters
    (one at least). Headings may break between words, cells may not."""
    widths = [each + _FRAME for each in _widths(columns, rows)]
    found: list[list[int]] = []
    room = 0
    for column in range(1, len(columns)):
        if not found or widths[column] > room:
            found.append([0])
            room = width - widths[0] - 1
        found[-1].append(column)
        room -= widths[column]
    return found or [[0]]


def _widths(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """Characters of each column: its longest cell, or the longest word of its heading."""
    return [
        max(max(map(len, name.split()), default=1), *(len(row[i]) for row in rows), 1)
        for i, name in enumerate(columns)
    ]


def shortened(cell: str) -> str:
    """Intervals without the digit that nobody needs: ``97.5 [93.1, 99.0]`` to ``97.5 [93, 99]``."""
    head, mark, rest = cell.partition(" [")
    if not mark or "." not in head or len(head.split(".")[1]) > 1:
        return cell
    inside, end, tail = rest.partition("]")
    ends = [_rounded(part) for part in inside.split(", ")]
    return f"{head} [{', '.join(ends)}]{tail}" if end else cell


def _rounded(text: str) -> str:
    try:
        return f"{float(text):+.0f}" if text[:1] in "+-" else f"{float(text):.0f}"
    except ValueError:
        return text
