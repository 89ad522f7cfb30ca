"""Drawings of scoring runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..charts import INK, PALETTE, axes_of, svg

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Surprise of one pair over frames."""

    title: str
    possible: np.ndarray
    impossible: np.ndarray
    event: int | None
    observable: int | None
    hidden: tuple[tuple[int, int], ...]


def curves(panels: Sequence[Panel]) -> str:
    """One panel per pair, the event marked, spans out of sight shaded."""

    def draw(figure: Figure) -> None:
        for axes, panel in zip(axes_of(figure, len(panels), columns=3), panels, strict=True):
            axes.plot(panel.possible, color=PALETTE[0], lw=1.4, label="possible")
            axes.plot(panel.impossible, color=PALETTE[6], lw=1.4, label="impossible")
            for lo, hi in panel.hidden:
                axes.axvspan(lo, hi, color=INK, alpha=0.12, lw=0)
            if panel.event is not None:
                axes.axvline(panel.event, color=INK, lw=1)
            if panel.observable is not None:
                axes.axvline(panel.observable, color=INK, lw=1, ls=":")
            axes.set_title(panel.title, fontsize=9)
            axes.set_xlabel("frame")
            axes.tick_params(labelsize=8)
            axes.legend(fontsize=7, frameon=False)

    return svg(draw, (9.6, 2.4 * -(-len(panels) // 3)))


def bridge_map(
    contexts: Sequence[int],
    lengths: Sequence[int],
    values: np.ndarray,
    hatched: np.ndarray,
    counts: np.ndarray,
) -> str:
    """Accuracy ``[contexts, lengths]`` (NaN: no pair) as a map; hatched cells cannot tell."""

    def draw(figure: Figure) -> None:
        from matplotlib.patches import Rectangle

        axes = axes_of(figure, 1)[0]
        axes.imshow(values, vmin=0, vmax=1, cmap="RdYlGn", aspect="auto", alpha=0.75)
        for row, column in np.argwhere(~np.isnan(values)):
            text = f"{100 * values[row, column]:.0f}\nn = {counts[row, column]}"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=INK)
            if hatched[row, column]:
                corner = (column - 0.5, row - 0.5)
                axes.add_patch(Rectangle(corner, 1, 1, fill=False, hatch="///", lw=0, ec=INK))
        axes.set_xticks(range(len(lengths)), [str(v) for v in lengths])
        axes.set_yticks(range(len(contexts)), [str(v) for v in contexts])
        axes.set_xlabel("bridge, frames")
        axes.set_ylabel("context, sampled frames")

    return svg(draw, (1.8 + 1.1 * len(lengths), 1.2 + 0.55 * len(contexts)))
