"""What a user may name as a corpus, turned into the addresses of files to try."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..core.errors import DatasetError
from . import storage
from .array_video import training_arrays
from .shards import expand_braces, is_shard, read_shard
from .storage import as_part

LISTS = (".txt", ".csv")
PACK_FILE, PACK_INDEX = "pack.json", "index.jsonl"
"""In a folder that :mod:`.pack` wrote."""
_FORMAT = "tubelet-video-index"


class Duplicate(NamedTuple):
    """A file left out because ``of`` has the same bytes (or is the same path, listed again)."""

    path: str
    of: str


@dataclass
class Found:
    """Files to try.

    Attributes:
        name: the source, for messages. paths: addresses in order. ignored: those with other
        extensions. duplicates: those listed again. bad: path -> reason, for what cannot even be
        tried (a shard that is no tar file, a member that is cut off). index: the index file that
        the source is, if it is one.
    """

    name: str
    paths: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    duplicates: list[Duplicate] = field(default_factory=list)
    bad: dict[str, str] = field(default_factory=dict)
    index: str | None = None


def find_files(source: Any, kind: str, extensions: tuple[str, ...]) -> Found:
    """The files of ``source``, as for :func:`.corpus.index_corpus`.

    Args:
        kind: what the files are, for messages. extensions: of files in a folder or shard that
            count; whatever a list names is tried.

    Raises :class:`DatasetError` if there is no such source, or no file in it.
    """
    if not isinstance(source, str | os.PathLike):
        paths = [storage.absolute(path) for path in source]
        if not paths:
            raise DatasetError(f"the list of {kind}s is empty: give at least one path")
        found = _listed(paths, f"a list of {len(set(paths))} paths", extensions)
    elif storage.is_remote(os.fspath(source)):
        found = _remote(os.fspath(source), kind, extensions)
    else:
        found = _local(Path(source), kind, extensions)
    found.paths.sort(key=storage.order)
    found.ignored.sort(key=storage.order)
    if not found.paths and not found.bad:
        seen = ""
        if found.ignored:
            seen = f" ({len(found.ignored)} other files, such as {found.ignored[0]})"
        raise DatasetError(
            f"{found.name}: no {kind} files in this folder{seen}; "
            f"looked for the extensions {' '.join(extensions)}, and .tar"
        )
    return found


def _local(root: Path, kind: str, extensions: tuple[str, ...]) -> Found:
    root = root.absolute()
    if is_shard(root.name):
        return _listed(expand_braces(str(root)), str(root), extensions)
    if not root.exists():
        raise DatasetError(f"{root}: no such folder or list file; check the path")
    if (arrays := training_arrays(root)) is not None:
        return _listed(arrays, str(root), extensions)
    if (root / PACK_FILE).exists():
        return _indexed(root / PACK_INDEX)
    if root.is_file() and root.suffix.lower() == ".jsonl":
        return _indexed(root)
    if root.is_file():
        if root.suffix.lower() not in LISTS:
            raise DatasetError(
                f"{root}: neither a folder of {kind}s, nor a list of paths (.txt, .csv), shards "
                "(.tar) or an index (.jsonl); put its path into a list"
            )
        return _listed(_read_list(root), str(root), extensions)
    names = []
    for folder, folders, files in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        names += [os.path.join(folder, name) for name in files if not name.startswith(".")]
    return _sorted_out(names, str(root), extensions)


def _indexed(path: Path) -> Found:
    """What an index file lists, to be looked at again only where it has changed."""
    found = Found(str(path), index=str(path))
    for line in read_index(path)[1]:
        lost = line.get("bytes", 0) < 0 and (is_shard(line["path"]) or as_part(line["path"]))
        if "of" in line:
            found.duplicates.append(Duplicate(**line))
        elif lost:
            found.bad[line["path"]] = line["reason"]
        else:
            found.paths.append(line["path"])
    return found


def read_index(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The first line of an index file and the others, their paths made absolute.

    Raises :class:`DatasetError` if it is something else.
    """
    try:
        head, *lines = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        if head["format"] != _FORMAT:
            raise ValueError(f"its format is {head['format']!r}")
        for line in lines:
            if not storage.is_remote(line["path"]):
                line["path"] = os.path.join(path.absolute().parent, line["path"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DatasetError(
            f"{path}: not a video index ({error}); delete it, or name another file"
        ) from error
    return head, lines


def _remote(url: str, kind: str, extensions: tuple[str, ...]) -> Found:
    if is_shard(url):
        return _listed(expand_braces(url), url, extensions)
    system, path = storage.file_system(url)
    try:
        if system.isfile(path):
            wanted = f"a folder of {kind}s, nor shards (.tar)"
            raise DatasetError(f"{url}: neither {wanted}; put its address into a list")
        names = [system.unstrip_protocol(name) for name in system.find(path)]
    except OSError as error:
        raise DatasetError(f"{url}: cannot be listed ({error}); check the address") from error
    if not names:
        raise DatasetError(f"{url}: no such folder, or nothing in it; check the address")
    return _sorted_out(names, url, extensions)


def _sorted_out(names: Iterable[str], source: str, extensions: tuple[str, ...]) -> Found:
    """The files of a folder by their extensions."""
    found = Found(source)
    for name in sorted(names):
        if is_shard(name):
            _add_shard(found, name, extensions)
        elif storage.suffix(name) in extensions:
            found.paths.append(name)
        else:
            found.ignored.append(name)
    return found


def _listed(paths: list[str], source: str, extensions: tuple[str, ...]) -> Found:
    """The files of a list: all that are no shards count."""
    found, seen = Found(source), set()
    for path in paths:
        if path in seen:
            found.duplicates.append(Duplicate(path, path))
            continue
        seen.add(path)
        if is_shard(path):
            _add_shard(found, path, extensions)
        else:
            found.paths.append(path)
    return found


def _add_shard(found: Found, address: str, extensions: tuple[str, ...]) -> None:
    shard = read_shard(address, extensions)
    found.paths += shard.members
    found.ignored += shard.ignored
    found.bad |= shard.cut
    if shard.fault:
        found.bad[address] = shard.fault


def _read_list(path: Path) -> list[str]:
    """The paths in a list file; bytes that are not UTF-8 are kept as file names keep them."""
    text = path.read_bytes().removeprefix(b"\xef\xbb\xbf").decode("utf-8", "surrogateescape")
    if "\0" in text:
        raise DatasetError(f"{path}: not a text file (it holds zero bytes); write a path per line")
    lines = [line.strip() for line in text.splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if path.suffix.lower() == ".csv":
        lines = [_first_column(line) for line in lines]
        if lines and lines[0].lower() in ("path", "file", "filename", "video"):
            del lines[0]
    if not lines:
        raise DatasetError(f"{path}: the list names no videos; write one path per line")
    lines = [name for line in lines for name in expand_braces(line)]
    return [
        line if storage.is_remote(line) else os.path.abspath(path.parent / line) for line in lines
    ]


def _first_column(line: str) -> str:
    """The path in ``path label`` (label a whole number), ``path::label`` or ``path,label,…``."""
    if "::" in line:
        return line.split("::")[0].strip()
    head, _, label = line.rpartition(" ")
    if head and label.lstrip("-").isdigit():
        return head.strip()
    return next(csv.reader([line]))[0].strip()
