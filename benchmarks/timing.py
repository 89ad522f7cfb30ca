"""Timing alternatives against each other in one run."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..core.rng import numpy_generator
from .stats import Estimate


def interleaved(functions: Mapping[str, Callable[[], object]], repeats: int) -> dict[str, Any]:
    """Time functions in turns, the order reversed every other round, after one untimed call each.

    Returns:
        ``{"cpu": {name: median seconds of processor time}, "wall": {name: median seconds},
        "ratio": {name: processor time of the first function over this one's}, "rounds": {name:
        seconds of processor time, one per round}, "repeats": n}``.
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
        "rounds": cpu,
        "repeats": repeats,
    }


def ratio_of_medians(
    slow: Sequence[float], fast: Sequence[float], *, resamples: int = 5000
) -> Estimate:
    """Median of ``slow`` over median of ``fast``, one of each per round, with the 95 % interval of
    a bootstrap over rounds."""
    top, bottom = np.asarray(slow, np.float64), np.asarray(fast, np.float64)
    if top.shape != bottom.shape or top.ndim != 1 or not top.size:
        raise ValueError(f"need two equal non-empty vectors, got {top.shape} and {bottom.shape}")
    drawn = numpy_generator(0, "timing").integers(top.size, size=(resamples, top.size))
    ratios = np.median(top[drawn], axis=1) / np.median(bottom[drawn], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return Estimate(float(np.median(top) / np.median(bottom)), float(low), float(high))


def device_seconds(call: Callable[[], object], device: str, repeats: int) -> float:
    """Median seconds of ``call`` by the clock, after two that are not timed; on CUDA each is waited
    for."""
    times = []
    for i in range(repeats + 2):
        _wait(device)
        started = time.perf_counter()
        call()
        _wait(device)
        if i >= 2:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def _wait(device: str) -> None:
    if device.startswith("cuda"):
        import torch

        torch.cuda.synchronize(device)
