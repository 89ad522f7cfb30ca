"""Speed of the video path: ``python -m tubelet.benchmarks.data_speed speed|memory``.

``speed`` decodes random clips of 16 frames at 224 px from the same generated videos (320×240) as
H.264 with a keyframe every 250 and every 30 frames (x264's defaults otherwise) and from their
packed shards, with every backend, and compares a loader's whole step with decoding alone.
``memory`` draws batches with two workers and watches what all processes hold. Both write JSON to
``benchmarks/results/`` (or ``--out``).
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..core.errors import ConfigError, TubeletError, VideoDecodeError
from ..core.io import atomic_write_json
from ..core.machine import facts
from ..datasets.clip_config import ClipConfig, clip_frames
from ..datasets.clip_source import ClipSource, RawBatch
from ..datasets.clips import clip_batches
from ..datasets.corpus import CorpusIndex, VideoEntry, index_corpus
from ..datasets.decode import BACKENDS, open_video, resolve_backend
from ..datasets.pack import PackConfig, pack
from ..datasets.synthetic.make import MovingShapesConfig, make_moving_shapes
from ..datasets.synthetic.moving_shapes import draw_scene, paint
from .timing import interleaved, ratio_of_medians

Clip = tuple[VideoEntry, np.ndarray]
_SIZE, _FRAMES, _LENGTH = 224, 16, 300


def available_backends() -> list[str]:
    """The backends that can be imported here."""
    found = []
    for name in BACKENDS:
        try:
            resolve_backend(name)
        except ConfigError:
            continue
        found.append(name)
    return found


def draw_clips(index: CorpusIndex, config: ClipConfig, count: int) -> list[Clip]:
    """The videos and frame numbers of the first ``count`` samples of a run."""
    source = ClipSource(index, config, 1, 0, 1, None)
    clips = []
    for sample in range(count):
        number, start = source._draw(sample, 0)
        entry = source.entry(number)
        clips.append((entry, clip_frames(entry.timestamps, start, config)))
    return clips


def decode(clips: list[Clip], backend: Any, size: int) -> None:
    """Decode the clips one by one, each from a freshly opened file. Raises VideoDecodeError."""
    for entry, numbers in clips:
        with open_video(entry.path, backend, info=entry.info) as video:
            video.get_frames(numbers, size)


def bench_backends(
    index: CorpusIndex, config: ClipConfig, *, clips: int = 24, rounds: int = 5
) -> dict[str, Any]:
    """Clips per second of processor time with each backend, the fastest first.

    Returns:
        ``{"clips_per_cpu_second": {backend: rate}, "wall": {backend: rate}, "failed": {backend:
        reason}, "clips", "rounds"}``. A backend that cannot decode one of the clips has failed.
    """
    drawn, works, failed = draw_clips(index, config, clips), {}, {}
    for backend in available_backends():
        try:
            decode(drawn, backend, config.size)
        except VideoDecodeError as error:
            failed[backend] = str(error)
            continue
        works[backend] = partial(decode, drawn, backend, config.size)
    timed = interleaved(works, rounds) if works else {"cpu": {}, "wall": {}}
    order = sorted(works, key=lambda name: timed["cpu"][name])
    return {
        "clips_per_cpu_second": {name: clips / timed["cpu"][name] for name in order},
        "wall": {name: clips / timed["wall"][name] for name in order},
        "failed": failed,
        "clips": clips,
        "rounds": rounds,
    }


def speed(*, videos: int = 4, clips: int = 12, rounds: int = 7) -> dict[str, Any]:
    """Backends, keyframe distances and packed shards against each other; see the module."""
    config = ClipConfig(frames=_FRAMES, size=_SIZE)
    with tempfile.TemporaryDirectory() as folder:
        corpora = make_corpora(Path(folder), videos)
        works: dict[str, Callable[[], object]] = {}
        for name, index in corpora.items():
            drawn = draw_clips(index, config, clips)
            for backend in available_backends():
                works[f"{name}, {backend}"] = partial(decode, drawn, backend, _SIZE)
        timed = interleaved(works, rounds)
        best, packed = (_fastest(timed["cpu"], start) for start in ("GOP 250", "packed"))
        gain = ratio_of_medians(timed["rounds"][best], timed["rounds"][packed])
        overhead = {name: _overhead(index, config, rounds) for name, index in corpora.items()}
    return {
        "benchmark": "data_speed",
        "setting": f"{_FRAMES} frames at {_SIZE} px from {videos} videos of {_LENGTH} frames, "
        f"320x240, {clips} clips per round",
        "unit": "clips/s",
        "values": {
            clock: {name: clips / seconds for name, seconds in timed[clock].items()}
            for clock in ("cpu", "wall")
        },
        "ratios": {f"{packed} over {best}": asdict(gain)},
        "overhead": overhead,
        "rounds": rounds,
    }


def memory(*, batches: int = 2000, workers: int = 2) -> dict[str, Any]:
    """What all processes of a loader hold (resident), over ``batches`` batches of 8 clips of 16
    frames at 64 px: ten readings after the first twentieth."""
    with tempfile.TemporaryDirectory() as folder:
        shapes = MovingShapesConfig(count=40, size=96, frames=48)
        make_moving_shapes(folder, shapes, processes=1, progress=False)
        index = index_corpus(Path(folder) / "videos", progress=False)
        loader = clip_batches(index, ClipConfig(frames=16, size=64), 8, workers=workers)
        readings = [_resident(loader) for _ in _at_tenths(loader, batches)]
        loader.close()
    first = readings[0]
    return {
        "benchmark": "data_memory",
        "setting": f"{batches} batches of 8 clips, 16 frames, 64 px, {workers} workers",
        "megabytes": [round(value / 1e6, 2) for value in readings],
        "largest_change": max(abs(value / first - 1) for value in readings),
    }


def _at_tenths(loader: Any, batches: int) -> Iterator[int]:
    """Draw the batches, and stop after a twentieth of them, a tenth, two tenths …"""
    stops = {batches // 20, *(batches * tenth // 10 for tenth in range(1, 11))}
    for number in range(1, batches + 1):
        next(loader)
        if number in stops:
            yield number


def _resident(loader: Any) -> int:
    """Bytes that the loader's processes hold; pages that they share count in each.

    Raises TubeletError without /proc.
    """
    if not os.path.exists("/proc/self/smaps_rollup"):
        raise TubeletError("memory is read from /proc, which only Linux has")
    pids = [os.getpid(), *loader.worker_pids()]
    texts = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    return sum(int(text.split("Rss:")[1].split()[0]) * 1024 for text in texts)


def _fastest(seconds: dict[str, float], start: str) -> str:
    return min((name for name in seconds if name.startswith(start)), key=seconds.__getitem__)


class _Undecoded(ClipSource):
    """Does all that a loader does, but decode (frames are decoded into their place in a batch)."""

    def _decode(self, entry: VideoEntry, numbers: np.ndarray, out: np.ndarray) -> None:
        return


def _overhead(index: CorpusIndex, config: ClipConfig, rounds: int) -> dict[str, dict[str, float]]:
    """What a loader's step does beside decoding 8 clips (drawing, looking up, collating), as shares
    of decoding them, with 95 % intervals: ``rest``, that work alone; ``step``, the whole step's
    surplus, a difference of two large numbers."""
    source, rest = (kind(index, config, 8, 0, 1, None) for kind in (ClipSource, _Undecoded))
    drawn, raw = draw_clips(index, config, 8), RawBatch.empty(source.shape(0))

    def step() -> None:
        source.make(0, RawBatch.empty(source.shape(0)))

    works: dict[str, Callable[[], object]] = {
        "step": step,
        "decode": lambda: decode(drawn, "auto", _SIZE),
        "rest": lambda: rest.make(0, raw),
    }
    timed = interleaved(works, 5 * rounds)["rounds"]
    shares = {}
    for name, less in (("rest", 0), ("step", 1)):
        ratio = ratio_of_medians(timed[name], timed["decode"])
        shares[name] = {
            "share": ratio.value - less,
            "low": ratio.low - less,
            "high": ratio.high - less,
        }
    return shares


def make_corpora(folder: Path, videos: int) -> dict[str, CorpusIndex]:
    """The same videos three times: two keyframe distances, and packed from the first."""
    found = {}
    for number in range(videos):
        scene = draw_scene(0, number, height=240, width=320)
        frames = [paint(scene, time) for time in range(_LENGTH)]
        for gop in (250, 30):
            _encode(folder / f"{gop}" / f"{number:03d}.mp4", frames, gop)
    for gop in (250, 30):
        found[f"GOP {gop}"] = index_corpus(folder / f"{gop}", progress=False)
    found["packed"] = pack(
        found["GOP 250"], folder / "packed", PackConfig(size=_SIZE), processes=1, progress=False
    )
    return found


def _encode(path: Path, frames: list[np.ndarray], gop: int) -> None:
    """Write the frames as x264 does by default."""
    import av

    path.parent.mkdir(exist_ok=True)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"g": str(gop), "preset": "medium"})
        stream.height, stream.width, stream.pix_fmt = 240, 320, "yuv420p"
        stream.codec_context.thread_count = 1
        for time, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 25)
            out.mux(stream.encode(picture))
        out.mux(stream.encode())


def main(argv: list[str] | None = None) -> int:
    """Run a benchmark, print its result and write one JSON file."""
    parser = argparse.ArgumentParser(
        prog="python -m tubelet.benchmarks.data_speed", description=__doc__
    )
    parser.add_argument("what", choices=["speed", "memory"])
    parser.add_argument("--rounds", type=int, default=7, help="of speed (default 7)")
    parser.add_argument("--batches", type=int, default=2000, help="of memory (default 2000)")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder")
    args = parser.parse_args(argv)
    result = speed(rounds=args.rounds) if args.what == "speed" else memory(batches=args.batches)
    for line in lines(result):
        print(line)
    path = args.out / f"{result['benchmark']}.json"
    command = f"python -m tubelet.benchmarks.data_speed {' '.join(argv or sys.argv[1:])}"
    atomic_write_json(path, result | {"command": command, "machine": facts()})
    print(f"written to {path}")
    return 0


def lines(result: dict[str, Any]) -> list[str]:
    """A result in words."""
    said = [f"{result['benchmark']} ({result['setting']}):"]
    if "megabytes" in result:
        said.append(f"  MB: {', '.join(map(str, result['megabytes']))}")
        return [*said, f"  largest change {result['largest_change']:.1%}"]
    for name, rate in result["values"]["cpu"].items():
        clock = result["values"]["wall"][name]
        said.append(f"  {name:<20}{rate:8.1f} clips per second of processor time, {clock:.1f} by "
                    "the clock")  # fmt: skip
    for name, ratio in result["ratios"].items():
        said.append(f"  {name}: {ratio['value']:.2f} [{ratio['low']:.2f}, {ratio['high']:.2f}]")
    for name, shares in result["overhead"].items():
        for part, share in shares.items():
            what = {"rest": "all but decoding", "step": "step over decoding"}[part]
            interval = f"[{share['low']:+.1%}, {share['high']:+.1%}]"
            said.append(f"  {what}, {name}: {share['share']:+.1%} {interval}")
    return said


if __name__ == "__main__":
    raise SystemExit(main())
