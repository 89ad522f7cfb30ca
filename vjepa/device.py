"""What runs share: the device and threads they run on, and what a resumed one may change."""

from __future__ import annotations

import torch

from ..core.errors import ConfigError
from ..core.machine import default_device

MAY_DIFFER = ("out", "resume", "device", "threads", "cache", "workers")
"""Keys that a resumed run may change: none of them changes the result (on one kind of device)."""


def prepare(device: str, threads: int) -> str:
    """Set torch's threads (0: leave them) and resolve the device name.

    Raises:
        ConfigError: a device that torch does not know or does not see.
    """
    if threads < 0:
        raise ConfigError(f"threads = {threads}: must be 0 (leave them alone) or more")
    if threads:
        torch.set_num_threads(threads)
    if device == "auto":
        return default_device()
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"device = {device!r}: {reason}; use auto or cpu") from error
    return device
