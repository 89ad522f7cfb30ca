"""Charts as inline SVG that follows the page's colours, in light and in dark.

Text and axes are drawn in a marker colour that becomes ``currentColor``, on no background.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .goal_reaching import GoalReachingResult
from .landscape import Landscape
from .probes import ProbeResult
from .tables import Leaderboard

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#010203"
"""Marker for "the page's text colour"."""
PALETTE = ("#3b8bd0", "#e08214", "#2a9d6f", "#c0508f", "#8a7ad8", "#b8a100", "#d1495b", "#5f9ea0")
ROLE_COLOURS = {"ceiling": "#2a9d6f", "model": "#3b8bd0", "floor": "#8c929c"}


def success_bars(board: Leaderboard) -> str:
    """Success @end as bars with Wilson whiskers, success @any as hollow marks."""

    def draw(figure: Figure) -> None:
        axes = axes_of(figure, 1)[0]
        rows = board.rows[::-1]
        y = np.arange(len(rows))
        end = np.array([[r.at_end.value, r.at_end.low, r.at_end.high] for r in rows]) * 100
        axes.barh(y, end[:, 0], color=[ROLE_COLOURS[r.role] for r in rows], height=0.62)
        whiskers = np.stack([end[:, 0] - end[:, 1], end[:, 2] - end[:, 0]])
        axes.errorbar(
            end[:, 0], y, xerr=whiskers, fmt="none", ecolor=INK, elinewidth=1.2, capsize=3
        )
        anytime = [100 * r.at_any.value for r in rows]
        axes.plot(anytime, y, "o", mfc="none", mec=INK, ms=5, label="success at any step")
        axes.set_yticks(y, [r.name for r in rows])
        axes.set_xlim(0, 104)
        axes.set_xlabel("success at the end of the episode, % (whiskers: 95 % Wilson)")
        axes.grid(axis="x", alpha=0.2, color=INK)
        axes.legend(loc="lower right", frameon=False, fontsize=8)

    return svg(draw, (7.5, 0.9 + 0.36 * len(board.rows)))


def distance_curves(results: Sequence[GoalReachingResult]) -> str:
    """Distance to the goal over environment steps: medians, with quartile bands for models."""
    names = list(results[0].distance)
    groups: dict[str, list[GoalReachingResult]] = {}
    for result in results:
        groups.setdefault(result.name, []).append(result)

    def draw(figure: Figure) -> None:
        panels = axes_of(figure, len(names))
        for axes, key in zip(panels, names, strict=True):
            for i, (name, group) in enumerate(groups.items()):
                values = np.concatenate([r.distance[key] for r in group])
                low, median, high = np.quantile(values, [0.25, 0.5, 0.75], axis=0)
                steps, colour = np.arange(len(median)), PALETTE[i % len(PALETTE)]
                model = group[0].role == "model"
                style = {"model": "-", "ceiling": "-.", "floor": ":"}[group[0].role]
                axes.plot(steps, median, style, color=colour, lw=2 if model else 1.3, label=name)
                if model:
                    axes.fill_between(steps, low, high, color=colour, alpha=0.15, lw=0)
            axes.set_xlabel("environment step")
            axes.set_ylabel(f"{key} (median; band: quartiles)")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.2, color=INK)
        handles, labels = panels[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=8
        )

    return svg(draw, (4.6 * len(names), 3.4 + 0.2 * (len(groups) // 4)))


def landscape_maps(landscape: Landscape) -> str:
    """Latent cost and true distance over the same grid, the goal marked."""

    def draw(figure: Figure) -> None:
        panels = axes_of(figure, 2)
        maps = {
            f"latent cost ({landscape.name})": landscape.cost,
            f"true distance ({landscape.distance_name})": landscape.distance,
        }
        for axes, (title, values) in zip(panels, maps.items(), strict=True):
            mesh = axes.pcolormesh(
                landscape.x, landscape.y, values, cmap="viridis", shading="nearest", rasterized=True
            )
            axes.plot(*landscape.goal, "*", ms=13, mfc="#ff5a5f", mec="white", label="goal")
            axes.set_title(title, fontsize=10)
            axes.set_xlabel(landscape.axes[0])
            axes.set_ylabel(landscape.axes[1])
            bar = figure.colorbar(mesh, ax=axes)
            bar.outline.set_visible(False)  # type: ignore[operator]

    return svg(draw, (9.2, 3.7))


def training_curves(metrics: Mapping[str, Sequence[Mapping[str, Any]]], most: int = 12) -> str:
    """Scalars over training steps, one panel each, one line per run.

    Args:
        metrics: run name to its lines of ``metrics.jsonl``.
        most: panels at most; losses come first, then the order of first appearance.
    """
    keys = dict.fromkeys(k for lines in metrics.values() for line in lines for k in line)
    names = sorted((k for k in keys if k != "step"), key=lambda k: "loss" not in k)[:most]

    def draw(figure: Figure) -> None:
        panels = axes_of(figure, len(names), columns=3)
        for axes, key in zip(panels, names, strict=True):
            for i, (run, lines) in enumerate(metrics.items()):
                points = [(m["step"], m[key]) for m in lines if m.get(key) is not None]
                if points:
                    colour = PALETTE[i % len(PALETTE)]
                    axes.plot(*zip(*points, strict=True), color=colour, lw=1.4, label=run)
            axes.set_title(key, fontsize=9)
            axes.grid(alpha=0.2, color=INK)
            axes.tick_params(labelsize=8)
            if axes.get_legend_handles_labels()[1] and len(metrics) > 1:
                axes.legend(fontsize=7, frameon=False)

    return svg(draw, (9.6, 2.3 * -(-len(names) // 3)))


def probe_curves(probes: Sequence[ProbeResult]) -> str:
    """R² over training steps with 95 % intervals; features without a step are level lines."""
    groups: dict[str, list[ProbeResult]] = {}
    for probe in probes:
        groups.setdefault(probe.name, []).append(probe)

    def draw(figure: Figure) -> None:
        axes = axes_of(figure, 1)[0]
        for i, (name, group) in enumerate(groups.items()):
            colour = PALETTE[i % len(PALETTE)]
            timed = sorted((p for p in group if p.step is not None), key=lambda p: p.step or 0)
            if timed:
                mean = np.array([[p.mean.value, p.mean.low, p.mean.high] for p in timed])
                gaps = np.stack([mean[:, 0] - mean[:, 1], mean[:, 2] - mean[:, 0]]).clip(0)
                steps = [p.step or 0 for p in timed]
                axes.errorbar(
                    steps,
                    mean[:, 0],
                    yerr=gaps,
                    fmt="o-",
                    ms=4,
                    capsize=3,
                    color=colour,
                    label=name,
                )
            for probe in (p for p in group if p.step is None):
                axes.axhline(probe.mean.value, color=colour, ls="--", label=name)
                axes.axhspan(probe.mean.low, probe.mean.high, color=colour, alpha=0.12, lw=0)
        axes.set_xlabel("training step of the encoder")
        axes.set_ylabel("R² on held-out episodes")
        axes.grid(alpha=0.2, color=INK)
        axes.legend(fontsize=8, frameon=False)

    return svg(draw, (7.5, 3.4))


def axes_of(figure: Figure, count: int, columns: int | None = None) -> list[Axes]:
    """``count`` bare axes in a grid, without the box around them."""
    columns = min(count, columns or count)
    rows = -(-count // columns)
    panels = [figure.add_subplot(rows, columns, i + 1) for i in range(count)]
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
    return panels


def svg(draw: Callable[[Figure], None], size: tuple[float, float]) -> str:
    """An ``<svg>`` element of what ``draw`` puts on a fresh figure of ``size`` inches."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    style: Any = {
        "svg.fonttype": "none",
        "svg.hashsalt": "tubelet",
        "text.parse_math": False,
        "font.family": "sans-serif",
        "font.size": 9.5,
        "text.color": INK,
        "axes.edgecolor": INK,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "xtick.color": INK,
        "ytick.color": INK,
    }
    with mpl.rc_context(style):
        figure = Figure(figsize=size, layout="constrained", facecolor="none")
        FigureCanvasAgg(figure)
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return _unique_ids(text)


def _unique_ids(svg: str) -> str:
    """Prefix all ids with a digest of the drawing: many drawings share one page."""
    prefix = "c" + hashlib.sha256(svg.encode()).hexdigest()[:8]
    svg = re.sub(r'\bid="', f'id="{prefix}-', svg)
    return re.sub(r'(url\(#|href="#)', rf"\g<1>{prefix}-", svg)
