"""Writes trajectory sets, from any number of processes, so that a killed run loses little.

While a set is being written, every episode is one mp4 file in its final place and one small parquet
file under ``parts/``, each atomic. ``finalize`` merges the parts into the data files and writes the
metadata. Episode ``i`` is video file ``i``; all episodes share the data files.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.io import atomic_path, atomic_write_json
from . import lerobot
from .decode import open_video
from .video_writer import write_video

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_DATA_BYTES = 100 * 2**20


class TrajectoryWriter:
    """Writes one trajectory set. Make one with :meth:`create`; it can be pickled to workers."""

    def __init__(self, root: Path, features: dict[str, Any], fps: int, task: str):
        self.root, self.fps, self.task = root, fps, task
        self._features = features

    @classmethod
    def create(
        cls,
        root: str | os.PathLike[str],
        *,
        fps: int,
        image_size: int,
        proprio_dim: int,
        state_dim: int,
        action_dim: int,
        metadata: dict[str, Any],
        task: str = "",
    ) -> TrajectoryWriter:
        """Start the set ``root``, or go on with one started with the same arguments.

        Args:
            fps: frames per second. image_size: height and width, even. metadata: JSON values that
                say how the set is made (kept in meta/tubelet.json). task: LeRobot's task text.

        Raises:
            DatasetError: ``root`` holds something else or cannot be written.
            ConfigError: an impossible size or rate.
        """
        root = Path(root)
        if image_size % 2 or image_size < 16:
            nearest = max(16, image_size + image_size % 2)
            raise ConfigError(
                f"image_size = {image_size}: H.264 needs an even size of at least 16; the nearest "
                f"is {nearest}"
            )
        if fps < 1:
            raise ConfigError(f"fps = {fps}: must be at least 1")
        widths = {
            lerobot.PROPRIO: ("float32", proprio_dim),
            lerobot.STATE: ("float64", state_dim),
            lerobot.ACTION: ("float32", action_dim),
        }
        features = lerobot.features(fps=fps, image_size=image_size, widths=widths)
        ours = {"fps": fps, "task": task, "features": features, "metadata": metadata}
        ours = json.loads(json.dumps(ours))
        try:
            root.mkdir(parents=True, exist_ok=True)
            if (root / lerobot.MAKER_PATH).exists():
                _check_same(
                    root, json.loads((root / lerobot.MAKER_PATH).read_text(encoding="utf-8")), ours
                )
            elif any(root.iterdir()):
                raise DatasetError(
                    f"{root} is not empty and no trajectory set: name another folder"
                )
            else:
                atomic_write_json(root / lerobot.MAKER_PATH, ours)
        except (OSError, ValueError) as error:
            raise DatasetError(f"cannot write the trajectory set {root}: {error}") from error
        return cls(root, features, fps, task)

    def add_episode(
        self,
        index: int,
        pixels: np.ndarray,
        proprio: np.ndarray,
        state: np.ndarray,
        action: np.ndarray,
    ) -> None:
        """Write episode ``index``, atomically; processes may add different ones at once.

        Args:
            pixels: uint8 ``[T, H, W, 3]``. proprio: float32 ``[T, P]``. state: float64 ``[T, S]``.
            action: float32 ``[T, A]``, the last row zeros.

        Raises:
            DatasetError: shapes that do not fit the set or each other, or values not finite.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        length = len(pixels)
        given = {"proprio": proprio, "state": state, "action": action}
        columns = {}
        for name, array in given.items():
            feature = self._features[lerobot.VECTORS[name]]
            columns[lerobot.VECTORS[name]] = values = np.asarray(array, feature["dtype"])
            if values.shape != (length, *feature["shape"]) or not np.isfinite(values).all():
                raise DatasetError(
                    f"episode {index}: {name} has shape {list(values.shape)}; expected "
                    f"{[length, *feature['shape']]} finite numbers"
                )
        if list(pixels.shape[1:]) != self._features[lerobot.CAMERA]["shape"]:
            raise DatasetError(
                f"episode {index}: frames {list(pixels.shape[1:])} in a set of "
                f"{self._features[lerobot.CAMERA]['shape']}"
            )
        if length == 0 or columns[lerobot.ACTION][-1].any():
            raise DatasetError(f"episode {index}: the last of the {length} action rows must be 0")
        steps = np.arange(length)
        columns |= {
            "timestamp": (steps / self.fps).astype(np.float32),
            "frame_index": steps,
            "episode_index": np.full(length, index),
            "index": steps,  # within the set: known when all lengths are, in finalize
            "task_index": np.zeros(length, np.int64),
        }
        schema = lerobot.schema(self._features)
        arrays = [lerobot.column(columns[field.name], field.type) for field in schema]
        write_video(self._video_path(index), pixels, fps=self.fps)
        with atomic_path(self._part_path(index)) as temporary:
            pq.write_table(pa.Table.from_arrays(arrays, schema=schema), temporary)

    def finished(self) -> set[int]:
        """The episodes that are wholly on disk, in parts or merged."""
        merged = lerobot.read_columns(self._data_files(), ["episode_index"])
        done = set() if merged is None else set(merged["episode_index"].to_pylist())
        return done | {int(path.stem) for path in self._parts()}

    def finalize(self) -> None:
        """Merge the parts and write the metadata; the set can then be opened.

        May be called again after more episodes were added, and repeated if it was killed.

        Raises:
            DatasetError: there is no episode, or one is missing below the highest.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        episodes = self._all_episodes()
        rows, files, start = [], [[]], 0
        for number, table in enumerate(episodes):
            if sum(part.nbytes for part in files[-1]) > _MAX_DATA_BYTES:
                files.append([])
            length = len(table)
            position = table.schema.get_field_index("index")
            order = pa.array(np.arange(start, start + length))
            files[-1].append(table.set_column(position, table.schema.field("index"), order))
            rows.append(self._episode_row(number, len(files) - 1, start, length))
            start += length
        for number, tables in enumerate(files):
            path = self.root / lerobot.DATA_PATH.format(**lerobot.chunk_and_file(number))
            with atomic_path(path) as temporary:
                pq.write_table(pa.concat_tables(tables), temporary)
        with atomic_path(self.root / lerobot.EPISODES_PATH) as temporary:
            pq.write_table(lerobot.episodes_table(rows), temporary)
        with atomic_path(self.root / lerobot.TASKS_PATH) as temporary:
            pq.write_table(lerobot.tasks_table(self.task), temporary)
        atomic_write_json(self.root / lerobot.STATS_PATH, self._statistics(files))
        content = lerobot.info(
            fps=self.fps, episodes=len(rows), frames=start, features=self._features
        )
        atomic_write_json(self.root / lerobot.INFO_PATH, content)
        shutil.rmtree(self.root / "parts", ignore_errors=True)
        for left_over in (self.root / "videos").rglob(".*.mp4"):  # of a killed writer
            left_over.unlink()

    def _all_episodes(self) -> list[pa.Table]:
        """Every episode's rows in order: those merged before and those in parts."""
        found: dict[int, pa.Table] = {}
        merged = lerobot.read_columns(self._data_files(), None)
        if merged is not None:
            starts = np.flatnonzero(merged["frame_index"].to_numpy() == 0).tolist()
            for start, stop in zip(starts, [*starts[1:], len(merged)], strict=True):
                found[merged["episode_index"][start].as_py()] = merged.slice(start, stop - start)
        for path in self._parts():
            found[int(path.stem)] = lerobot.read_table(path)
        if not found:
            raise DatasetError(f"{self.root} has no finished episode")
        if missing := sorted(set(range(max(found) + 1)) - set(found)):
            raise DatasetError(f"{self.root} lacks episodes {missing[:10]}: collect them first")
        return [found[number] for number in sorted(found)]

    def _episode_row(self, number: int, data_file: int, start: int, length: int) -> dict[str, Any]:
        data, video = lerobot.chunk_and_file(data_file), lerobot.chunk_and_file(number)
        key = f"videos/{lerobot.CAMERA}"
        return {
            "episode_index": number,
            "tasks": [self.task],
            "length": length,
            "data/chunk_index": data["chunk_index"],
            "data/file_index": data["file_index"],
            "dataset_from_index": start,
            "dataset_to_index": start + length,
            f"{key}/chunk_index": video["chunk_index"],
            f"{key}/file_index": video["file_index"],
            f"{key}/from_timestamp": 0.0,
            f"{key}/to_timestamp": length / self.fps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }

    def _statistics(self, files: list[list[pa.Table]]) -> dict[str, Any]:
        """Exact over all rows; of the images, over the first frames of up to 64 episodes."""
        import pyarrow as pa

        episodes = [table for tables in files for table in tables]
        table = pa.concat_tables(episodes)
        stats = {
            name: lerobot.statistics(lerobot.to_numpy(table[name])) for name in table.column_names
        }
        some = np.unique(np.linspace(0, len(episodes) - 1, 64).astype(int)).tolist()
        frames = []
        for number in some:
            with open_video(self._video_path(number)) as video:
                frames.append(video.get_frames([0])[0])
        return {**stats, lerobot.CAMERA: lerobot.image_statistics(np.stack(frames))}

    def _video_path(self, index: int) -> Path:
        where = lerobot.chunk_and_file(index)
        return self.root / lerobot.VIDEO_PATH.format(video_key=lerobot.CAMERA, **where)

    def _part_path(self, index: int) -> Path:
        return self.root / "parts" / f"{index:06d}.parquet"

    def _parts(self) -> list[Path]:
        """The finished parts: not the temporary files (``.000003-…``) of a killed writer."""
        return sorted((self.root / "parts").glob("[0-9]*.parquet"))

    def _data_files(self) -> list[Path]:
        return sorted((self.root / "data").glob("chunk-*/file-*.parquet"))


def _check_same(root: Path, old: dict[str, Any], new: dict[str, Any]) -> None:
    """Raise if a set was started with other settings, naming the first difference."""
    flat_old, flat_new = _flat(old), _flat(new)
    for key in sorted(flat_old.keys() | flat_new.keys()):
        if flat_old.get(key) != flat_new.get(key):
            raise DatasetError(
                f"{root} is another trajectory set: its {key} is {flat_old.get(key)!r}, now "
                f"{flat_new.get(key)!r}. Name another folder, or use the same settings"
            )


def _flat(value: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    items: dict[str, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, dict):
            items |= _flat(inner, f"{prefix}{key}.")
        else:
            items[prefix + key] = inner
    return items
