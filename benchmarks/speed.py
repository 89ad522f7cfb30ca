"""Speed, measured A/B in one run: ``python -m tubelet.benchmarks.speed render|rollout|all``.

The alternatives take turns, so that a busy machine disturbs all of them alike, and processor time
is reported beside the clock. Results go to ``benchmarks/results/`` (or ``--out``) as JSON.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..core.io import atomic_write_json
from ..core.machine import facts
from ..core.rng import numpy_generator


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Time functions in turns, the order reversed every other round, after one untimed call each.

    Returns:
        ``{"cpu": {name: median seconds of processor time}, "wall": {name: median seconds},
        "ratio": {name: processor time of the first function over this one's}, "repeats": n}``.
    """
    names = list(functions)
    cpu: dict[str, list[float]] = {name: [] for name in names}
    wall: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        functions[name]()
    for i in range(repeats):
        for name in names[:: -1 if i % 2 else 1]:
            clock, processor = time.perf_counter(), time.process_time()
            functions[name]()
            cpu[name].append(time.process_time() - processor)
            wall[name].append(time.perf_counter() - clock)
    medians = {name: statistics.median(cpu[name]) for name in names}
    return {
        "cpu": medians,
        "wall": {name: statistics.median(wall[name]) for name in names},
        "ratio": {name: medians[names[0]] / max(medians[name], 1e-9) for name in names},
        "repeats": repeats,
    }


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


def main(argv: list[str] | None = None) -> int:
    """Run the named benchmarks, print their results and write one JSON file each."""
    parser = argparse.ArgumentParser(prog="python -m tubelet.benchmarks.speed", description=__doc__)
    parser.add_argument("what", choices=["render", "rollout", "all"])
    parser.add_argument("--repeats", type=int, default=10, help="timed rounds (default 10)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder")
    args = parser.parse_args(argv)
    chosen = [render, rollout] if args.what == "all" else [globals()[args.what]]
    for benchmark in chosen:
        result = benchmark(repeats=args.repeats)
        _print(result)
        path = args.out / f"speed_{result['benchmark']}.json"
        atomic_write_json(path, result | {"command": " ".join(sys.argv), "machine": facts()})
        print(f"  written to {path}")
    return 0


def _print(result: dict[str, Any]) -> None:
    values, unit, ratio = result["values"], result["unit"], result["ratio"]
    print(f"{result['benchmark']} ({result['setting']}):")
    for name in values["cpu"]:
        cpu, wall = values["cpu"][name], values["wall"][name]
        print(f"  {name:<34} {cpu:10.4g} {unit} of processor time, {wall:10.4g} by the clock")
    print(f"  ratio {ratio['cpu']:.1f} (processor), {ratio['wall']:.1f} (clock)")
    if "largest_difference" in result:
        print(f"  largest difference {result['largest_difference']:.1e}")


if __name__ == "__main__":
    raise SystemExit(main())
