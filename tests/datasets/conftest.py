"""Small real video files whose frames carry their own numbers."""

from __future__ import annotations

from fractions import Fraction
from types import SimpleNamespace

import av
import numpy as np
import pytest

_GRID = 4  # the number is a 4 x 4 grid of black and white squares in the centre of the frame


def stamped(number: int, height: int = 64, width: int = 64) -> np.ndarray:
    """uint8 [height, width, 3]: a frame that shows ``number`` (16 bits) and a moving gradient."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[..., 0] = np.linspace(40, 200, width, dtype=np.uint8)
    frame[..., 2] = (np.linspace(40, 200, height) + number).astype(np.uint8)[:, None]
    cell = min(height, width) // _GRID
    top, left = (height - cell * _GRID) // 2, (width - cell * _GRID) // 2
    for bit in range(_GRID * _GRID):
        y, x = top + bit // _GRID * cell, left + bit % _GRID * cell
        frame[y : y + cell, x : x + cell] = 235 if number >> bit & 1 else 20
    return frame


def read_stamp(frame: np.ndarray) -> int:
    """The number that ``stamped`` wrote, from a decoded frame of any size."""
    height, width = frame.shape[:2]
    cell = min(height, width) // _GRID
    top, left = (height - cell * _GRID) // 2, (width - cell * _GRID) // 2
    number = 0
    for bit in range(_GRID * _GRID):
        y, x = top + bit // _GRID * cell + cell // 2, left + bit % _GRID * cell + cell // 2
        number |= int(frame[y, x].mean() > 128) << bit
    return number


def write_video(
    path,
    count=40,
    *,
    size=(64, 64),
    fps=25,
    codec="libx264",
    gop=12,
    options=None,
    times_ms=None,
    rotation=0,
    first=0,
    faststart=False,
    bits=8,
):
    """Write ``count`` stamped frames numbered from ``first``, at ``times_ms`` where given."""
    base = Fraction(1, 1000) if times_ms is not None else Fraction(1, fps)
    with av.open(str(path), "w", options={"movflags": "faststart"} if faststart else {}) as file:
        stream = file.add_stream(codec, rate=fps, options={"g": str(gop), **(options or {})})
        stream.height, stream.width = size
        stream.pix_fmt = "yuv420p" if bits == 8 else "yuv420p10le"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(stamped(first + i, *size), format="rgb24")
            frame.pts, frame.time_base = times_ms[i] if times_ms is not None else i, base
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def write_audio(path):
    """Write a sound file without video."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        frame.sample_rate = 8000
        file.mux(stream.encode(frame))
        file.mux(stream.encode())
    return path


def truncate(source, path, share):
    """Write the first ``share`` of ``source`` to ``path``."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def scramble(source, path, at=0.5, share=0.2):
    """Copy the mp4 ``source`` with a ``share`` of its media data made random, from ``at`` on."""
    data = bytearray(source.read_bytes())
    media = data.index(b"mdat") + 4
    size = int.from_bytes(data[media - 8 : media - 4], "big") - 8
    start, length = media + int(size * at), int(size * share)
    data[start : start + length] = np.random.default_rng(0).bytes(length)
    path.write_bytes(data)
    return path


@pytest.fixture(scope="session")
def videos():
    """The functions of this file: stamped, read_stamp, write, audio, truncate, scramble."""
    return SimpleNamespace(
        stamped=stamped,
        read_stamp=read_stamp,
        write=write_video,
        audio=write_audio,
        truncate=truncate,
        scramble=scramble,
    )


@pytest.fixture(scope="session")
def corpus_folder(tmp_path_factory):
    """Ten good videos of 20 to 47 frames; file i's are numbered from 100 * i. Read only."""
    folder = tmp_path_factory.mktemp("corpus")
    for i in range(10):
        write_video(folder / f"{i:03d}.mp4", 20 + 3 * i, first=100 * i, size=(48, 64))
    return folder
