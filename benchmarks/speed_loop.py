"""Speed of whole training steps: with the data path included, and as clips grow.

``loop``: random clips are cut out of H.264 files and trained on, by the plain step of
:mod:`.plain_vjepa` reading the files as they are (seek, decode, resize), and by ours reading their
packed shards. ``scaling``: the step alone, over frames, resolution and batch. Run through
:mod:`.speed`.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..datasets.clip_config import ClipConfig
from ..datasets.clips import clip_batches
from .data_speed import Clip, draw_clips, make_corpora
from .speed_vjepa import Size, row, thread_count, training_steps
from .timing import interleaved

LOOP_SIZES = (
    Size("ViT-Ti/16", 192, 3, 16, 112, 2),
    Size("ViT-S/16", 384, 6, 16, 112, 2),
)
BASE = Size("ViT-Ti/16", 192, 3, 8, 112, 1)
SCALING_SIZES = (
    BASE,
    *(replace(BASE, frames=frames) for frames in (16, 32)),
    *(replace(BASE, side=side) for side in (160, 224)),
    *(replace(BASE, batch=batch) for batch in (2, 4)),
)


def loop(
    repeats: int = 5,
    sizes: Sequence[Size] = LOOP_SIZES,
    precisions: Sequence[str] = ("fp32", "bf16"),
    videos: int = 4,
) -> dict[str, Any]:
    """Steps with the reading of their clips, one thread, from videos of 300 frames at 320x240 with
    a keyframe every 250."""
    rows = []
    with tempfile.TemporaryDirectory() as folder, thread_count(1):
        corpora = make_corpora(Path(folder), videos)
        for size, precision in itertools.product(sizes, precisions):
            config = ClipConfig(frames=size.frames, size=size.side)
            clips = draw_clips(corpora["GOP 250"], config, size.batch * (3 * repeats + 3))
            video = size.video()
            steps, _ = training_steps(size, precision, video)
            loader = iter(clip_batches(corpora["packed"], config, size.batch))
            works = {
                name: _after(_plainly(clips, size, video), steps[name])
                for name in ("plain, activations recomputed", "plain")
            }
            works["tubelet"] = _after(
                lambda v=video, i=loader: v.copy_(next(i).video), steps["tubelet"]
            )
            timed = interleaved(works, repeats)
            rows.append(row(f"{size}, {precision}, files read", timed, "s/step"))
    return {"benchmark": "train_loop", "rows": rows}


def scaling(
    repeats: int = 3, sizes: Sequence[Size] = SCALING_SIZES, precision: str = "bf16"
) -> dict[str, Any]:
    """The training step of growing clips and batches, one thread."""
    rows = []
    for size in sizes:
        steps, _ = training_steps(size, precision)
        works = {name: steps[name] for name in ("plain", "tubelet")}
        with thread_count(1):
            timed = interleaved(works, repeats)
        tokens = size.batch * (size.frames // 2) * (size.side // 16) ** 2
        rows.append(row(f"{size} ({tokens} tokens), {precision}", timed, "s/step"))
    return {"benchmark": "train_scaling", "rows": rows}


def _after(read: Callable[[], object], step: Callable[[], object]) -> Callable[[], object]:
    def both() -> object:
        read()
        return step()

    return both


def _plainly(clips: Sequence[Clip], size: Size, video: Tensor) -> Callable[[], object]:
    """Reads the next clips into ``video``."""
    endless: Iterator[Clip] = itertools.cycle(clips)

    def read() -> None:
        for i in range(size.batch):
            entry, numbers = next(endless)
            video[i] = plain_clip(entry.path, [int(n) for n in numbers], size.side)

    return read


def plain_clip(path: str, numbers: Sequence[int], side: int) -> Tensor:
    """Frames ``numbers`` (ascending) of a video whose frame times are even, uint8
    ``[T, side, side, 3]``: seek to the keyframe before, decode on, scale the short side, cut out
    the centre."""
    import av

    wanted, found = set(numbers), {}
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        assert stream.average_rate is not None
        assert stream.time_base is not None
        ticks = 1 / (stream.average_rate * stream.time_base)  # per frame
        container.seek(int(numbers[0] * ticks), stream=stream)
        for frame in container.decode(stream):
            assert frame.pts is not None
            number = round(frame.pts / ticks)
            if number in wanted:
                found[number] = torch.from_numpy(frame.to_ndarray(format="rgb24"))
            if number >= numbers[-1]:
                break
    x = torch.stack([found[number] for number in numbers]).movedim(-1, 1).float()
    scale = side / min(x.shape[-2:])
    shape = [max(side, round(n * scale)) for n in x.shape[-2:]]
    x = F.interpolate(x, shape, mode="bilinear", antialias=True)
    top, left = ((n - side) // 2 for n in shape)
    x = x[..., top : top + side, left : left + side]
    return x.round().clamp(0, 255).to(torch.uint8).movedim(1, -1)
