"""Run folders: one folder per run that says what was run, on what, and how it went.

    config.toml     the resolved config; reloads to the same object
    versions.json   versions and hardware, one entry per start (a resumed run has several)
    metrics.jsonl   one line per logged step; the truth
    tb/             the same scalars for TensorBoard; rebuilt from metrics.jsonl on resume

Checkpoints and reports are put beside these by whoever makes them.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tomllib
from collections.abc import Collection
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import machine
from .config import to_toml
from .errors import ConfigError, TubeletError
from .io import atomic_write_json, atomic_write_text
from .progress import progress as progress

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


class RunDir:
    """A run's folder, open for logging. Make one with :meth:`create`; use it as a context manager.

    Every :meth:`log` line is on disk (in the kernel's hands) before the call returns, so a killed
    process loses none; a torn last line is dropped when the run is resumed.
    """

    def __init__(self, path: Path):
        self.path = path
        self._metrics = open(path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115
        self._tensorboard: SummaryWriter | None = None

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str],
        config: Any,
        *,
        resume: bool = False,
        may_differ: Collection[str] = ("resume",),
    ) -> RunDir:
        """Open ``path`` for a new run of ``config`` (a dataclass), or to go on with an old one.

        A new run needs a folder that is absent or empty. With ``resume`` the folder may hold a run
        of the same config, where the dotted keys in ``may_differ`` (and tables of those names) may
        have changed; an absent or empty folder starts a new run, so that a job that is always
        started with ``--resume`` works the first time.

        Raises :class:`TubeletError` if the folder holds something else or cannot be written,
        :class:`ConfigError` if the configs differ (naming each key with both values).
        """
        path = Path(path)
        text = to_toml(config)
        try:
            path.mkdir(parents=True, exist_ok=True)
            old = any(not entry.name.startswith(".") for entry in path.iterdir())
            if old and not resume:
                raise TubeletError(
                    f"the run folder {path} is not empty: name another, or go on with --resume"
                )
            if old:
                _check_same_run(path, text, may_differ)
                _rewrite_metrics(path / "metrics.jsonl", last_step=None)
            atomic_write_text(path / "config.toml", text)
            starts = json.loads((path / "versions.json").read_text())["starts"] if old else []
            atomic_write_json(path / "versions.json", {"starts": [*starts, machine.facts()]})
            return cls(path)
        except OSError as error:
            raise TubeletError(
                f"cannot write the run folder {path}: {error.strerror}; "
                "free some space, fix its permissions or name another"
            ) from error

    def log(self, step: int, **scalars: Any) -> None:
        """Append one line ``{"step": step, **scalars}`` to metrics.jsonl, and to TensorBoard.

        Values are numbers or one-element tensors; NaN and Inf are written as ``null``. Steps must
        not decrease if :meth:`truncate_after` is to be exact. Groups: ``**{"train/loss": loss}``.

        Raises :class:`TubeletError` if it cannot be written (a full disk, say).
        """
        values = {name: float(value) for name, value in scalars.items()}
        finite = {name: v if math.isfinite(v) else None for name, v in values.items()}
        try:
            self._metrics.write(json.dumps({"step": int(step), **finite}, allow_nan=False) + "\n")
            self._metrics.flush()
            writer = self._writer()
            for name, value in values.items():
                writer.add_scalar(name, value, int(step))
        except OSError as error:
            raise TubeletError(
                f"cannot write the metrics of step {step} to {self.path}: {error.strerror}; free "
                "some space, then go on with --resume from the last checkpoint, which is intact"
            ) from error

    def truncate_after(self, step: int) -> None:
        """Forget every metric logged after ``step``: call it with the step of the checkpoint that
        a resumed run starts from, and its metrics equal those of a run that was never stopped."""
        self.close()
        _rewrite_metrics(self.path / "metrics.jsonl", last_step=step)
        self._metrics = open(self.path / "metrics.jsonl", "a", encoding="utf-8")  # noqa: SIM115

    def close(self) -> None:
        """Flush and close. Closing twice is harmless."""
        self._metrics.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None

    def __enter__(self) -> RunDir:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with (
            suppress(OSError) if kind is not None else nullcontext()
        ):  # what went wrong comes first
            self.close()

    def _writer(self) -> SummaryWriter:
        """TensorBoard's writer; on first use, what an earlier start logged is written again."""
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            shutil.rmtree(self.path / "tb", ignore_errors=True)
            self._tensorboard = SummaryWriter(str(self.path / "tb"))
            for line in read_metrics(self.path)[:-1]:  # the last line is being logged now
                step = line.pop("step")
                for name, value in line.items():
                    if value is not None:
                        self._tensorboard.add_scalar(name, value, step)
        return self._tensorboard


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The logged lines of the run folder ``path``, oldest first; a torn last line is left out."""
    return [json.loads(line) for line in _whole_lines(Path(path) / "metrics.jsonl")]


def _whole_lines(path: Path) -> list[str]:
    if not path.exists():
        return []
    return [
        line
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
        if line.endswith("\n")
    ]


def _rewrite_metrics(path: Path, last_step: int | None) -> None:
    """Keep the whole lines up to ``last_step`` (all of them for None)."""
    lines = _whole_lines(path)
    kept = [s for s in lines if last_step is None or json.loads(s)["step"] <= last_step]
    atomic_write_text(path, "".join(kept))


def _check_same_run(path: Path, text: str, may_differ: Collection[str]) -> None:
    """Raise unless ``path`` holds a run whose config is ``text`` but for ``may_differ``."""
    if not (path / "config.toml").exists():
        raise TubeletError(
            f"cannot resume {path}: it has no config.toml, so it is no run folder; name another"
        )
    try:
        old = _flatten(tomllib.loads((path / "config.toml").read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise TubeletError(f"cannot resume {path}: its config.toml is damaged: {error}") from error
    new = _flatten(tomllib.loads(text))
    changed = [
        f"  - {key}: was {old.get(key, 'none')!r}, now {new.get(key, 'none')!r}"
        for key in sorted(old.keys() | new.keys())
        if old.get(key) != new.get(key)
        and not any(key == free or key.startswith(f"{free}.") for free in may_differ)
    ]
    if changed:
        raise ConfigError(
            f"cannot resume {path} with another config; take these back or start a new run:\n"
            + "\n".join(changed)
        )


def _flatten(table: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
