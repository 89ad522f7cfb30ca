"""Every kind of damaged or odd file in one corpus: the good ones index, decode and train, the bad
ones are named, and nothing else stops the run."""

import os
from itertools import islice

import av
import numpy as np
import pytest
import torch

from tubelet.core.errors import DatasetError
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.decode import open_video

CONFIG = ClipConfig(frames=6, size=32, sampling="videos")
AV1 = {"codec": "libsvtav1", "options": {"preset": "12", "svtav1-params": "logical-processors=1"}}


def _odd(folder, videos):
    """Files that are unusual and whole: name -> frames."""
    times = np.cumsum([0, *np.random.default_rng(0).choice([20, 33, 100], 39)]).tolist()
    videos.write(folder / "variable-rate.mp4", 40, times_ms=times)
    videos.write(folder / "turned.mp4", 40, size=(48, 80), rotation=90)
    videos.write(folder / "no-count.webm", 40, codec="libvpx-vp9", options={"deadline": "realtime"})
    videos.write(folder / "av1.mkv", 40, size=(64, 64), **AV1)
    videos.write(folder / "odd-size.mkv", 40, size=(51, 67), codec="ffv1")
    videos.write(folder / "huge-group.mp4", 400, gop=1000)
    videos.write(folder / "ten-bits.mp4", 40, bits=10)
    name = os.fsencode(folder) + b"/caf\xe9.mp4"  # not UTF-8
    os.rename(videos.write(folder / "latin.mp4", 40), name)
    return {os.path.basename(os.fsdecode(name)), *os.listdir(folder)}


def _broken(folder, videos):
    """Files that are damaged: name -> what the reason says."""
    first = videos.write(folder / "whole-first.mp4", 60, faststart=True)
    last = videos.write(folder / "whole-last.mp4", 60)
    videos.truncate(first, folder / "cut-index-first.mp4", 0.7)
    videos.truncate(last, folder / "cut-index-last.mp4", 0.7)
    videos.scramble(last, folder / "flipped.mp4")
    videos.audio(folder / "audio.mp4")
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("no video\n" * 99)
    _header_alone(folder / "zero-frames.webm")
    first.unlink(), last.unlink()
    return {
        "cut-index-first.mp4": "truncated",
        "cut-index-last.mp4": "not a readable video",
        "flipped.mp4": "damaged",
        "audio.mp4": "no video stream",
        "zero.mp4": "empty",
        "text.mp4": "not a readable video",
        "zero-frames.webm": "",  # the reader says either, by what its FFmpeg writes
    }


def _header_alone(path):
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libvpx-vp9", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 64, "yuv420p"
        file.start_encoding()
    assert path.stat().st_size > 100


@pytest.fixture(scope="module")
def folder(tmp_path_factory, videos):
    folder = tmp_path_factory.mktemp("every")
    try:
        (folder / "x").mkdir()
        odd = _odd(folder / "x", videos)
    except OSError as error:  # a file system that knows UTF-8 only
        pytest.skip(f"{error}")
    broken = _broken(folder / "x", videos)
    videos.write(folder / "x" / "one-frame.mp4", 1)
    return folder / "x", odd, broken


@pytest.fixture(scope="module")
def index(folder):
    return index_corpus(folder[0], verify="full", progress=False)


def test_every_damaged_file_is_named_and_every_odd_one_is_used(folder, index):
    _, odd, broken = folder
    assert {os.path.basename(entry.path) for entry in index.entries} == odd | {"one-frame.mp4"}
    reasons = {os.path.basename(bad.path): bad.reason for bad in index.quarantine}
    assert reasons.keys() == broken.keys()
    for name, says in broken.items():
        assert reasons[name]
        assert says in reasons[name] or "decode" in reasons[name], name
    assert f"{len(broken)} of {len(broken) + len(odd) + 1} bad" in index.report()
    index.report().encode()  # can be printed and written, whatever a file is called


def test_odd_files_hold_their_frames(index, videos):
    for entry in index.entries:
        numbers = [entry.num_frames - 1, 0, entry.num_frames // 2]
        with open_video(entry.path, info=entry.info) as video:
            frames = video.get_frames(numbers)
            assert frames.shape == (3, entry.height, entry.width, 3)
            if not entry.info.rotation and "odd-size" not in entry.path:
                assert [videos.read_stamp(frame) for frame in frames] == numbers, entry.path


@pytest.mark.parametrize("workers", [0, 1])
def test_odd_files_make_batches(index, workers):
    batches = clip_batches(index, CONFIG, 8, workers=workers)
    seen = torch.cat([batch.video_ids for batch in islice(batches, 8)])
    assert not batches.bad
    assert [os.path.basename(path) for path in batches.excluded] == ["one-frame.mp4"]
    assert len(seen.unique()) == len(index) - 1


def test_a_list_with_missing_files_copies_and_names_that_are_not_utf8(folder, tmp_path):
    source = folder[0]
    lines = [b"caf\xe9.mp4", b"missing.mp4", b"av1.mkv", b"av1.mkv", b"audio.mp4"]
    lines = [os.fsencode(source) + b"/" + line for line in lines]
    (tmp_path / "list.txt").write_bytes(b"\xef\xbb\xbf" + b"\n".join(lines) + b"\n")
    cache = tmp_path / "index.jsonl"
    index = index_corpus(tmp_path / "list.txt", cache_path=cache, progress=False)
    assert len(index) == 2
    assert [bad.reason.split(" (")[0] for bad in index.quarantine] == [
        "no video stream",
        "no such file",
    ]
    assert [os.path.basename(item.path) for item in index.duplicates] == ["av1.mkv"]
    assert "av1.mkv: listed more than once" in index.report()
    again = index_corpus(cache, progress=False)
    assert [e.to_json() for e in again.entries] == [e.to_json() for e in index.entries]
    next(clip_batches(again, CONFIG, 2))


def test_a_list_that_is_no_text_is_one_clear_error(folder, tmp_path):
    (tmp_path / "list.txt").write_bytes(b"\x00\x01\x02 binary\n")
    with pytest.raises(DatasetError, match=r"list\.txt: not a text file"):
        index_corpus(tmp_path / "list.txt")


def test_real_videos_index_decode_and_train(tmp_path):
    """The five public videos that tests/datasets/test_decode.py names, through pretraining."""
    source = os.environ.get("TUBELET_REAL_VIDEOS")
    if not source or not os.path.isdir(source):
        pytest.skip("set TUBELET_REAL_VIDEOS to a folder of real videos to run this")
    from tubelet.cli.main import main

    index = index_corpus(source, verify="full", progress=False)
    assert len(index) == 5, index.report()
    assert {entry.info.codec for entry in index.entries} == {"h264", "hevc", "av1"}
    assert main(["data", "index", source, "--out", str(tmp_path / "index.jsonl")]) == 0
    batches = clip_batches(index, CONFIG, 8, workers=1)
    seen = torch.cat([batch.video_ids for batch in islice(batches, 8)])
    assert sorted(seen.unique().tolist()) == [0, 1, 2, 3, 4]
    command = ["pretrain", "--preset", "debug", "--videos", str(tmp_path / "index.jsonl")]
    steps = ["--train.loop.steps", "2", "--workers", "1", "--out", str(tmp_path / "run")]
    assert main([*command, *steps]) == 0
