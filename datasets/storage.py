"""Where bytes lie: a local file, an object in a store, or a part of either.

An address is a string, so that indices can keep it and workers open it by themselves:

    /videos/a.mp4                              a local file
    s3://bucket/videos/a.mp4                   an object, read through fsspec
    /shards/000.tar#1536+20480/clips/a.mp4     20480 bytes from byte 1536 on: a member of a tar file

Local files and their parts are opened by FFmpeg itself; only objects pass through Python.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat as stat_mode
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..core.errors import ConfigError, DatasetError

_PART = re.compile(r"(?s)(?P<file>.+)#(?P<offset>\d+)\+(?P<bytes>\d+)/(?P<name>.+)")


class Part(NamedTuple):
    """``bytes`` bytes from ``offset`` on of the file at ``file``, called ``name`` there."""

    file: str
    offset: int
    bytes: int
    name: str

    @property
    def address(self) -> str:
        return f"{self.file}#{self.offset}+{self.bytes}/{self.name}"


def as_part(address: str) -> Part | None:
    """The part that ``address`` names, or None for a whole file."""
    found = _PART.fullmatch(address)
    if found is None:
        return None
    return Part(found["file"], int(found["offset"]), int(found["bytes"]), found["name"])


def is_remote(address: str) -> bool:
    """Whether the bytes are behind a protocol of fsspec's (``s3://…``, ``memory://…``)."""
    return "://" in address


def absolute(address: str | os.PathLike[str]) -> str:
    """A local path made absolute; other addresses as they are."""
    text = os.fspath(address)
    return text if is_remote(text) else os.path.abspath(text)


def order(address: str) -> tuple[str, int]:
    """Sorts addresses by path, and the members of one shard by where they lie in it."""
    part = as_part(address)
    return (part.file, part.offset) if part else (address, 0)


def shown(address: str) -> str:
    """The address for a report: bytes of a name that are not UTF-8 come as ``\\udcff`` escapes."""
    return address.encode("utf-8", "backslashreplace").decode()


def suffix(address: str) -> str:
    """The lower-case extension with its dot, or ""."""
    return Path(address.rsplit("/", 1)[-1]).suffix.lower()


def stamp(address: str) -> tuple[str, int, int]:
    """(address, bytes, time of change in ns), by which changes are noticed; -1 if there is none."""
    part = as_part(address)
    try:
        size, changed = _facts(part.file if part else address)
    except (OSError, DatasetError):
        return address, -1, -1
    return address, part.bytes if part else size, changed


def open_binary(address: str) -> BinaryIO:
    """The bytes at ``address`` as a seekable file to read; the caller closes it.

    Raises:
        OSError: there is no such file. ConfigError: its protocol's library is not installed.
    """
    part = as_part(address)
    file: Any = _open_whole(part.file if part else address)
    whole: Any = _Window(file, part.offset, part.bytes) if part else file
    return whole


def file_system(url: str) -> tuple[Any, str]:
    """The fsspec file system of ``url``, and the path in it.

    Raises:
        ConfigError: fsspec, or the library of this protocol, is not installed.
    """
    try:
        import fsspec.core

        return fsspec.core.url_to_fs(url)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"{url} cannot be opened ({error}): pip install fsspec and its library for this "
            "protocol (s3fs, gcsfs, …)"
        ) from error


def _open_whole(address: str) -> Any:
    if not is_remote(address):
        if not stat_mode.S_ISREG(os.stat(address).st_mode):  # opening a pipe would wait for ever
            raise IsADirectoryError(errno.EISDIR, "a folder or device, not a file", address)
        return open(address, "rb")
    system, path = file_system(address)
    return system.open(path, "rb")


def _facts(file: str) -> tuple[int, int]:
    """Size in bytes and time of change in ns (0 where a store tells none)."""
    if not is_remote(file):
        found = os.stat(file)
        return found.st_size, found.st_mtime_ns
    system, path = file_system(file)
    info = system.info(path)
    try:
        return int(info["size"]), int(system.modified(path).timestamp() * 1e9)
    except NotImplementedError:
        return int(info["size"]), 0


class _Window(io.RawIOBase):
    """A part of a file as a file of its own."""

    def __init__(self, file: BinaryIO, offset: int, length: int):
        self._file, self._offset, self._length, self._at = file, offset, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, to: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._length}[whence]
        self._at = max(0, base + to)
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._length - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()
