import logging
import multiprocessing
import os
import pickle
import sys

import av
import numpy as np
import pytest

from tubelet.core.errors import ConfigError, VideoDecodeError
from tubelet.datasets import decode
from tubelet.datasets.decode import open_video, resolve_backend
from tubelet.datasets.timeline import VideoInfo, scan

FORMATS = {
    "mp4": ("a.mp4", {}),
    "one-group": ("a.mp4", {"gop": 250}),
    "every-frame-a-key": ("a.mp4", {"gop": 1}),
    "open-group": ("a.mp4", {"options": {"x264-params": "open-gop=1:bframes=3"}}),
    "mkv": ("a.mkv", {}),
    "webm": ("a.webm", {"codec": "libvpx-vp9", "options": {"deadline": "realtime"}}),
    "avi": ("a.avi", {"codec": "mpeg4", "options": {"bf": "2", "q": "4"}}),
    "ts": ("a.ts", {}),
}
INEXACT = {("decord", "ts"), ("torchcodec", "ts"), ("torchcodec", "avi")}


def _or_skip(backend):
    try:
        return resolve_backend(backend)
    except ConfigError as error:
        pytest.skip(str(error))


@pytest.fixture(params=decode.BACKENDS)
def backend(request):
    return _or_skip(request.param)


@pytest.mark.parametrize("kind", FORMATS)
def test_any_frames_in_any_order_are_exact(tmp_path, videos, backend, kind):
    if (backend, kind) in INEXACT:
        pytest.skip(f"{backend} seeks to other frames of it, and refuses: tested below")
    name, options = FORMATS[kind]
    path = videos.write(tmp_path / name, 60, **options)
    numbers = [59, 0, 31, 31, 30, 12, 13, 47, 2, 58, 23]
    with open_video(path, backend) as video:
        assert (video.num_frames, video.size, video.fps) == (60, (64, 64), pytest.approx(25))
        for _ in range(2):  # the second time from wherever the first left the decoder
            assert [videos.read_stamp(f) for f in video.get_frames(numbers)] == numbers
        assert [videos.read_stamp(f) for f in video.get_frames(range(60), 16)] == list(range(60))


@pytest.mark.parametrize(("backend", "kind"), sorted(INEXACT))
def test_no_backend_gives_other_frames_silently(tmp_path, videos, backend, kind):
    _or_skip(backend)
    name, options = FORMATS[kind]
    path, refused = videos.write(tmp_path / name, 60, **options), 0
    for number in (0, 1, 10, 31, 58, 59):
        with open_video(path, backend) as video:
            try:
                assert videos.read_stamp(video.get_frames([number])[0]) == number
            except VideoDecodeError:
                refused += 1
    assert refused


@pytest.mark.parametrize("size", [(64, 64), (50, 82), (90, 64)])
@pytest.mark.parametrize("other", ["decord", "torchcodec"])
def test_backends_agree_to_the_byte(tmp_path, videos, size, other):
    _or_skip(other)
    path = videos.write(tmp_path / "a.mp4", 30, size=size, gop=7)
    with open_video(path, "pyav") as a, open_video(path, other) as b:
        assert np.array_equal(a.get_frames([29, 3, 17]), b.get_frames([29, 3, 17]))
        assert np.array_equal(a.get_frames(range(30)), b.get_frames(range(30)))


def test_variable_rate_times_are_those_of_the_file(tmp_path, videos, backend):
    times = np.cumsum([0, *np.random.default_rng(0).choice([20, 33, 100], 39)]).tolist()
    path = videos.write(tmp_path / "a.mp4", 40, times_ms=times)
    with open_video(path, backend) as video:
        np.testing.assert_allclose(video.timestamps, np.array(times) / 1000, atol=1e-9)
        assert not video.info.constant_rate
        assert video.fps == pytest.approx(39 / (times[-1] / 1000))
        assert videos.read_stamp(video.get_frames([25])[0]) == 25


def test_webm_without_a_frame_count(tmp_path, videos):
    path = videos.write(tmp_path / "a.webm", 30, codec="libvpx-vp9")
    with av.open(str(path)) as file:
        assert file.streams.video[0].frames == 0
    with open_video(path) as video:
        assert video.num_frames == 30
        np.testing.assert_allclose(video.timestamps, np.arange(30) / 25, atol=1e-3)


