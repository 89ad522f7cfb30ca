"""``tubelet doctor``: what works on this machine, what does not, and how to fix it."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from ..core import machine
from ..core.errors import TubeletError
from ..core.io import atomic_path

GIB = 2**30
NEED_DISK_GIB = 2.0
NEED_MEMORY_GIB = 6.0


@dataclass(frozen=True, kw_only=True)
class Config:
    """Check Python, torch, devices, rendering, video decoding, memory and disk."""

    path: Path = Path(".")
    """Folder whose disk is checked: where you mean to put data and runs."""


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One line of the table. A fault in something ``needed`` makes the command fail."""

    name: str
    ok: bool
    detail: str
    fix: str = ""
    needed: bool = True


def run(config: Config) -> int:
    """Print the table; 0 if everything needed works, else 1."""
    findings = examine(config)
    _show(findings)
    return int(any(finding.needed and not finding.ok for finding in findings))


def examine(config: Config) -> list[Finding]:
    """Try everything and say how it went. Raises nothing: a fault is a finding."""
    checks: list[tuple[str, Callable[[], str], str, bool]] = [
        ("python", _python, "", True),
        ("torch", _torch, _reinstall("torch"), True),
        ("devices", _devices, _reinstall("torch"), True),
        ("rendering", _rendering, f"unset MUJOCO_GL, else {_reinstall('mujoco')}", True),
        ("video: pyav", lambda: _video("pyav", "av"), _reinstall("av"), True),
        (
            "video: decord",
            lambda: _video("decord", "decord"),
            "pip install decord (x86-64 Linux)",
            False,
        ),
        ("video: torchcodec", lambda: _video("torchcodec", "torchcodec"), "", False),
        ("memory", _memory, "close other programs: the demo needs it", False),
        ("disk", lambda: _disk(config.path), "free space, or name another folder: --path", True),
    ]
    return [_attempt(*check) for check in checks]


def _reinstall(package: str) -> str:
    return f"pip install --force-reinstall {package}"


def _attempt(name: str, check: Callable[[], str], fix: str, needed: bool) -> Finding:
    try:
        return Finding(name=name, ok=True, detail=check(), needed=needed)
    except TubeletError as error:  # says itself what to do
        return Finding(name=name, ok=False, detail=str(error), needed=needed)
    except Exception as error:  # anything a broken native library may raise is a finding
        detail = f"{type(error).__name__}: {error}"
        return Finding(name=name, ok=False, detail=detail, fix=fix, needed=needed)


def _python() -> str:
    return f"{sys.version.split()[0]} in {sys.prefix}"


def _torch() -> str:
    import torch

    product = torch.ones(8, 8) @ torch.ones(8, 8)
    if product.sum().item() != 512:
        raise RuntimeError(f"an 8x8 product of ones sums to {product.sum().item()}, not 512")
    return f"{torch.__version__}, {torch.get_num_threads()} threads"


def _devices() -> str:
    cpu = f"cpu ({machine.cores()} cores)"
    return ", ".join([*machine.devices(), cpu])


def _rendering() -> str:
    from ..envs.rendering import probe_gl

    backend, frame = probe_gl()
    if frame.std() == 0:
        raise RuntimeError(f"{backend} rendered a frame of one colour")
    height, width = frame.shape[:2]
    return f"{backend} (rendered a {width}x{height} frame, brightness {frame.mean():.0f})"


def _video(backend: Literal["pyav", "decord", "torchcodec"], package: str) -> str:
    from ..datasets.decode import open_video

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ramp.mp4"
        levels = _write_ramp(path)
        with open_video(path, backend=backend) as video:
            frames = video.get_frames(np.arange(len(levels)))
    error = np.abs(frames.mean(axis=(1, 2, 3)) - levels).max()
    if error > 4:
        raise RuntimeError(f"decoded grey levels are off by {error:.0f} of 255")
    return f"{machine.version(package)} (decoded {len(levels)} frames of H.264)"


def _write_ramp(path: Path) -> np.ndarray:
    """Encode 8 grey 64x64 frames to ``path``; return their grey levels, float [8]."""
    import av

    levels = np.linspace(40, 215, 8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=8)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for level in levels:
            pixels = np.full((64, 64, 3), round(level), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return levels


def _memory() -> str:
    meminfo = Path("/proc/meminfo")
    if not meminfo.exists():
        return "not measured on this system"
    lines = dict(line.split(":", 1) for line in meminfo.read_text().splitlines())
    free = int(lines["MemAvailable"].split()[0]) * 1024 / GIB
    if free < NEED_MEMORY_GIB:
        raise RuntimeError(f"{free:.1f} GiB free, less than {NEED_MEMORY_GIB:.0f}")
    return f"{free:.1f} GiB free"


def _disk(path: Path) -> str:
    path = path.resolve()
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is no folder")
    with atomic_path(path / ".tubelet-doctor") as temporary:
        temporary.write_bytes(os.urandom(1 << 20))
    (path / ".tubelet-doctor").unlink()
    free = shutil.disk_usage(path).free / GIB
    if free < NEED_DISK_GIB:
        raise RuntimeError(f"{free:.1f} GiB free in {path}, less than {NEED_DISK_GIB:.0f}")
    return f"{free:.1f} GiB free in {path}"


def _show(findings: list[Finding]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("", "what", title="tubelet doctor", title_justify="left")
    table.add_column("found", overflow="fold")
    table.add_column("fix", overflow="fold")
    for finding in findings:
        mark = Text("ok", "green") if finding.ok else Text("FAULT", "bold red")
        if not finding.ok and not finding.needed:
            mark = Text("absent", "yellow")
        table.add_row(mark, finding.name, Text(finding.detail), Text(finding.fix))
    Console().print(table)
