"""Pairs of a quadruplet whose set does not name them: by the frames that two videos share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .record import Match, Pair, VoeVideo


def shared_prefix(a: VoeVideo, b: VoeVideo, block: int = 8) -> int:
    """Leading frames that are equal to the byte, in original pixels."""
    count = min(a.frames.count, b.frames.count)
    for start in range(0, count, block):
        numbers = range(start, min(start + block, count))
        same = (a.frames.read(numbers) == b.frames.read(numbers)).all(axis=(1, 2, 3))
        if not same.all():
            return start + int(np.argmin(same))
    return count


def match_quadruplet(videos: Sequence[VoeVideo]) -> list[Pair] | str:
    """Pairs of two possible and two impossible videos, by prefix and by suffix, or why not.

    Of the two ways to marry them, the one that shares more leading frames is "prefix", the other
    "suffix". Each pair has one of each label by construction.
    """
    possible = [video for video in videos if video.possible is True]
    impossible = [video for video in videos if video.possible is False]
    if len(possible) != 2 or len(impossible) != 2:
        return f"{len(possible)} possible and {len(impossible)} impossible videos, not 2 and 2"
    shared = [[shared_prefix(p, i) for i in impossible] for p in possible]
    straight, crossed = shared[0][0] + shared[1][1], shared[0][1] + shared[1][0]
    if straight == crossed:
        return f"both ways to pair its videos share {straight} leading frames"
    order = (0, 1) if straight > crossed else (1, 0)
    pairs = []
    for number, p in enumerate(possible):
        by_match: dict[Match, int] = {"prefix": order[number], "suffix": order[1 - number]}
        pairs += [
            Pair(group=p.group, possible=p.name, impossible=impossible[i].name, match=match)
            for match, i in by_match.items()
        ]
    return pairs