def test_frames_hidden_by_an_edit_list_do_not_count(tmp_path, videos):
    whole, path = videos.write(tmp_path / "whole.mp4", 60), tmp_path / "trimmed.mp4"
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(whole)) as file, av.open(str(path), "w", options=options) as out:
        stream = out.add_stream_from_template(file.streams.video[0])
        for packet in file.demux(video=0):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - 20 * 512, packet.dts - 20 * 512
                packet.stream = stream
                out.mux(packet)
    with open_video(path) as video:
        assert video.num_frames == 40
        stamps = [videos.read_stamp(frame) for frame in video.get_frames([39, 0, 5, 20])]
        assert stamps == [59, 20, 25, 40]


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_in_the_metadata_is_applied(tmp_path, videos, rotation):
    plain = videos.write(tmp_path / "plain.mp4", 10, size=(48, 80))
    turned = videos.write(tmp_path / "turned.mp4", 10, size=(48, 80), rotation=rotation)
    with open_video(plain) as a, open_video(turned) as b:
        assert b.size == ((48, 80) if rotation == 180 else (80, 48))
        expected = np.rot90(a.get_frames([5])[0], rotation // 90)
        assert np.array_equal(b.get_frames([5])[0], expected)
        assert b.get_frames([5], 32).shape == (1, 32, 32, 3)


def test_torchcodec_turns_frames_too(tmp_path, videos):
    _or_skip("torchcodec")
    turned = videos.write(tmp_path / "turned.mp4", 10, size=(48, 80), rotation=90)
    with open_video(turned) as a, open_video(turned, "torchcodec") as b:
        assert np.array_equal(a.get_frames([5]), b.get_frames([5]))
        near = a.get_frames([5], 32).astype(int) - b.get_frames([5], 32)
        assert np.abs(near).mean() < 2


def test_decord_refuses_frames_that_are_turned(tmp_path, videos):
    _or_skip("decord")
    turned = videos.write(tmp_path / "turned.mp4", 10, size=(48, 80), rotation=90)
    with pytest.raises(VideoDecodeError, match=r"decord.*turned.*pyav"):
        open_video(turned, "decord")


def test_resizing_keeps_the_aspect_ratio_and_cuts_the_centre(tmp_path, videos, backend):
    path = videos.write(tmp_path / "a.mp4", 5, size=(64, 128))
    with open_video(path, backend) as video:
        whole, small = video.get_frames([2])[0], video.get_frames([2], 32)[0]
        assert small.shape == (32, 32, 3)
        centre = whole[:, 32:96].reshape(32, 2, 32, 2, 3).mean((1, 3))
        assert np.abs(small - centre).mean() < 6
        assert np.abs(video.get_frames([2], 64)[0] - whole[:, 32:96].astype(int)).mean() < 1


def test_decoding_starts_at_the_keyframe(tmp_path, videos, monkeypatch):
    path = videos.write(tmp_path / "a.mp4", 100, gop=10)
    starts, restart = [], decode.PyAVReader._restart
    monkeypatch.setattr(
        decode.PyAVReader, "_restart", lambda self, key: (starts.append(key), restart(self, key))
    )
    with open_video(path) as video:
        video.get_frames([95, 97, 98])
        video.get_frames([99])  # goes on
        video.get_frames([34, 45])
        video.get_frames([0])
    assert starts == [90, 30, 40, 0]


def test_the_result_has_room_for_nothing_and_refuses_numbers_outside(tmp_path, videos, backend):
    with open_video(videos.write(tmp_path / "a.mp4", 5), backend) as video:
        assert video.get_frames([]).shape == (0, 64, 64, 3)
        frames = video.get_frames(np.array([3, 1]))
        assert frames.dtype == np.uint8
        assert frames.flags.c_contiguous
        for wrong in ([5], [-1, 2]):
            with pytest.raises(IndexError, match="5 frames"):
                video.get_frames(wrong)


def _bad_files(folder, videos):
    good = videos.write(folder / "good.mp4", 60, faststart=True)
    plain = videos.write(folder / "plain.mp4", 60)
    webm = videos.write(folder / "good.webm", 60, codec="libvpx-vp9")
    (folder / "zero.mp4").touch()
    (folder / "text.mp4").write_text("this is not a video\n" * 50)
    (folder / "playlist.mp4").write_text("ffconcat version 1.0\nfile good.mp4\n")
    (folder / "random.mp4").write_bytes(np.random.default_rng(0).bytes(5000))
    (folder / "folder.mp4").mkdir()
    videos.audio(folder / "sound.mp4")
    for share in (0.3, 0.6, 0.9, 0.999):
        videos.truncate(good, folder / f"cut{share}.mp4", share)
    videos.truncate(plain, folder / "headless.mp4", 0.5)
    videos.truncate(webm, folder / "cut.webm", 0.6)
    return {
        "missing.mp4": "no such file",
        "zero.mp4": "empty",
        "text.mp4": "not a readable video",
        "playlist.mp4": "playlist",
        "random.mp4": "not a readable video",
        "folder.mp4": "folder",
        "sound.mp4": "no video stream",
        "cut0.3.mp4": r"not a readable|truncated.*60",
        "cut0.6.mp4": r"truncated.*of 60",
        "cut0.9.mp4": r"truncated.*of 60",
        "cut0.999.mp4": r"truncated.*of 60",
        "headless.mp4": "not a readable video|no streams.*cut off",
        "cut.webm": "truncated: ends at",
    }


def test_bad_files_say_what_is_wrong(tmp_path, videos, backend):
    for name, reason in _bad_files(tmp_path, videos).items():
        with pytest.raises(VideoDecodeError, match=reason) as error:
            open_video(tmp_path / name, backend)
        assert error.value.path == str(tmp_path / name)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)


