"""The energy landscape: what an action-conditioned model thinks of the actions around the true one.

From an observation, a model imagines one step under every action on a grid, two of whose entries
vary while the rest stays true; the energy is the latent distance to what really came next. A model
that understands its actions has the minimum at the true one (V-JEPA 2-AC, arXiv 2506.09985).

    python -m tubelet.benchmarks.energy RUN DATA          a world model's run folder, trajectories
    python -m tubelet.benchmarks.energy FOLDER DATA       converted V-JEPA 2-AC weights, robot poses
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, TubeletError
from ..core.io import atomic_write_text
from .energy_landscape import (
    Dims,
    EnergyLandscape,
    energy_landscapes,
    energy_table,
    mean_landscape,
)
from .results import Table, save_result

POSE_AXES = ("x (m)", "y (m)", "z (m)", "roll (rad)", "pitch (rad)", "yaw (rad)", "gripper")
"""The entries of a pose's action."""


def measure(args: argparse.Namespace) -> list[EnergyLandscape]:
    """The landscapes that the command line asks for."""
    from ..datasets.trajectories import TrajectorySet
    from ..vjepa.ac_world_model import load_ac
    from ..vjepa.device import prepare
    from ..vjepa.recipes import load_world_model
    from .energy_samples import pose_samples, world_model_samples

    device = prepare(args.device, 0)
    trajectories = TrajectorySet.open(args.data)
    first, second = args.dims
    model: Any
    dims: Dims
    if (args.model / "manifest.json").exists():
        model = load_ac(args.model, device=device)
        samples = pose_samples(model, trajectories, args.count, seed=args.seed)
        dims, names, radius = ((first,), (second,)), POSE_AXES, 0.075
    else:
        model = load_world_model(args.model, device=device)
        samples = world_model_samples(
            model, trajectories, args.count, held_out=args.held_out, seed=args.seed
        )
        width, block = model.config.action_dim, model.config.action_block
        steps = width * np.arange(block)  # of the block: all of them move
        dims = ((first + steps).tolist(), (second + steps).tolist())
        names, radius = [f"action {i}" for i in range(width)], 0.5
    if not {first, second} <= {*range(len(names))}:
        raise ConfigError(f"--dims {first} {second}: from 0 to {len(names) - 1}")
    offsets = np.linspace(-1, 1, args.points) * (args.radius or radius)
    return energy_landscapes(
        model,
        samples.obs,
        samples.goal,
        samples.actions,
        name="observation",
        x=offsets,
        y=offsets,
        dims=dims,
        axes=(f"{names[first]}: offset", f"{names[second]}: offset"),
        at_once=args.at_once,
    )


def main(argv: list[str] | None = None) -> int:
    """Measure, print a table, and write results and drawings to a folder."""
    args = _arguments().parse_args(argv)
    try:
        if args.points < 2 or args.count < 1 or args.at_once < 1 or args.radius < 0:
            raise ConfigError(
                f"--points {args.points} (2 or more), --count {args.count}, --at-once "
                f"{args.at_once} (1 or more), --radius {args.radius} (0: by kind, or more)"
            )
        landscapes = measure(args)
    except TubeletError as error:
        print(error, file=sys.stderr)
        return 2
    from .charts import landscape_maps

    tolerance = args.tolerance or float(landscapes[0].x[-1]) / 5
    table = energy_table(landscapes, tolerance, f"Energy landscapes of {args.model.name}")
    _print(table)
    save_result(args.out, table, name="energy")
    for number, one in enumerate([mean_landscape(landscapes), *landscapes[: args.drawn]]):
        drawing = one.landscape()
        save_result(args.out, drawing, name=f"energy-{number:03d}")
        atomic_write_text(args.out / f"energy-{number:03d}.svg", landscape_maps(drawing))
    print(f"written to {args.out}")
    return 0


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.energy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("model", type=Path, help="run folder, or converted V-JEPA 2-AC weights")
    parser.add_argument("data", type=Path, help="trajectory set (LeRobot v3)")
    parser.add_argument("--dims", type=int, nargs=2, default=(0, 1), help="varied entries (0 1)")
    parser.add_argument("--radius", type=float, default=0.0, help="largest offset (0.5; 0.075 m)")
    parser.add_argument("--points", type=int, default=21, help="grid points along an axis (21)")
    parser.add_argument("--count", type=int, default=16, help="observations (16)")
    parser.add_argument("--tolerance", type=float, default=0.0, help="counts as hit (radius / 5)")
    parser.add_argument("--held-out", type=float, default=0.1, help="last share of episodes (0.1)")
    parser.add_argument("--seed", type=int, default=0, help="of the observations (0)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda")
    parser.add_argument("--at-once", type=int, default=256, help="actions imagined per call (256)")
    parser.add_argument("--drawn", type=int, default=3, help="observations drawn (3)")
    parser.add_argument("--out", type=Path, default=Path("energy"), help="folder (energy)")
    return parser


def _print(table: Table) -> None:
    print(table.title)
    cells = [list(table.columns)] + [
        [f"{cell:.3g}" if isinstance(cell, float) else str(cell) for cell in row]
        for row in table.rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
    print(table.note)


if __name__ == "__main__":
    raise SystemExit(main())
