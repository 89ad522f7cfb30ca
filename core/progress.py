"""Progress that people read: a bar on a terminal, occasional plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from .pace import Pace, rate


class progress:
    """Iterate with a progress bar: ``for item in progress(items_or_count, "collect"): ...``

    Args:
        items: an iterable, or a count n for ``range(n)``.
        description: a word or two shown before the bar.
        total: the number of items, where ``len(items)`` does not tell.
        pace: what an item amounts to, for loops of training: clips and operations per second, the
            share of a device's peak, and the share of the time that :meth:`waited` for data.

    On a terminal (stderr) it is a bar with rate and time left; elsewhere a plain line about every
    ten seconds and one at the end. :meth:`note` shows a short text behind it (a loss, say).
    """

    def __init__(
        self, items: Any, description: str, *, total: int | None = None, pace: Pace | None = None
    ):
        self._items = range(items) if isinstance(items, int) else items
        self._description = description
        self._total = (
            len(self._items) if total is None and hasattr(self._items, "__len__") else total
        )
        self._note = ""
        self._pace, self._waited = pace, 0.0

    def note(self, text: str) -> None:
        """Show ``text`` behind the bar from the next item on."""
        self._note = text

    def waited(self, seconds: float) -> None:
        """So long did the loop wait for data, in seconds; adds up."""
        self._waited += seconds

    def __iter__(self) -> Iterator[Any]:
        from rich.console import Console

        console = Console(stderr=True)
        return self._bar(console) if console.is_terminal else self._plain(console)

    def _bar(self, console: Any) -> Iterator[Any]:
        from rich import progress as rich_progress

        columns = (
            rich_progress.TextColumn("{task.description}", markup=False),
            rich_progress.BarColumn(),
            rich_progress.MofNCompleteColumn(),
            rich_progress.TextColumn("{task.fields[rate]}", markup=False),
            rich_progress.TimeRemainingColumn(),
            rich_progress.TextColumn("{task.fields[note]}", markup=False),
        )
        with rich_progress.Progress(*columns, console=console) as bar:
            task = bar.add_task(self._description, total=self._total, rate="", note="")
            start = time.monotonic()
            for done, item in enumerate(self._items, 1):
                yield item
                speed = self._rate(done, time.monotonic() - start)
                bar.update(task, advance=1, rate=speed, note=self._note)

    def _plain(self, console: Any, every: float = 10.0) -> Iterator[Any]:
        start = shown = time.monotonic()
        done = 0
        for done, item in enumerate(self._items, 1):
            yield item
            now = time.monotonic()
            if now - shown >= every and done != self._total:
                shown = now
                self._print(console, done, now - start)
        self._print(console, done, time.monotonic() - start)

    def _print(self, console: Any, done: int, elapsed: float) -> None:
        of, left = "", ""
        if self._total is not None:
            of = f"/{self._total}"
            if 0 < done < self._total:
                left = f"{_clock(elapsed * (self._total - done) / done)} left"
        parts = [self._description, f"{done}{of}", self._rate(done, elapsed), left, self._note]
        line = "  ".join(part for part in parts if part)
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    def _rate(self, done: int, elapsed: float) -> str:
        if self._pace is None:
            return rate(done, elapsed)
        return self._pace.text(steps=done, seconds=elapsed, waited=self._waited)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