def test_damage_in_the_middle_shows_when_its_frames_are_read(tmp_path, videos):
    good = videos.write(tmp_path / "good.mp4", 60, gop=10)
    path = videos.scramble(good, tmp_path / "bad.mp4")
    with open_video(path) as video, open_video(good) as same:
        with pytest.raises(VideoDecodeError, match=r"cannot be decoded|damaged"):
            video.get_frames(range(60))
        assert np.array_equal(video.get_frames([4]), same.get_frames([4]))


def test_a_file_changed_since_it_was_scanned_is_an_error(tmp_path, videos):
    path = videos.write(tmp_path / "a.mp4", 40)
    info = scan(path)
    videos.write(path, 20)
    with open_video(path, info=info) as video, pytest.raises(VideoDecodeError, match="missing"):
        video.get_frames([30])
    path.unlink()
    with open_video(path, info=info) as video, pytest.raises(VideoDecodeError, match="no such"):
        video.get_frames([3])


def test_info_survives_json(tmp_path, videos):
    for name, options in (("a.mp4", {}), ("b.mkv", {}), ("c.mp4", {"gop": 1})):
        info = scan(videos.write(tmp_path / name, 35, **options))
        again = VideoInfo.from_json(info.to_json())
        assert again.to_json() == info.to_json()
        assert np.array_equal(again.timestamps, info.timestamps)
        assert np.array_equal(again.keyframes, info.keyframes)


def test_a_named_backend_never_falls_through(tmp_path, videos, monkeypatch):
    path = videos.write(tmp_path / "a.mp4", 5)
    with pytest.raises(ConfigError, match="unknown video backend 'ffmpeg'"):
        open_video(path, "ffmpeg")
    resolve_backend.cache_clear()
    monkeypatch.setitem(sys.modules, "decord", None)  # makes the import fail
    with pytest.raises(ConfigError, match=r"'decord' cannot be imported.*pip install decord"):
        open_video(path, "decord")
    resolve_backend.cache_clear()


def test_the_backend_is_named_once(tmp_path, videos, caplog):
    path = videos.write(tmp_path / "a.mp4", 5)
    resolve_backend.cache_clear()
    with caplog.at_level(logging.INFO, logger=decode.__name__):
        for _ in range(3):
            open_video(path).close()
    assert [record.getMessage().split()[2] for record in caplog.records] == ["pyav"]


def test_readers_give_their_files_back(tmp_path, videos):
    path = videos.write(tmp_path / "a.mp4", 5)
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc/self/fd") else None
    for _ in range(20):
        with open_video(path) as video:
            video.get_frames([3])
    if before is None:
        pytest.skip("no /proc to count open files in")
    assert len(os.listdir("/proc/self/fd")) <= before


def _stamp_in_child(path, queue):
    with open_video(path) as video:
        queue.put(int(video.get_frames([7]).sum()))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forking_beside_an_open_reader_does_not_hang(tmp_path, videos):
    path = videos.write(tmp_path / "a.mp4", 20)
    context = multiprocessing.get_context("fork")
    with open_video(path) as video:
        expected = int(video.get_frames([7]).sum())
        queue = context.Queue()
        child = context.Process(target=_stamp_in_child, args=(path, queue))
        child.start()
        assert queue.get(timeout=60) == expected
        child.join(60)
        assert child.exitcode == 0


def _real(name):
    folder = os.environ.get("TUBELET_REAL_VIDEOS")
    if not folder or not os.path.isdir(folder):
        pytest.skip("set TUBELET_REAL_VIDEOS to a folder of real videos to run this")
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        pytest.skip(f"{path} is not there")
    return path


REAL = {  # frames, size, and what decord makes of it
    "nasa_13013.mp4": (390, (270, 480), "same"),
    "bt709_full_range.mp4": (30, (720, 1280), "same"),
    "h265_video.mp4": (10, (128, 128), "same"),
    "h264_10bits.mp4": (30, (200, 200), "10-bit colour"),
    "av1_video.mkv": (125, (360, 640), "cannot open"),
}


@pytest.mark.parametrize("name", REAL)
def test_real_videos(name):
    path = _real(name)
    count, size, decord_says = REAL[name]
    numbers = np.random.default_rng(0).permutation(count)[:8]
    with open_video(path) as video:
        assert (video.num_frames, video.size) == (count, size)
        frames = video.get_frames(numbers)
        first = video.get_frames(range(min(count, 30)))
    for number, frame in zip(numbers, frames, strict=True):
        if number < len(first):
            assert np.array_equal(frame, first[number])
    pytest.importorskip("decord")
    if decord_says == "same":
        with open_video(path, "decord") as video:
            assert np.array_equal(video.get_frames(numbers), frames)
    else:
        with (
            pytest.raises(VideoDecodeError, match=decord_says),
            open_video(path, "decord") as video,
        ):
            video.get_frames(numbers)
