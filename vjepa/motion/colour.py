"""Flow as a picture in the usual colour code: the hue is the direction, the saturation the length.

The wheel is Baker et al.'s (A Database and Evaluation Methodology for Optical Flow, IJCV 2011): 55
hues, more of them where the eye tells more apart: 15 from red to yellow, 6 to green, 4 to cyan, 11
to blue, 13 to magenta, 6 back to red. Right is red; down, a quarter around, yellow; left is cyan to
blue; up is violet. Here the circle closes: the hues are spread over all of it.
"""

from __future__ import annotations

import numpy as np

RAMPS = ((15, 0, 1), (6, 1, 0), (4, 1, 2), (11, 2, 1), (13, 2, 0), (6, 0, 2))
"""(hues, channel that stays full, channel that rises from 0; in every second one it falls to 0)."""
BEYOND = 0.75
"""What is longer than the scale is darker by this."""


def colour_wheel() -> np.ndarray:
    """float64 ``[55, 3]`` in [0, 1]: red, through yellow, green, cyan, blue and magenta to red."""
    parts = []
    for number, (count, full, moving) in enumerate(RAMPS):
        part = np.zeros((count, 3))
        rise = np.arange(count) / count
        part[:, full] = 1
        part[:, moving] = rise if number % 2 == 0 else 1 - rise
        parts.append(part)
    return np.concatenate(parts)


def flow_picture(flow: np.ndarray, *, scale: float | None = None) -> np.ndarray:
    """The picture of a flow.

    Args:
        flow: float ``[H, W, 2]``, (x, y), y downwards. Not finite: unknown, and black.
        scale: the length with the full colour; by default the longest. Longer flows are darker.

    Returns:
        uint8 ``[H, W, 3]``; white where nothing moves.
    """
    known = np.isfinite(flow).all(-1, keepdims=True)
    x, y = np.where(known, flow, 0).astype(np.float64).transpose(2, 0, 1)
    length = np.hypot(x, y)
    longest = float(length.max()) if scale is None else scale
    length = length / (longest if longest > 0 else 1.0)
    wheel = colour_wheel()
    place = np.arctan2(y, x) / (2 * np.pi) % 1 * len(wheel)
    low = np.floor(place).astype(int)
    share = (place - low)[..., None]
    hue = (1 - share) * wheel[low % len(wheel)] + share * wheel[(low + 1) % len(wheel)]
    length = length[..., None]
    colour = np.where(length <= 1 + 1e-9, 1 - length * (1 - hue), BEYOND * hue)
    return np.where(known, np.rint(255 * colour), 0).astype(np.uint8)
