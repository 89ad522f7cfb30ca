"""Several corpora in one run, each with its share of the samples.

A mixture is a small TOML file, and a source like any other (``--videos mix.toml``):

    [[corpus]]
    videos = "howto/"          # anything that index_corpus takes
    weight = 0.7

    [[corpus]]
    images = "photos/"         # still clips, or steps of single images: ClipConfig.stills
    weight = 0.3

Weights are relative, and are shares of samples: which corpus a sample comes from is drawn for each
sample by its number in the run. Relative paths start at the file's folder.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from .entries import CorpusIndex, CorpusPart
from .images import index_images
from .indexing import IndexOptions
from .storage import is_remote
from .videos import Verify, index_videos

_KEYS = ("videos", "images", "weight", "name")


def is_mixture(source: str | os.PathLike[str]) -> bool:
    """Whether ``source`` names a mixture's file."""
    return os.fspath(source).endswith(".toml")


def index_mixture(
    source: str | os.PathLike[str], options: IndexOptions, verify: Verify = "decode-ends"
) -> CorpusIndex:
    """An index of all corpora of a mixture, one after the other, with their ``parts``.

    The index of each part is kept beside ``options.cache_path``. Raises ConfigError for a file that
    is no mixture, and :class:`DatasetError` as :func:`.corpus.index_corpus` does for each part.
    """
    indices, parts, first = [], [], 0
    for number, part in enumerate(read_mixture(source)):
        own = options
        if options.cache_path is not None:
            own = replace(options, cache_path=f"{options.cache_path}.{number}")
        index = _index_part(part, own, verify)
        stop = first + len(index)
        parts.append(CorpusPart(part["name"], part["weight"], first, stop))
        indices.append(index)
        first = stop
    return CorpusIndex(
        source=os.fspath(source),
        entries=tuple(entry for index in indices for entry in index.entries),
        quarantine=tuple(bad for index in indices for bad in index.quarantine),
        ignored=tuple(path for index in indices for path in index.ignored),
        duplicates=tuple(item for index in indices for item in index.duplicates),
        cache_path=None if options.cache_path is None else str(options.cache_path),
        parts=tuple(parts),
    )


def read_mixture(source: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """The corpora that a mixture names: dicts with ``videos`` or ``images``, ``weight``, ``name``.

    Raises ConfigError naming every fault.
    """
    path = Path(source)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"{path} is not a readable mixture: {error}") from error
    corpora = table.pop("corpus", None)
    faults = [f"unknown key {key!r}{did_you_mean(key, ['corpus'])}" for key in table]
    if not isinstance(corpora, list) or not corpora:
        faults.append("it needs a [[corpus]] table for each corpus, with videos or images")
        corpora = []
    parts = [
        _checked(n, corpus, path.absolute().parent, faults) for n, corpus in enumerate(corpora)
    ]
    if faults:
        raise ConfigError(f"{path} is no mixture:\n" + "\n".join(f"  - {f}" for f in faults))
    return parts


def _checked(number: int, corpus: Any, folder: Path, faults: list[str]) -> dict[str, Any]:
    where = f"corpus {number + 1}"
    if not isinstance(corpus, dict):
        faults.append(f"{where} is not a table")
        return {}
    for key in corpus.keys() - set(_KEYS):
        faults.append(f"{where}: unknown key {key!r}{did_you_mean(key, _KEYS)}")
    kinds = [kind for kind in ("videos", "images") if isinstance(corpus.get(kind), str)]
    if len(kinds) != 1:
        faults.append(f'{where} needs videos = "…" or images = "…", one of them')
        return {}
    weight = corpus.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 < weight < float("inf"):
        faults.append(f"{where}: weight = {weight!r} must be a number above 0")
    source = corpus[kinds[0]]
    address = source if is_remote(source) else str(folder / source)
    return {kinds[0]: address, "weight": float(weight), "name": corpus.get("name", source)}


def _index_part(part: dict[str, Any], options: IndexOptions, verify: Verify) -> CorpusIndex:
    if "videos" in part:
        return index_videos(part["videos"], options, verify)
    return index_images(
        part["images"],
        cache_path=options.cache_path,
        max_bad_share=options.max_bad_share,
        deduplicate=options.deduplicate,
        progress=options.progress,
        processes=options.processes,
    )
