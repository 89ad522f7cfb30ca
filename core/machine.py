"""Facts about the machine and the installed versions, recorded beside every run and result."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = (
    *("tubelet", "torch", "numpy", "scipy", "gymnasium", "mujoco", "pyarrow"),
    *("av", "decord", "torchcodec"),
)


def facts() -> dict[str, Any]:
    """Versions and hardware as a JSON-ready dict, without importing a heavy package.

    Keys: ``packages`` {name: version or None}, ``python``, ``platform``, ``processor``, ``cores``
    (usable by this process), ``memory_gib`` (or None), ``commit`` (of a source checkout, with
    ``+changes``, or None) and ``devices`` (accelerators; empty unless torch is already imported).
    """
    return {
        "packages": {name: version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cores": cores(),
        "memory_gib": _memory_gib(),
        "commit": _commit(),
        "devices": devices() if "torch" in sys.modules else [],
    }


def command() -> str:
    """The command line of this process as anyone would type it: without the folders of this
    machine's programs."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        name = f"python -m {spec.name.removesuffix('.__main__')}"
    else:
        name = Path(sys.argv[0]).name if sys.argv else "python"
    return shlex.join([*name.split(), *sys.argv[1:]])


def version(package: str) -> str | None:
    """The installed version of ``package``, or None."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def cores() -> int:
    """Processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def devices() -> list[str]:
    """Accelerators that torch sees, as ``"cuda:0 <name> <memory>"`` or ``"mps"``. Imports torch."""
    import torch

    found = []
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            found.append(f"cuda:{index} {about.name} {about.total_memory / 2**30:.0f} GiB")
    if torch.backends.mps.is_available():
        found.append("mps")
    return found


def default_device() -> str:
    """``"cuda"`` or ``"mps"`` where torch has one, else ``"cpu"``. Imports torch."""
    found = devices()
    return found[0].split(":")[0] if found else "cpu"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError, AttributeError):
        return None
    return round(total / 2**30, 1)


def _commit() -> str | None:
    """The commit of the checkout this file stands in, or None for an installed wheel."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        git = ["git", "-C", str(root)]
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changes = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return head.stdout.strip() + ("+changes" if changes.stdout.strip() else "")
