"""The LeRobot v3 dataset layout: names, schemas and metadata files. Reading and writing of episodes
is in :mod:`.trajectories`.

    meta/info.json                                    sizes, rate, features, path templates
    meta/stats.json                                   min, max, mean, std, quantiles per feature
    meta/tasks.parquet                                task texts
    meta/episodes/chunk-000/file-000.parquet          one row per episode: where its parts lie
    data/chunk-000/file-000.parquet                   one row per frame: everything but the pixels
    videos/<camera>/chunk-000/file-000.mp4            the pixels; any number of episodes per file

Facts from the files that lerobot 0.4.4 writes. Its package is not needed.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.errors import DatasetError

if TYPE_CHECKING:
    import pyarrow as pa

VERSION = "v3.0"
CHUNK_SIZE = 1000
"""Files per chunk folder."""
DATA_PATH = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH = "meta/episodes/chunk-000/file-000.parquet"
INFO_PATH, STATS_PATH, TASKS_PATH = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
CAMERA, PROPRIO, STATE, ACTION = (
    "observation.images.top",
    "observation.state",
    "observation.sim_state",
    "action",
)
VECTORS = {"proprio": PROPRIO, "state": STATE, "action": ACTION}
"""Our short names for the vector features."""
MAKER_PATH = "meta/tubelet.json"
"""What made the set; other readers ignore it."""
_BOOKKEEPING = {
    "timestamp": "float32",
    "frame_index": "int64",
    "episode_index": "int64",
    "index": "int64",
    "task_index": "int64",
}


def chunk_and_file(number: int) -> dict[str, int]:
    """Where file ``number`` of a kind lies: ``{"chunk_index", "file_index"}``."""
    return {"chunk_index": number // CHUNK_SIZE, "file_index": number % CHUNK_SIZE}


def features(*, fps: int, image_size: int, widths: dict[str, tuple[str, int]]) -> dict[str, Any]:
    """The ``features`` of info.json: a square camera, vectors ``{name: (dtype, width)}`` and the
    bookkeeping columns."""
    video = {
        "video.height": image_size,
        "video.width": image_size,
        "video.codec": "h264",
        "video.pix_fmt": "yuv420p",
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    camera = {
        "dtype": "video",
        "shape": [image_size, image_size, 3],
        "names": ["height", "width", "channels"],
        "info": video,
    }
    vectors = {
        name: {"dtype": dtype, "shape": [width], "names": None}
        for name, (dtype, width) in widths.items()
    }
    scalars = {
        name: {"dtype": dtype, "shape": [1], "names": None} for name, dtype in _BOOKKEEPING.items()
    }
    return {**vectors, CAMERA: camera, **scalars}


def info(*, fps: int, episodes: int, frames: int, features: dict[str, Any]) -> dict[str, Any]:
    """The content of meta/info.json."""
    return {
        "codebase_version": VERSION,
        "robot_type": None,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": 1,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": features,
    }


def read_info(root: Path) -> dict[str, Any]:
    """Read and check meta/info.json.

    Raises:
        DatasetError: absent, unreadable, of another version, or without a camera.
    """
    path = root / INFO_PATH
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DatasetError(
            f"{root} is not a trajectory set: it has no {INFO_PATH} (an interrupted collection is "
            "finished by the same `tubelet collect` command again)"
        ) from error
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    version = str(content.get("codebase_version"))
    if not version.startswith("v3."):
        raise DatasetError(f"{path} has LeRobot layout {version}: only v3 is read; convert it")
    if not any(feature["dtype"] == "video" for feature in content["features"].values()):
        raise DatasetError(f"{path} lists no video feature")
    return content


def schema(features: dict[str, Any]) -> pa.Schema:
    """The Arrow schema of the data files: fixed-size lists for vectors, plain scalar columns, and
    the note by which Hugging Face ``datasets`` knows them."""
    import pyarrow as pa

    types = {"float32": pa.float32(), "float64": pa.float64(), "int64": pa.int64()}
    fields, notes = [], {}
    for name, feature in features.items():
        if feature["dtype"] == "video":
            continue
        kind, width = types[feature["dtype"]], feature["shape"][0]
        value = {"dtype": feature["dtype"], "_type": "Value"}
        if name in _BOOKKEEPING:
            fields.append(pa.field(name, kind))
            notes[name] = value
        else:
            fields.append(pa.field(name, pa.list_(kind, width)))
            notes[name] = {"feature": value, "length": width, "_type": "List"}
    note = json.dumps({"info": {"features": notes}})
    return pa.schema(fields, metadata={"huggingface": note})


def column(array: np.ndarray, kind: pa.DataType) -> pa.Array:
    """``[T]`` or ``[T, n]`` as an Arrow column of type ``kind``."""
    import pyarrow as pa

    if array.ndim == 1:
        return pa.array(array, kind)
    flat = pa.array(np.ascontiguousarray(array).reshape(-1), kind.value_type)
    return pa.FixedSizeListArray.from_arrays(flat, array.shape[1])


def to_numpy(chunked: pa.ChunkedArray) -> np.ndarray:
    """A numeric or fixed-size-list column as ``[T]`` or ``[T, n]``."""
    import pyarrow as pa

    if not pa.types.is_fixed_size_list(chunked.type):
        return chunked.to_numpy()
    flat = chunked.combine_chunks().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(chunked), chunked.type.list_size)


def read_table(path: Path) -> pa.Table:
    """One parquet file. Raises :class:`DatasetError` if it is absent or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error


