"""How fast a training run goes: steps, samples and operations per second, and what it waits for.

>>> pace = Pace(samples=16, flops=2e12, peak=989e12)
>>> pace.text(steps=10, seconds=4.0, waited=0.4)
'2.5 steps/s  40 clips/s  5.0 TFLOP/s  MFU 0.5 %  waits 10 %'

Model FLOP utilisation (PaLM, arXiv 2204.02311) is the share of a device's peak that goes into the
operations which the model needs; it is given only for devices whose peak is known.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .errors import ConfigError

PEAKS = {
    "H200": (989e12, 67e12),
    "H100 NVL": (835e12, 60e12),
    "H100 PCIe": (756e12, 51e12),
    "H100": (989e12, 67e12),
    "A100": (312e12, 19.5e12),
    "A40": (149.7e12, 37.4e12),
    "A10": (125e12, 31.2e12),
    "L40S": (362e12, 91.6e12),
    "L4": (121e12, 30.3e12),
}
"""Operations per second of bf16 (tensor cores, dense) and fp32, by what stands in a device's name;
from the vendor's data sheets. Names that begin like another stand before it."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What one step amounts to, on all devices together."""

    samples: int = 0
    """Clips of a step; 0: not said."""
    flops: float = 0.0
    """Operations of a step; 0: not known."""
    peak: float | None = None
    """Operations per second that the devices could do; None: not known."""

    def __post_init__(self) -> None:
        wrong = [
            f"{name} = {getattr(self, name)}: must be 0 or more"
            for name in ("samples", "flops")
            if not 0 <= getattr(self, name) < math.inf
        ]
        if self.peak is not None and not 0 < self.peak < math.inf:
            wrong.append(f"peak = {self.peak}: must be above 0, or None")
        if wrong:
            raise ConfigError("pace: " + "; ".join(wrong))

    def scalars(self, *, steps: float, seconds: float, waited: float) -> dict[str, float]:
        """Numbers to log of ``steps`` steps that took ``seconds``, ``waited`` of them for data.

        ``pace/steps_per_second`` and ``pace/wait_share``; ``pace/clips_per_second``,
        ``pace/flops_per_second`` and ``pace/mfu`` (0 to 1) where they are known.
        """
        seconds = max(seconds, 1e-9)
        rate = steps / seconds
        found = {"steps_per_second": rate, "wait_share": min(1.0, max(0.0, waited / seconds))}
        if self.samples:
            found["clips_per_second"] = rate * self.samples
        if self.flops:
            found["flops_per_second"] = rate * self.flops
            if self.peak is not None:
                found["mfu"] = rate * self.flops / self.peak
        return {f"pace/{name}": value for name, value in found.items()}

    def text(self, *, steps: float, seconds: float, waited: float) -> str:
        """The same for people."""
        found = self.scalars(steps=steps, seconds=seconds, waited=waited)
        parts = [rate(steps, seconds, "steps")]
        if "pace/clips_per_second" in found:
            parts.append(f"{found['pace/clips_per_second']:.3g} clips/s")
        if "pace/flops_per_second" in found:
            parts.append(f"{_metric(found['pace/flops_per_second'])}FLOP/s")
        if "pace/mfu" in found:
            parts.append(f"MFU {100 * found['pace/mfu']:.1f} %")
        parts.append(f"waits {100 * found['pace/wait_share']:.0f} %")
        return "  ".join(parts)


def peak_flops(device: str, precision: str) -> float | None:
    """Peak operations per second of one device; None where it is not known.

    Args:
        device: its name, ``"NVIDIA H100 80GB HBM3"`` say. precision: ``"bf16"`` or ``"fp32"``.
    """
    words = device.replace("-", " ").split()
    for name, (bf16, fp32) in PEAKS.items():
        if all(word in words for word in name.split()):
            return bf16 if precision == "bf16" else fp32
    return None


def rate(done: float, seconds: float, unit: str = "") -> str:
    """``"2.5 steps/s"``, or ``"3.2 s each"`` below one in a second; without a unit ``"2.5/s"``."""
    per_second = done / max(seconds, 1e-9)
    if per_second >= 1:
        return f"{per_second:.1f} {unit}/s" if unit else f"{per_second:.1f}/s"
    return f"{seconds / done:.1f} s each" if done else "–"


def _metric(value: float) -> str:
    """``"5.0 T"`` of 5e12: a number and its prefix."""
    for power, prefix in ((15, "P"), (12, "T"), (9, "G"), (6, "M")):
        if value >= 10**power:
            return f"{value / 10**power:.1f} {prefix}"
    return f"{value:.1f} "
