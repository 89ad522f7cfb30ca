"""Re-encode a corpus once for training: small frames, short groups of pictures, few large files.

Decoding a clip costs most where a keyframe is far away and frames are larger than the model needs.
Packed videos have their short side scaled to the training size, a keyframe every few frames and no
B-frames, and lie in tar shards (WebDataset's layout: ``00000012.mp4`` and ``00000012.json`` each):

    pack.json         settings, and which files were packed
    000000.tar …      the shards        000000.json …   what each holds, and what failed
    index.jsonl       an index of all: the folder is a source for index_corpus

Frames keep their times to the tick, from 0 on; the ``.json`` members keep the original's path and
start. A shard is written whole or not at all, and a run that was killed goes on at the next one.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, DatasetError, VideoDecodeError
from ..core.io import atomic_path, atomic_write_json
from .decode import open_video
from .entries import BadVideo, CorpusIndex, VideoEntry
from .index_file import save_index
from .parallel import parallel_map
from .sources import PACK_FILE, PACK_INDEX
from .storage import Part, shown, stamp
from .timeline import scan
from .video_writer import SAME_BYTES
from .videos import VERIFY

_FORMAT = "tubelet-pack"
_BLOCK = 512  # of a tar file
_TOLERANCE = 1e-6  # seconds by which a frame's time may differ after packing


@dataclass(frozen=True, kw_only=True)
class PackConfig:
    """How videos are packed."""

    size: int = 256
    """Short side in pixels; smaller videos keep their size. Leave room for random crops."""
    gop: int = 8
    """A keyframe every so many frames: at most that many are decoded in vain."""
    crf: int = 20
    """Compression: 0 (lossless) to 51."""
    preset: str = "medium"
    """x264's effort: ultrafast … veryslow."""
    shard_videos: int = 100
    """Videos per shard; a shard is what a killed run repeats."""

    def __post_init__(self) -> None:
        wrong = [
            f"{key}={getattr(self, key)} must be at least {least}"
            for key, least in {"size": 16, "gop": 1, "shard_videos": 1}.items()
            if getattr(self, key) < least
        ]
        if not 0 <= self.crf <= 51:
            wrong.append(f"crf={self.crf} must lie between 0 and 51")
        if wrong:
            raise ConfigError("pack: " + "; ".join(wrong))


def pack(
    index: CorpusIndex,
    folder: str | os.PathLike[str],
    config: PackConfig,
    *,
    processes: int | None = None,
    progress: bool = True,
) -> CorpusIndex:
    """Write the shards that are not there yet, and return the index of all of them.

    Args:
        processes: that encode, each a shard at a time; None takes one per core.

    Videos that fail on the way are in the index's quarantine. Raises DatasetError if the folder
    holds other shards, and ConfigError for images.
    """
    if any(entry.info.is_image for entry in index.entries):
        raise ConfigError(f"{index.source} holds images: only videos are packed")
    folder = Path(folder).absolute()
    _claim(folder, index, config)
    step = config.shard_videos
    jobs = [(n, index.entries[at : at + step]) for n, at in enumerate(range(0, len(index), step))]
    work = partial(_pack_shard, folder=folder, config=config)
    processes = processes or min(os.cpu_count() or 1, len(jobs))
    label = "pack shards" if progress else ""
    shards = list(parallel_map(work, jobs, processes=processes, description=label))
    packed = CorpusIndex(
        source=index.source,
        entries=tuple(VideoEntry.from_json(e) for shard in shards for e in shard["entries"]),
        quarantine=tuple(BadVideo(*bad) for shard in shards for bad in shard["bad"]),
        cache_path=str(folder / PACK_INDEX),
    )
    save_index(packed, folder / PACK_INDEX, len(VERIFY) - 1, relative=True)
    return packed


def _claim(folder: Path, index: CorpusIndex, config: PackConfig) -> None:
    """Say in ``pack.json`` what the folder holds; refuse one that holds something else."""
    names = [[entry.path, entry.bytes, entry.num_frames] for entry in index.entries]
    about = {
        "format": _FORMAT,
        "settings": asdict(config),
        "source": shown(index.source),
        "videos": len(index),
        "sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
    }
    path = folder / PACK_FILE
    if not path.exists():
        if folder.exists() and any(folder.iterdir()):
            raise DatasetError(f"{folder} is not empty and holds no packed videos: use another one")
        atomic_write_json(path, about)
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        differ = [key for key in about if there.get(key) != about[key]]
    except (ValueError, AttributeError) as error:
        raise DatasetError(f"{path}: not readable ({error!r}); use another folder") from error
    if differ:
        raise DatasetError(
            f"{folder} holds other shards: {', '.join(differ)} differ. Use another folder, or "
            "delete it"
        )