def read_columns(paths: Sequence[Path], columns: list[str] | None) -> pa.Table | None:
    """The rows of all ``paths`` (None without any file); ``columns=None`` means all.

    Raises:
        DatasetError: a damaged file.
    """
    import pyarrow as pa

    tables = [read_table(path) for path in paths]
    if not tables:
        return None
    if columns is not None:
        tables = [table.select(columns) for table in tables]
    return pa.concat_tables(tables)


def tasks_table(task: str) -> pa.Table:
    """The content of meta/tasks.parquet, its text an index column as pandas would write it."""
    import pyarrow as pa

    index = "__index_level_0__"
    note = {
        "index_columns": [index],
        "column_indexes": [],
        "columns": [
            {
                "name": name,
                "field_name": field,
                "pandas_type": pandas_type,
                "numpy_type": numpy_type,
                "metadata": None,
            }
            for name, field, pandas_type, numpy_type in (
                ("task_index", "task_index", "int64", "int64"),
                (None, index, "unicode", "object"),
            )
        ],
        "creator": {"library": "pyarrow", "version": pa.__version__},
        "pandas_version": "2.0.0",
    }
    table = pa.table({"task_index": pa.array([0]), index: pa.array([task], pa.large_string())})
    return table.replace_schema_metadata({"pandas": json.dumps(note)})


def episodes_table(rows: list[dict[str, Any]]) -> pa.Table:
    """The content of meta/episodes: where each episode's rows and frames lie."""
    import pyarrow as pa

    kinds = {"tasks": pa.list_(pa.string())}
    return pa.table(
        {name: pa.array([row[name] for row in rows], kinds.get(name)) for name in rows[0]}
    )


def statistics(values: np.ndarray) -> dict[str, list[float] | list[int]]:
    """min, max, mean, std, count and quantiles over the rows of ``[T]`` or ``[T, n]``."""
    values = values.reshape(len(values), -1).astype(np.float64)
    quantiles = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
    return {
        "min": values.min(0).tolist(),
        "max": values.max(0).tolist(),
        "mean": values.mean(0).tolist(),
        "std": values.std(0).tolist(),
        "count": [len(values)],
        **{name: np.quantile(values, q, axis=0).tolist() for name, q in quantiles.items()},
    }


def image_statistics(pixels: np.ndarray) -> dict[str, Any]:
    """The statistics of frames uint8 ``[T, H, W, 3]``: per channel, in [0, 1], as ``[3, 1, 1]``."""
    flat = statistics(pixels.reshape(-1, 3) / 255.0)
    nested = {name: [[[value]] for value in values] for name, values in flat.items()}
    return {**nested, "count": [len(pixels)]}
