"""The torchcodec backend's checks, against a stand-in that keeps torchcodec's documented contract.

What the library itself decodes is compared in test_decode.py, where it can be imported.
"""

import sys
from types import ModuleType, SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError, VideoDecodeError
from tubelet.datasets import decode
from tubelet.datasets.decode import open_video, resolve_backend


class FakeDecoder:
    """Frames of a file in the layout of ``VideoDecoder.get_frames_at``, decoded by PyAV."""

    late = 0  # frames by which every answer is wrong
    missing = 0
    metadata = SimpleNamespace(rotation=None)
    asked: ClassVar[list] = []

    def __init__(self, source, **options):
        assert options["dimension_order"] == "NHWC"
        assert (options["seek_mode"], options["num_ffmpeg_threads"]) == ("exact", 1)
        self.asked.append(source)
        self._path = source.rpartition("file:")[2]

    def __len__(self):
        with open_video(self._path) as video:
            return video.num_frames - self.missing

    def get_frames_at(self, indices):
        numbers = [index + self.late for index in indices]
        with open_video(self._path) as video:
            if max(numbers) >= video.num_frames:
                raise RuntimeError("Requested next frame while there are no more frames left")
            frames = torch.from_numpy(video.get_frames(numbers))
            times = torch.from_numpy(video.timestamps[numbers])
        return SimpleNamespace(data=frames, pts_seconds=times)


@pytest.fixture
def fake(monkeypatch):
    package, decoders = ModuleType("torchcodec"), ModuleType("torchcodec.decoders")
    package.__version__ = "0"
    decoder = type("VideoDecoder", (FakeDecoder,), {"asked": []})
    decoders.VideoDecoder = decoder
    monkeypatch.setitem(sys.modules, "torchcodec", package)
    monkeypatch.setitem(sys.modules, "torchcodec.decoders", decoders)
    resolve_backend.cache_clear()
    yield decoder
    resolve_backend.cache_clear()


def test_frames_come_in_the_order_asked_for_over_several_chunks(tmp_path, videos, fake):
    path = videos.write(tmp_path / "a.mp4", 80)
    numbers = [79, 0, 31, 31, *range(40, 79)]
    with open_video(path) as a, open_video(path, "torchcodec") as b:
        assert np.array_equal(a.get_frames(numbers), b.get_frames(numbers))
        assert b.get_frames([3], 32).shape == (1, 32, 32, 3)
    assert len(fake.asked) == 1


def test_other_frames_than_those_asked_for_are_an_error(tmp_path, videos, fake):
    path = videos.write(tmp_path / "a.mp4", 20)
    fake.late = 2
    with open_video(path, "torchcodec") as video:
        with pytest.raises(VideoDecodeError, match=r"0\.480 s for frame 10.*0\.400 s.*pyav"):
            video.get_frames([10])
        with pytest.raises(VideoDecodeError, match="no more frames left"):
            video.get_frames([19])


def test_another_count_and_untold_rotation_are_errors(tmp_path, videos, fake):
    turned = videos.write(tmp_path / "turned.mp4", 5, size=(48, 80), rotation=90)
    with (
        pytest.raises(VideoDecodeError, match="does not turn frames"),
        open_video(turned, "torchcodec") as video,
    ):
        video.get_frames([0])
    fake.missing = 1
    path = videos.write(tmp_path / "a.mp4", 5)
    with (
        pytest.raises(VideoDecodeError, match="finds 4 of 5 frames"),
        open_video(path, "torchcodec") as video,
    ):
        video.get_frames([0])


def test_frames_that_come_turned_are_not_turned_again(tmp_path, videos, fake):
    path = videos.write(tmp_path / "turned.mp4", 5, size=(48, 80), rotation=90)
    fake.metadata = SimpleNamespace(rotation=90.0)
    with open_video(path) as a, open_video(path, "torchcodec") as b:
        assert np.array_equal(a.get_frames([2]), b.get_frames([2]))


def test_a_file_that_is_gone_and_a_closed_reader_are_errors(tmp_path, videos, fake):
    path = videos.write(tmp_path / "a.mp4", 5)
    video = open_video(path, "torchcodec")
    path.unlink()
    with pytest.raises(VideoDecodeError, match="No such file"):
        video.get_frames([0])
    video.close()
    with pytest.raises(ValueError, match="closed"):
        video.get_frames([0])


@pytest.mark.parametrize("error", [ImportError, OSError, RuntimeError])
def test_a_library_that_does_not_load_says_what_to_install(monkeypatch, error):
    def broken(name):
        raise error("Could not load libtorchcodec. Likely causes:\n1. FFmpeg is not installed")

    resolve_backend.cache_clear()
    monkeypatch.setattr(decode.importlib, "import_module", broken)
    with pytest.raises(ConfigError, match=r"libtorchcodec.*FFmpeg's shared libraries.*0\.11\.1"):
        resolve_backend("torchcodec")
    resolve_backend.cache_clear()
