"""``tubelet data``: index, look at, pack, measure and generate corpora of videos; convert logs."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro
from tyro.conf import Positional

from ..core.errors import ConfigError, DatasetError
from ..datasets.clip_config import ClipConfig
from ..datasets.corpus import CorpusIndex, Verify, index_corpus
from ..datasets.pack import PackConfig
from .data_convert import Convert, convert

Made = Literal["moving-shapes", "physics", "manipulation", "bodies"]


@dataclass(frozen=True, kw_only=True)
class Index:
    """Read every file once, and write an index of those that can be used: exact frame times, bad
    files with reasons, duplicates. The index is a source for `tubelet pretrain --videos`."""

    source: Positional[str]
    """Folder, list (.txt, .csv), shards (a-{000..127}.tar), index, mixture (.toml) or address."""
    out: Path = Path("corpus.jsonl")
    """The index, or where an earlier one is continued."""
    verify: Verify = "decode-ends"
    """How much of each file is decoded; full finds damage in the middle."""
    max_bad_share: float = 0.5
    """Stop when more than this share of the files are bad."""
    deduplicate: bool = True
    """Leave out files with the same bytes as another."""
    processes: int = 0
    """Processes that read files; 0 takes one per core."""


@dataclass(frozen=True, kw_only=True)
class Stats:
    """Write a report on a corpus: counts, lengths, rates, codecs, keyframes, sizes, bad files by
    reason, and a sheet of pictures (report.html, report.json, contact_sheet.jpg)."""

    source: Positional[str]
    """As for index."""
    out: Path = Path("corpus_report")
    """Folder of the report."""
    pictures: int = 24
    """Videos on the contact sheet, drawn at random."""
    seed: int = 0
    """Which videos those are."""


@dataclass(frozen=True, kw_only=True)
class Pack:
    """Re-encode videos for training into tar shards of H.264: training size, a keyframe every few
    frames, no B-frames, times kept. A killed run goes on when started again."""

    source: Positional[str]
    """As for index."""
    out: Positional[Path]
    """Folder of the shards, then a source itself."""
    pack: Annotated[PackConfig, tyro.conf.arg(name="")] = field(default_factory=PackConfig)
    """How."""
    max_bad_share: float = 0.5
    """Stop when more than this share of the files are bad."""
    processes: int = 0
    """Processes that encode; 0 takes one per core."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Measure each video backend on clips of a corpus: clips per second of processor time, the
    fastest first."""

    source: Positional[str]
    """As for index."""
    frames: int = 16
    """Frames per clip."""
    fps: float | None = None
    """Their rate; by default every frame."""
    size: int = 224
    """Side of the clips in pixels."""
    clips: int = 24
    """Clips per round and backend."""
    rounds: int = 5
    """Rounds, in which the backends take turns."""
    seed: int = 0
    """Which clips."""


@dataclass(frozen=True, kw_only=True)
class Make:
    """Generate a corpus of H.264 videos whose every factor is known (factors.parquet), or skeletons
    of simulated bodies. A killed run goes on when started again, and a larger count adds to what is
    there."""

    kind: Positional[Made]
    """Moving shapes over a texture; balls and boxes on ramps; a gripper that moves blocks; jointed
    bodies that fall, hang, fly and march, as .skeleton files."""
    out: Positional[Path]
    """Folder of the corpus."""
    count: int = 1000
    """Videos, or sequences."""
    size: int = 64
    """Height and width in pixels; even. Not of bodies, which are not drawn."""
    frames: int = 32
    """Frames of each."""
    fps: int = 16
    """Frames per second."""
    seed: int = 0
    """Names the stream of scenes."""
    processes: int = 0
    """Processes that draw; 0 takes one per core."""


@dataclass(frozen=True, kw_only=True)
class Config:
    """Index, look at, pack, measure and generate corpora of videos; convert robot logs."""

    do: Annotated[Index | Stats | Pack | Bench | Make | Convert, tyro.conf.arg(name="")]


def run(config: Config) -> int:
    """Do it, and say what came of it."""
    return _RUN[type(config.do)](config.do)


def _index(what: Index) -> int:
    index = index_corpus(
        what.source,
        cache_path=what.out,
        max_bad_share=what.max_bad_share,
        verify=what.verify,
        deduplicate=what.deduplicate,
        processes=what.processes or None,
    )
    _print_reasons(index)
    print(index.report())
    print(f"index: {what.out}")
    return 0


def _stats(what: Stats) -> int:
    from ..datasets.corpus_stats import write_report

    index = index_corpus(what.source, max_bad_share=1.0, deduplicate=True)
    facts = write_report(index, what.out, pictures=what.pictures, seed=what.seed)
    for key in ("videos", "images", "frames", "hours", "gigabytes", "bad", "duplicates"):
        print(f"{key:<12}{facts[key]}")
    _print_reasons(index)
    print(f"report: {what.out / 'report.html'}")
    return 0


def _bench(what: Bench) -> int:
    from ..benchmarks.data_speed import bench_backends

    index = index_corpus(what.source)
    config = ClipConfig(frames=what.frames, fps=what.fps, size=what.size, seed=what.seed)
    found = bench_backends(index, config, clips=what.clips, rounds=what.rounds)
    for backend, rate in found["clips_per_cpu_second"].items():
        print(f"{backend:<10}{rate:8.1f} clips per second of processor time")
    for backend, reason in found["failed"].items():
        print(f"{backend:<10}failed: {reason}")
    if not found["clips_per_cpu_second"]:
        raise DatasetError(f"{what.source}: no backend decodes its clips")
    best = next(iter(found["clips_per_cpu_second"]))
    print(f"choose it with: tubelet pretrain --clips.backend {best}")
    return 0


def _pack(what: Pack) -> int:
    from ..datasets.pack import pack

    index = index_corpus(what.source, max_bad_share=what.max_bad_share)
    print(index.report())
    packed = pack(index, what.out, what.pack, processes=what.processes or None)
    before, after = (sum(e.bytes for e in i.entries) for i in (index, packed))
    print(f"{len(packed)} videos packed, {before / 1e6:.1f} MB became {after / 1e6:.1f} MB")
    for bad in packed.quarantine:
        print(f"  {bad.path}: {bad.reason}")
    print(f"source: {what.out}")
    return 0


def _make(what: Make) -> int:
    keys = ("count", "size", "frames", "fps", "seed")
    settings: dict[str, int] = {key: getattr(what, key) for key in keys}
    processes = what.processes or None
    if what.kind == "moving-shapes":
        from ..datasets.synthetic.make import MovingShapesConfig, make_moving_shapes

        shapes = MovingShapesConfig(**settings)  # pyright: ignore[reportArgumentType]
        factors = make_moving_shapes(what.out, shapes, processes=processes)
    elif what.kind == "bodies":
        return _make_bodies(what, processes)
    else:
        from ..envs.synthetic.manipulation import make_manipulation
        from ..envs.synthetic.physics import make_physics
        from ..envs.synthetic.scenes import SceneConfig

        make = make_physics if what.kind == "physics" else make_manipulation
        factors = make(what.out, SceneConfig(**settings), processes=processes)
    print(f"{len(factors.paths)} videos, factors: {', '.join(factors.classes)}")
    print(f"source: {what.out}")
    return 0


def _make_bodies(what: Make, processes: int | None) -> int:
    from ..envs.synthetic.bodies import SCENES, BodiesConfig, make_bodies

    if what.size != Make.size:
        raise ConfigError(f"size = {what.size}: bodies are not drawn; leave it out")
    config = BodiesConfig(count=what.count, frames=what.frames, fps=what.fps, seed=what.seed)
    paths = make_bodies(what.out, config, processes=processes)
    print(f"{len(paths)} sequences: {', '.join(SCENES)}")
    print(f"train on them with: tubelet pretrain --preset sjepa-small --data {what.out}")
    return 0


def _print_reasons(index: CorpusIndex) -> None:
    from ..datasets.corpus_stats import reasons

    for reason, count in reasons(index.quarantine).items():
        print(f"{count} × {reason}")


_RUN = {
    **{Index: _index, Stats: _stats, Pack: _pack, Bench: _bench, Make: _make},
    Convert: convert,
}