def _pack_shard(
    job: tuple[int, Sequence[VideoEntry]], *, folder: Path, config: PackConfig
) -> dict[str, Any]:
    """Write a shard unless it is there: its entries as JSON, and its failures."""
    number, entries = job
    path, about = folder / f"{number:06d}.tar", folder / f"{number:06d}.json"
    if path.exists() and about.exists():
        found = json.loads(about.read_text(encoding="utf-8"))
    else:
        first = number * config.shard_videos
        found = _write_shard(path, list(enumerate(entries, start=first)), config)
        atomic_write_json(about, found)
    _, size, mtime_ns = stamp(str(path))
    if size != found["bytes"]:
        raise DatasetError(f"{path} has {size} bytes, not {found['bytes']}: delete it to redo it")
    for entry in found["entries"]:
        entry |= {"path": str(folder / entry["path"]), "mtime_ns": mtime_ns}
    return found


def _write_shard(
    path: Path, entries: list[tuple[int, VideoEntry]], config: PackConfig
) -> dict[str, Any]:
    packed, bad = [], []
    with atomic_path(path) as temporary:
        with tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as archive:
            for number, entry in entries:
                try:
                    data = encode(entry, config)
                except VideoDecodeError as error:
                    bad.append([entry.path, error.reason, entry.bytes, entry.mtime_ns])
                    continue
                about = {"source": shown(entry.path), "start": float(entry.timestamps[0])}
                offset = archive.offset + _BLOCK
                _add(archive, f"{number:08d}.mp4", data)
                _add(archive, f"{number:08d}.json", json.dumps(about).encode())
                part = Part(path.name, offset, len(data), f"{number:08d}.mp4")
                archive.fileobj.flush()  # type: ignore[union-attr]
                packed.append(_checked(entry, part, temporary))
        size = os.path.getsize(temporary)
    return {"bytes": size, "entries": packed, "bad": bad}


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # no time, user or mode of this machine: the same bytes anywhere
    member.size = len(data)
    archive.addfile(member, io.BytesIO(data))


def _checked(entry: VideoEntry, part: Part, file: Path) -> dict[str, Any]:
    """The packed video's entry, after reading it back. Raises DatasetError if its times moved."""
    info = scan(part._replace(file=str(file)).address)
    wanted = entry.timestamps - entry.timestamps[0]
    if len(info.pts) != len(wanted) or np.abs(info.timestamps - wanted).max() > _TOLERANCE:
        raise DatasetError(f"{entry.path}: its frames' times cannot be kept in an mp4 file")
    packed = VideoEntry(path=part.address, info=info, bytes=part.bytes, mtime_ns=0)
    return packed.to_json()


def encode(entry: VideoEntry, config: PackConfig) -> bytes:
    """The video of ``entry`` as a packed mp4 file. Raises VideoDecodeError if it is damaged."""
    import av

    info = entry.info
    ticks, base = info.pts - info.pts[0], info.time_base
    timescale = {"video_track_timescale": str(base.denominator)}
    file = io.BytesIO()
    with (
        open_video(entry.path, "pyav", info=info) as video,
        av.open(file, "w", format="mp4", options=timescale) as out,
    ):
        rate = Fraction(video.fps or 1).limit_denominator(1000)
        stream: Any = None
        for tick, pixels in zip(ticks.tolist(), video.shrunk(config.size), strict=True):
            if stream is None:
                stream = out.add_stream("libx264", rate=max(rate, Fraction(1, 1000)))
                stream.height, stream.width = pixels.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.codec_context.time_base = base
                stream.codec_context.thread_count = 1  # the bytes must not depend on the machine
                stream.options = _options(config)
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            picture.pts, picture.time_base = tick, base
            out.mux(stream.encode(picture))
        out.mux(stream.encode())
    return file.getvalue()


def _options(config: PackConfig) -> dict[str, str]:
    gop = str(config.gop)
    return {
        "crf": str(config.crf),
        "preset": config.preset,
        "tune": "fastdecode",
        "g": gop,
        "keyint_min": gop,
        "sc_threshold": "0",
        "bf": "0",
        **SAME_BYTES,
    }
