"""Speed, measured A/B in one run: ``python -m tubelet.benchmarks.speed render|rollout|encoder|…``.

The alternatives take turns, so that a busy machine disturbs all of them alike, and processor time
is reported beside the clock. Results go to ``benchmarks/results/`` (or ``--out``) as JSON.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import TubeletError
from ..core.io import atomic_write_json, atomic_write_text
from ..core.machine import command, facts
from ..core.rng import numpy_generator
from .timing import interleaved


def render(size: int = 64, repeats: int = 10) -> dict[str, Any]:
    """Our renderer against ``mujoco.Renderer`` on the Reacher scene.

    The other side draws the same scene with MuJoCo's default quality (a 4096² shadow map, 4x
    multisampling, a light that casts shadows) at the same size. Each draws through its usual call.
    """
    from ..envs import make
    from ..envs.rendering import gl_backend

    backend = gl_backend()  # before mujoco.Renderer, which takes the back end chosen here
    env = make("tubelet/Reacher-v0", image_size=size, render_obs=False)
    rng = numpy_generator(0, "speed", "render")
    states = [env.sample_state(rng) for _ in range(50)]
    default = _DefaultRenderer(size)
    try:
        timed = interleaved(
            {
                "mujoco.Renderer, default quality": lambda: default.draw(env.position(states[0])),
                "tubelet": lambda: [env.render_state(state) for state in states],
            },
            repeats,
        )
    finally:
        default.close()
    frames = {"mujoco.Renderer, default quality": 1, "tubelet": len(states)}
    rates = {
        clock: {name: frames[name] / timed[clock][name] for name in frames}
        for clock in ("cpu", "wall")
    }
    return {
        "benchmark": "render",
        "setting": f"{size} px, {backend}",
        "unit": "frames/s",
        "values": rates,
        "ratio": {c: rates[c]["tubelet"] / rates[c][next(iter(frames))] for c in rates},
        "repeats": repeats,
    }


class _DefaultRenderer:
    def __init__(self, size: int):
        from importlib import resources

        from ..envs.rendering import load_mujoco

        mj = load_mujoco()
        text = (resources.files("tubelet.envs") / "assets" / "reacher.xml").read_text("utf-8")
        spec = mj.MjSpec.from_string(text)
        plain = mj.MjSpec().visual.quality
        for key in ("shadowsize", "offsamples", "numslices", "numstacks", "numquads"):
            setattr(spec.visual.quality, key, getattr(plain, key))
        for light in spec.lights:
            light.castshadow = True
        self._mj, self._model = mj, spec.compile()
        self._data = mj.MjData(self._model)
        self._renderer = mj.Renderer(self._model, size, size)

    def draw(self, position: np.ndarray) -> np.ndarray:
        self._data.qpos[:] = position
        self._mj.mj_kinematics(self._model, self._data)
        self._mj.mj_camlight(self._model, self._data)
        self._renderer.update_scene(self._data, camera="top")
        return self._renderer.render()

    def close(self) -> None:
        self._renderer.close()


def rollout(
    horizon: int = 5, candidates: int = 64, grid: int = 4, repeats: int = 10
) -> dict[str, Any]:
    """The planner's rollout (key/value cache, context shared) against recomputing every step.

    One problem, a context of 3 steps, ``grid**2`` tokens per step, the predictor's default sizes.
    """
    import torch

    from ..vjepa.action_predictor import ActionPredictor, ActionPredictorConfig

    latent_dim, action_dim, steps = 128, 2, 3
    with torch.random.fork_rng():
        torch.manual_seed(0)
        predictor = ActionPredictor(
            ActionPredictorConfig(), latent_dim=latent_dim, action_dim=action_dim, grid=(grid, grid)
        ).eval()
        torch.nn.init.normal_(predictor.head.weight, std=0.05)  # residual heads start at zero
        context = torch.randn(1, steps, grid * grid, latent_dim)
        past = torch.rand(1, steps - 1, action_dim)
        actions = torch.rand(1, candidates, horizon, action_dim)

    @torch.inference_mode()
    def recomputed() -> torch.Tensor:
        every = torch.cat([past.expand(candidates, -1, -1), actions[0]], 1)
        return predictor.rollout(context.expand(candidates, -1, -1, -1), every, use_cache=False)

    @torch.inference_mode()
    def cached() -> torch.Tensor:
        return predictor.rollout_candidates(context, past, actions)[0]

    gap = float((recomputed() - cached()).abs().max())
    timed = interleaved({"recomputed": recomputed, "cached": cached}, repeats)
    values = {clock: timed[clock] for clock in ("cpu", "wall")}
    return {
        "benchmark": "rollout",
        "setting": f"horizon {horizon}, {candidates} candidates, {steps} context steps, "
        f"{grid * grid} tokens per step",
        "unit": "s/rollout",
        "values": values,
        "ratio": {clock: v["recomputed"] / v["cached"] for clock, v in values.items()},
        "largest_difference": gap,
        "repeats": repeats,
    }


def masks(repeats: int = 10, batch: int = 24) -> dict[str, Any]:
    """Both mask kinds of a batch of clips: 16 frames of 224 and of 256 px.

    Raises TubeletError if a token is neither context nor target, or both.
    """
    import torch

    from ..vjepa.masks import long_range, sample_masks, short_range
    from ..vjepa.positions import Grid

    rows = []
    for grid in (Grid(8, 14, 14), Grid(8, 16, 16)):
        seconds: dict[str, list[float]] = {"cpu": [], "wall": []}
        for i in range(10 * repeats + 1):
            clock, processor = time.perf_counter(), time.process_time()
            drawn = [
                sample_masks(kind, grid, batch, seed=0, name=name, first_sample=i * batch)
                for name, kind in (("short", short_range()), ("long", long_range()))
            ]
            if i:  # the first fills caches
                seconds["cpu"].append(time.process_time() - processor)
                seconds["wall"].append(time.perf_counter() - clock)
            for mask in drawn:
                ids = torch.cat([mask.context, mask.target], dim=1).sort(dim=1).values
                if not torch.equal(ids, torch.arange(grid.size).expand(batch, -1)):
                    raise TubeletError(f"masks of {grid}: tokens are lost or doubled")
        values = {
            clock: {
                "median": 1e3 * float(np.median(times)),
                "95th percentile": 1e3 * float(np.quantile(times, 0.95)),
            }
            for clock, times in seconds.items()
        }
        setting = f"{batch} clips, short and long, grid {tuple(grid)}; no token lost"
        rows.append(
            {"setting": setting, "unit": "ms/batch", "values": values, "repeats": 10 * repeats}
        )
    return {"benchmark": "masks", "rows": rows}


def benchmarks() -> dict[str, Callable[..., dict[str, Any]]]:
    """All of them by name; each takes ``repeats``."""
    from . import speed_loop
    from . import speed_vjepa as v

    core = {"encoder": v.encoder, "train-step": v.train_step, "masks": masks}
    loops = {"train-loop": speed_loop.loop, "scaling": speed_loop.scaling}
    return {"render": render, "rollout": rollout, **core, **loops}


def main(argv: list[str] | None = None) -> int:
    """Run the named benchmarks, print their results and write one JSON file each."""
    known = benchmarks()
    parser = argparse.ArgumentParser(prog="python -m tubelet.benchmarks.speed", description=__doc__)
    parser.add_argument("what", choices=[*known, "all"])
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds (default 10)")
    parser.add_argument(
        "--threads",
        type=int,
        nargs="+",
        default=[1, 2],
        help="of encoder, train-step (default 1 2)",
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder")
    args = parser.parse_args(argv)
    for name in known if args.what == "all" else [args.what]:
        threads = {"threads": args.threads} if name in ("encoder", "train-step") else {}
        result = known[name](repeats=args.repeats, **threads)
        for row in result.get("rows", [result]):
            _print(name, row)
        path = args.out / f"speed_{result['benchmark']}.json"
        atomic_write_json(path, result | {"command": command(), "machine": facts()})
        print(f"  written to {path}")
        if result.get("profile"):
            atomic_write_text(path.with_suffix(".profile.txt"), profile_table(result["profile"]))
    return 0


def _print(name: str, row: dict[str, Any]) -> None:
    values, unit = row["values"], row["unit"]
    print(f"{name} ({row['setting']}):")
    for key in values["cpu"]:
        cpu, wall = values["cpu"][key], values["wall"][key]
        print(f"  {key:<34} {cpu:10.4g} {unit} of processor time, {wall:10.4g} by the clock")
    if "ratio" in row:
        print(f"  ratio {row['ratio']['cpu']:.1f} (processor), {row['ratio']['wall']:.1f} (clock)")
    for pair, r in row.get("ratios", {}).items():
        print(f"  {pair}: {r['value']:.2f} [{r['low']:.2f}, {r['high']:.2f}] (processor)")
    if "largest_difference" in row:
        print(f"  largest difference {row['largest_difference']:.1e}")


def profile_table(profiles: dict[str, list[dict[str, Any]]]) -> str:
    """The profiles of :func:`.speed_vjepa.train_step` as text."""
    lines = []
    for name, operations in profiles.items():
        lines.append(f"{name}\n{'operation':<56}{'calls':>7}{'ms':>10}{'share':>8}")
        lines += [
            f"{o['operation'][:55]:<56}{o['calls']:>7}{o['milliseconds']:>10.1f}{o['share']:>8.1%}"
            for o in operations
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
