"""What a search may still spend: candidate-step predictions per problem, and seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import floor

Point = tuple[int, float]
"""Candidates of a call, and the seconds it took."""

SLACK = 1.25
"""Calls are expected to take this much longer than the last ones did."""


@dataclass(kw_only=True)
class Budget:
    """Decides how many candidates the next rollout call may hold.

    Calls are limited exactly. Seconds are kept by prediction: a call's time is taken to grow
    linearly from that of the smallest call to that of the latest, so the first calls of a search
    are small, and no call starts that is expected to end too late. One call of one candidate is
    always allowed, since a plan needs a cost.

    Attributes:
        horizon: H, predictions that one candidate costs.
        max_calls: candidate-step predictions per problem, or None. max_seconds: or None.
        began, clock: when the plan was asked for, and what tells the time (seconds).
        calls: spent so far.
    """

    horizon: int
    max_calls: int | None
    max_seconds: float | None
    began: float
    clock: Callable[[], float]
    calls: int = 0
    _times: dict[int, tuple[Point, Point]] = field(default_factory=dict)

    def allowed(self, wanted: int, *, price: int = 1, reserve: int = 0, share: float = 1.0) -> int:
        """How many of ``wanted`` candidates per problem may be evaluated in the next call.

        Args:
            price: predictions that a step of a candidate counts as (a gradient: 3).
            reserve: plain candidates to be paid later. share: of the whole budget, in (0, 1].
        """
        if not self.calls:
            wanted, reserve = (wanted if self.max_seconds is None else 1), max(0, reserve)
        if self.max_calls is not None:
            left = int(share * self.max_calls) - self.calls - reserve * self.horizon
            wanted = min(wanted, left // (price * self.horizon))
        if self.max_seconds is not None and self.calls:
            wanted = min(wanted, self._in_time(price, reserve, share))
        return max(wanted, 0)

    def spend(self, candidates: int, seconds: float, *, price: int = 1) -> None:
        """Record a call that evaluated ``candidates`` per problem in ``seconds``."""
        self.calls += price * candidates * self.horizon
        now = (candidates, seconds)
        smallest = self._times.get(price, (now, now))[0]
        self._times[price] = (now if candidates <= smallest[0] else smallest, now)

    def _in_time(self, price: int, reserve: int, share: float) -> int:
        assert self.max_seconds is not None
        left = self.began + share * self.max_seconds - self.clock()
        if reserve:
            base, slope = self._line(1)
            left -= SLACK * (base + slope * reserve)
        base, slope = self._line(price)
        left = left / SLACK - base
        if left <= 0:
            return 0
        return floor(left / slope) if slope else 2**31

    def _line(self, price: int) -> tuple[float, float]:
        """Seconds of a call at this price: of none, and of each candidate more.

        Until there was one at this price, those of another are the guide: a dearer call takes as
        much longer as it is dearer, a cheaper one no less.
        """
        known = price if price in self._times else next(iter(self._times))
        (small, first), (large, last) = self._times[known]
        slope = max(0.0, last - first) / (large - small) if large > small else first / small
        factor = max(1.0, price / known)
        return factor * max(0.0, first - slope * small), factor * slope
