"""A guard against loss spikes: a step far above the recent ones is not taken."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence

WINDOW = 300
"""Losses that a new one is compared with (V-JEPA 2.1 looks at as many)."""
LEAST = 20
"""With fewer losses than this nothing is a spike."""


class SpikeGuard:
    """Tells spikes from losses: those above mean + ``factor`` deviations of the last 300.

    Args:
        factor: 0 never calls anything a spike.
        state: the losses of a guard before, oldest first, and the number of its spikes.
    """

    def __init__(self, factor: float, state: tuple[Sequence[float], int] = ((), 0)):
        self._factor = factor
        self._losses = deque(state[0], maxlen=WINDOW)
        self.spikes = state[1]

    def is_spike(self, loss: float) -> bool:
        """Whether ``loss`` is one; a spike is counted, another loss is remembered."""
        if not self._factor:
            return False
        if len(self._losses) >= LEAST:
            spread = statistics.pstdev(self._losses)
            if loss > statistics.fmean(self._losses) + self._factor * spread:
                self.spikes += 1
                return True
        self._losses.append(loss)
        return False

    def state(self) -> tuple[list[float], int]:
        """What a guard that goes on from here needs."""
        return list(self._losses), self.spikes
