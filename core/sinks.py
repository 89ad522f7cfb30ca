"""Weights & Biases as a second place for what a run logs; ``metrics.jsonl`` stays the truth.

    with RunDir.create("runs/first", config) as run, WandbSink(run.path, project="video") as sink:
        run.log(0, loss=1.0)
        sink.log(0, {"loss": 1.0})

    replay_to_wandb("runs/first", project="video")    # afterwards, from metrics.jsonl

    python -m tubelet.core.sinks --run runs/first --project video

The package is optional (``pip install wandb``) and imported only here. Its own settings hold:
``WANDB_MODE=offline`` writes below the run folder and sends nothing.
"""

from __future__ import annotations

import hashlib
import math
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from .errors import TubeletError
from .run import read_metrics


class WandbSink:
    """A run at Weights & Biases that goes with a run folder; close it, or use it as a context
    manager. A resumed folder goes on with the same run there.

    Args:
        run: the run folder; its ``config.toml`` becomes the run's config.
        project: at Weights & Biases. name: of the run; the folder's by default.

    Raises:
        TubeletError: the package is not installed, or refuses to start.
    """

    def __init__(self, run: str | os.PathLike[str], *, project: str, name: str | None = None):
        wandb = _package()
        folder = Path(run)
        identity = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
        try:
            self._run: Any = wandb.init(
                project=project,
                name=name or folder.resolve().name,
                id=identity,
                resume="allow",
                dir=str(folder),
                config=_config(folder),
            )
        except wandb.Error as error:
            raise TubeletError(
                f"Weights & Biases does not start: {error}; log in with `wandb login`, or set "
                "WANDB_MODE=offline"
            ) from error

    def log(self, step: int, scalars: Mapping[str, float | None]) -> None:
        """Pass on the numbers of one step; what is not finite is left out. Steps must not fall."""
        fine = {k: float(v) for k, v in scalars.items() if v is not None and math.isfinite(v)}
        if fine:
            self._run.log(fine, step=step)

    def close(self) -> None:
        """Finish the run there. Closing twice is harmless."""
        if self._run is not None:
            self._run.finish()
            self._run = None

    def __enter__(self) -> WandbSink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def replay_to_wandb(run: str | os.PathLike[str], *, project: str, name: str | None = None) -> int:
    """Pass on everything that ``metrics.jsonl`` of a run folder holds; how many steps there were.

    Raises:
        TubeletError: nothing was logged there, or see :class:`WandbSink`.
    """
    steps = list(_by_step(run))
    if not steps:
        raise TubeletError(f"{run}: no metrics.jsonl with whole lines, so nothing to pass on")
    with WandbSink(run, project=project, name=name) as sink:
        for step, scalars in steps:
            sink.log(step, scalars)
    return len(steps)


def _by_step(run: str | os.PathLike[str]) -> Iterator[tuple[int, dict[str, float | None]]]:
    """The scalars of each step; a step may have been logged in several lines."""
    current: int | None = None
    scalars: dict[str, float | None] = {}
    for line in read_metrics(run):
        step = int(line.pop("step"))
        if current is not None and step != current:
            yield current, scalars
            scalars = {}
        current = step
        scalars |= line
    if current is not None:
        yield current, scalars


def _config(run: Path) -> dict[str, Any]:
    path = run / "config.toml"
    return tomllib.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def _package() -> Any:
    try:
        import wandb  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise TubeletError(
            f"Weights & Biases cannot be imported ({error}): pip install wandb"
        ) from error
    return wandb


if __name__ == "__main__":
    import tyro

    count = tyro.cli(replay_to_wandb)
    print(f"{count} steps passed on")
