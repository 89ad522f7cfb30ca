"""Numbers as the tables spell them."""

from __future__ import annotations

import math

from ..stats import Estimate


def interval(e: Estimate, *, percent: bool = True) -> str:
    """``97.5 [93.1, 99.0]``, in percent or as it is; a dash for an unknown value."""
    if math.isnan(e.value):
        return "–"
    if percent:
        return f"{100 * e.value:.1f} [{100 * e.low:.1f}, {100 * e.high:.1f}]"
    return f"{e.value:.3f} [{e.low:.3f}, {e.high:.3f}]"


def signed(e: Estimate) -> str:
    """A difference in percent points: ``+2.5 [-0.1, +4.0]``."""
    return f"{100 * e.value:+.1f} [{100 * e.low:+.1f}, {100 * e.high:+.1f}]"


def percent(value: float) -> str:
    """``97.5``."""
    return "–" if math.isnan(value) else f"{100 * value:.1f}"


def deviations(mean: float, spread: float) -> str:
    """A mean in deviations."""
    return f"{mean / spread:.2f}" if spread and not math.isnan(spread) else "–"
