"""Our names of weights against those of others: one table, read both ways.

A table is made from one of our modules and a rule that gives, for each of our names, the other
names that hold the same numbers. Reading demands exactly those names and shapes; writing makes
exactly them. So a read and a write are inverse to each other, bit for bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError

Shape = tuple[int, ...]
LISTED = 8  # keys of a kind that an error lists


@dataclass(frozen=True)
class Entry:
    """One of our weights and the names that it has elsewhere."""

    ours: str
    theirs: tuple[str, ...]
    """One name, or several whose tensors are ours when put below each other."""
    shape: Shape
    """Shape of each of ``theirs``."""
    whole: Shape
    """Shape of ours."""


Rule = Callable[[str, Shape], Entry]


@dataclass
class Report:
    """What became of every key of a conversion."""

    mapped: list[str] = field(default_factory=list)
    """Foreign names whose numbers were taken over, or written."""
    dropped: dict[str, str] = field(default_factory=dict)
    """Foreign name -> why it was left behind."""
    regenerated: dict[str, str] = field(default_factory=dict)
    """Foreign name -> the table that it equals, and how well."""
    notes: list[str] = field(default_factory=list)
    """Where the result is not the same function as the source, and other things to know."""

    def add(self, other: Report) -> None:
        """Append ``other``."""
        self.mapped += other.mapped
        self.dropped |= other.dropped
        self.regenerated |= other.regenerated
        self.notes += other.notes

    def __str__(self) -> str:
        lines = [
            f"{len(self.mapped)} keys mapped, {len(self.dropped)} dropped, "
            f"{len(self.regenerated)} regenerated"
        ]
        lines += [f"dropped {key}: {why}" for key, why in self.dropped.items()]
        lines += [f"regenerated {key}: {why}" for key, why in self.regenerated.items()]
        return "\n".join(lines + [f"note: {note}" for note in self.notes])


def table(module: nn.Module, rule: Rule) -> list[Entry]:
    """The entries of all weights of ``module`` (which may be on the meta device)."""
    return [rule(key, tuple(value.shape)) for key, value in module.state_dict().items()]


def renamed(key: str, starts: Mapping[str, str], inner: Mapping[str, str] | None = None) -> str:
    """``key`` with the first of ``starts`` that it starts with replaced, and all of ``inner``."""
    for old, new in starts.items():
        if key.startswith(old):
            key = new + key.removeprefix(old)
            break
    for old, new in (inner or {}).items():
        key = key.replace(old, new)
    return key


def plain(ours: str, theirs: str, whole: Shape, shape: Shape | None = None) -> Entry:
    """One name for one name, reshaped where ``shape`` is given."""
    return Entry(ours, (theirs,), shape or whole, whole)


def split(ours: str, theirs: Sequence[str], whole: Shape, shape: Shape | None = None) -> Entry:
    """Several names for the rows of one of ours."""
    rows = (whole[0] // len(theirs), *whole[1:])
    return Entry(ours, tuple(theirs), shape or rows, whole)


def read(
    entries: Iterable[Entry], theirs: Mapping[str, Tensor], *, source: str
) -> dict[str, Tensor]:
    """Our weights, float32 copies, from exactly the tensors that the table names.

    Raises:
        CheckpointError: any missing, unexpected or mis-shaped key; all are counted, the first
            named, with both shapes.
    """
    entries = list(entries)
    check_fit(entries, shapes_of(theirs), source=source)
    return {
        e.ours: torch.cat([theirs[key].reshape(-1).float() for key in e.theirs]).reshape(e.whole)
        for e in entries
    }


def write(entries: Iterable[Entry], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of :func:`read`: tensors under the other names, none sharing memory."""
    out = {}
    for e in entries:
        for key, part in zip(e.theirs, ours[e.ours].detach().chunk(len(e.theirs)), strict=True):
            out[key] = part.reshape(e.shape).clone().contiguous()
    return out


def shapes_of(tensors: Mapping[str, Any]) -> dict[str, Shape]:
    """Name -> shape; of what has none: empty."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in tensors.items()}


def misfits(entries: Iterable[Entry], found: Mapping[str, Shape]) -> dict[str, list[str]]:
    """Kind of fault -> descriptions, for every key in ``found`` that is not as the table says."""
    wanted = {key: e.shape for e in entries for key in e.theirs}
    shapes = [
        f"{key}: {list(found[key])} in the file, {list(shape)} wanted"
        for key, shape in wanted.items()
        if key in found and found[key] != shape
    ]
    faults = {
        "missing": sorted(wanted.keys() - found.keys()),
        "unexpected": sorted(found.keys() - wanted.keys()),
        "mis-shaped": shapes,
    }
    return {kind: keys for kind, keys in faults.items() if keys}


def check_fit(
    entries: Iterable[Entry],
    found: Mapping[str, Shape],
    *,
    source: str,
    of: str = "this architecture",
) -> None:
    """Raise CheckpointError naming the keys in ``found`` that are not as the table, ``of`` what is
    in words, says."""
    faults = misfits(entries, found)
    if faults:
        text = "; ".join(
            f"{len(keys)} {kind}: {', '.join(keys[:LISTED])}{', …' * (len(keys) > LISTED)}"
            for kind, keys in faults.items()
        )
        raise CheckpointError(f"{source} does not fit {of}. {text}")
