"""Write frames as H.264: small files that every player, browser and decoder reads."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from fractions import Fraction

import numpy as np

from ..core.errors import DatasetError
from ..core.io import atomic_path

SAME_BYTES = {"x264-params": "asm=SSE2"} if platform.machine() in ("x86_64", "AMD64") else {}
"""Encoder options by which x264 gives the same bytes for the same frames.

Where it uses AVX-512, its ``mbtree`` spends bits differently from run to run for some small frames
(seen at widths of 32, 48 and 82 pixels). With SSE2, which every x86-64 processor has, the bytes are
those of x264 without assembly.
"""


def write_video(
    path: str | os.PathLike[str],
    frames: Iterable[np.ndarray],
    *,
    fps: int,
    crf: int = 18,
    gop: int = 10,
) -> None:
    """Encode ``frames`` to the mp4 file ``path``, atomically: the same frames, the same bytes.

    Frame ``k`` is shown at exactly ``k / fps`` seconds. There are no B-frames and a keyframe every
    ``gop`` frames, so a reader decodes at most ``gop`` frames to reach any one.

    Args:
        frames: uint8 ``[H, W, 3]`` each, height and width even. crf: 0 (lossless) to 51.

    Raises:
        DatasetError: no frames, an odd size, or frames of another type or shape.
    """
    import av

    with atomic_path(path) as temporary, av.open(str(temporary), "w", format="mp4") as container:
        stream = None
        for index, frame in enumerate(frames):
            if stream is None:
                height, width = _checked_size(frame)
                stream = container.add_stream("libx264", rate=fps)
                stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
                stream.codec_context.time_base = Fraction(1, fps)
                stream.codec_context.thread_count = 1  # the bytes must not depend on the machine
                chosen: dict[str, object] = {"crf": str(crf), "g": str(gop)}
                stream.options = chosen | {"bf": "0", "preset": "veryfast"} | SAME_BYTES
            elif frame.shape != (height, width, 3) or frame.dtype != np.uint8:
                raise DatasetError(
                    f"frame {index} is {frame.dtype} {list(frame.shape)}, the first one was "
                    f"uint8 {[height, width, 3]}"
                )
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")
            picture.pts, picture.time_base = index, Fraction(1, fps)
            container.mux(stream.encode(picture))
        if stream is None:
            raise DatasetError(f"cannot write {path}: no frames")
        container.mux(stream.encode())


def as_stored(frames: np.ndarray) -> np.ndarray:
    """Frames as a losslessly coded video gives them back, exactly: uint8 ``[..., H, W, 3]``.

    Video halves the resolution of colour, which changes small bright shapes more than its
    compression does. A model trained on video sees live frames with the eyes it was trained with
    when they pass through here (about 15 000 frames of 64 pixels per second).

    Raises:
        DatasetError: an odd size, or frames of another type.
    """
    import av
    from av.video.reformatter import VideoReformatter

    _checked_size(frames.reshape(-1, *frames.shape[-3:])[0])
    to_video, from_video = VideoReformatter(), VideoReformatter()
    options = {"interpolation": "BILINEAR", "threads": 1}
    stored = np.empty_like(frames)
    for index in np.ndindex(frames.shape[:-3]):
        picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(frames[index]), format="rgb24")
        picture = to_video.reformat(picture, format="yuv420p", **options)
        stored[index] = from_video.reformat(picture, format="rgb24", **options).to_ndarray()
    return stored


def _checked_size(frame: np.ndarray) -> tuple[int, int]:
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise DatasetError(f"video frames are uint8 [H, W, 3], got {frame.dtype} {frame.shape}")
    height, width = frame.shape[:2]
    if height % 2 or width % 2:
        raise DatasetError(
            f"H.264 with 4:2:0 colour needs an even size, got {height}x{width}: the nearest is "
            f"{height + height % 2}x{width + width % 2}"
        )
    return height, width
