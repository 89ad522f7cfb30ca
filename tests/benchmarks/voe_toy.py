"""Small violation-of-expectation sets with known answers."""

import numpy as np

from tubelet.datasets.voe.frames import ArrayFrames
from tubelet.datasets.voe.record import Pair, VoeSet, VoeVideo

ROLES = ("A", "B", "AB", "BA")


def splice(a, b, cut):
    """Two possible clips and their recombinations."""
    return [a, b, np.concatenate([a[:cut], b[cut:]]), np.concatenate([b[:cut], a[cut:]])]


def voe_set(quadruplets, *, cut, principle="permanence", truths=None, **facts):
    """A set of spliced quadruplets ``[A, B, AB, BA]`` with prefix and suffix pairs."""
    videos, pairs = [], []
    for g, clips in enumerate(quadruplets):
        names = [f"{g}{role}" for role in ROLES]
        for i, clip in enumerate(clips):
            more = {"truth": truths[g][i]} if truths else {}
            videos.append(
                VoeVideo(
                    name=names[i],
                    group=f"g{g}",
                    frames=ArrayFrames(clip),
                    possible=i < 2,
                    principle=principle,
                    **({"t_event": cut, "t_observable": cut} | facts | more),
                )
            )
        for match, twins in (("prefix", (2, 3)), ("suffix", (3, 2))):
            pairs += [
                Pair(group=f"g{g}", possible=names[p], impossible=names[i], match=match)
                for p, i in enumerate(twins)
            ]
    return VoeSet(name="toy", videos=tuple(videos), pairs=tuple(pairs))


def bridged(count, *, frames=20, cut=10, bridge=5, side=16, seed=0):
    """Quadruplets of noise whose frames are equal on ``bridge`` frames around the cut."""
    rng, out = np.random.default_rng(seed), []
    low = cut - bridge // 2
    for _ in range(count):
        a, b = rng.integers(0, 256, (2, frames, side, side, 3), np.uint8)
        b[low : low + bridge] = a[low : low + bridge]
        out.append(splice(a, b, cut))
    return out


def vanishing(count, *, frames=12, cut=6, side=16, seed=0):
    """Quadruplets of still pictures: a square that stays, or that is not there."""
    rng, out = np.random.default_rng(seed), []
    for _ in range(count):
        empty = np.full((frames, side, side, 3), rng.integers(0, 100), np.uint8)
        square = empty.copy()
        row, column = rng.integers(0, side - 6, 2)
        square[:, row : row + 6, column : column + 6] = rng.integers(150, 255, 3)
        out.append(splice(square, empty, cut))
    return out
