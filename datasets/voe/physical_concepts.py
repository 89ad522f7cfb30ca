"""Physical Concepts (Piloto et al., 2022): probes of 15 frames at 64 x 64, in gzipped TFRecords.

    ROOT/[probes/]<concept>/data.tfrecord-00000-of-00020

Each record is a quadruplet: ``possible_image`` and ``impossible_image``, raw bytes of uint8
``[2, 15, 64, 64, 3]``, beside masks and camera poses, which are not read. The impossible videos are
recombined from the frames of the possible ones.
"""

from __future__ import annotations

import gzip
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from ...core.errors import DatasetError
from .pairing import match_quadruplet
from .record import Pair, Refused, VoeSet, VoeVideo

SHAPE = (2, 15, 64, 64, 3)
_DAMAGE = (OSError, EOFError, zlib.error, struct.error, ValueError, IndexError)


@dataclass(frozen=True)
class RecordFrames:
    """One video inside a record."""

    path: Path
    offset: int
    length: int
    key: str
    which: int
    count: int = SHAPE[1]
    size: tuple[int, int] = SHAPE[2:4]

    def read(self, numbers: Sequence[int]) -> np.ndarray:
        videos = _record(self.path, self.offset, self.length)[self.key]
        return videos[self.which][np.asarray(numbers, np.int64)]


def read_physical_concepts(root: Path) -> VoeSet:
    """Read every probe below ``root``. Decompresses every file once, to find its records.

    Raises:
        DatasetError: no such files, or nothing usable.
    """
    root = root / "probes" if (root / "probes").is_dir() else root
    videos: list[VoeVideo] = []
    pairs: list[Pair] = []
    refused: list[Refused] = []
    for path in sorted(root.glob("*/*tfrecord-*")):
        group = f"{path.parent.name}/{path.name.split('-')[1]}"
        try:
            for number, place in enumerate(_places(path)):
                where = f"{group}/{number:04d}"
                reason = _add(path, place, where, videos, pairs)
                if reason:
                    refused.append(Refused(what=where, reason=reason))
        except _DAMAGE as error:
            refused.append(Refused(what=group, reason=f"damaged: {error}"))
    if not videos and not refused:
        raise DatasetError(f"{root} has no <concept>/data.tfrecord-* files")
    return VoeSet(
        name="physical-concepts", videos=tuple(videos), pairs=tuple(pairs), refused=tuple(refused)
    )


def _add(path: Path, place: tuple[int, int], group: str, videos: list, pairs: list) -> str:
    """Add the quadruplet at ``place``, or say why not."""
    try:
        _record(path, *place)
    except DatasetError as error:
        return str(error)
    members = [
        VoeVideo(
            name=f"{group}/{role[0]}{which + 1}",
            group=group,
            frames=RecordFrames(path, *place, f"{role}_image", which),
            possible=role == "possible",
            principle=path.parent.name,
        )
        for role in ("possible", "impossible")
        for which in (0, 1)
    ]
    found = match_quadruplet(members)
    if isinstance(found, str):
        return found
    videos += members
    pairs += found
    return ""


def _places(path: Path) -> Iterator[tuple[int, int]]:
    """Where each record begins in the decompressed stream, and its length, in bytes."""
    stream = _stream(path)
    stream.seek(0)
    while head := stream.read(12):
        (length,) = struct.unpack("<Q", head[:8])
        at = stream.tell()
        yield at, length
        stream.seek(at + length)
        if len(stream.read(4)) != 4:
            raise EOFError(f"the record at byte {at} is cut off")


@lru_cache(maxsize=1)
def _stream(path: Path) -> gzip.GzipFile:
    """The open file; reading on is cheap, going back starts anew."""
    return gzip.open(path, "rb")


@lru_cache(maxsize=1)
def _record(path: Path, offset: int, length: int) -> dict[str, np.ndarray]:
    """The two image features of a record."""
    stream = _stream(path)
    stream.seek(offset)
    payload = stream.read(length)
    if len(payload) != length:
        raise DatasetError(f"the record is cut off after {len(payload)} of {length} bytes")
    try:
        features = dict(_features(payload))
    except _DAMAGE as error:
        raise DatasetError(f"no tf.train.Example: {error}") from error
    found = {}
    for key in ("possible_image", "impossible_image"):
        if key not in features:
            raise DatasetError(f"no feature {key}; there are {', '.join(sorted(features))}")
        raw = features[key]
        if len(raw) != int(np.prod(SHAPE)):
            raise DatasetError(f"{key} has {len(raw)} bytes, not those of uint8 {list(SHAPE)}")
        found[key] = np.frombuffer(raw, np.uint8).reshape(SHAPE)
    return found


def _features(example: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and first bytes value of each feature: Example.features(1).feature(1) is a map from
    key(1) to Feature(2).bytes_list(1).value(1). Other kinds of features give b""."""
    for _, features in _fields(example, 1):
        for _, entry in _fields(features, 1):
            parts = dict(_fields(entry))
            lists = dict(_fields(parts.get(2, b"")))
            values = dict(_fields(lists.get(1, b"")))
            yield parts[1].decode(), values.get(1, b"")


def _fields(message: bytes, only: int | None = None) -> Iterator[tuple[int, bytes]]:
    """The length-delimited fields of a protocol buffer message, by number."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, kind = tag >> 3, tag & 7
        if kind == 2:
            length, at = _varint(message, at)
            if at + length > len(message):
                raise ValueError("a field runs over the end of its message")
            if only is None or number == only:
                yield number, message[at : at + length]
            at += length
        elif kind == 0:
            _, at = _varint(message, at)
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind} is not known")


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
