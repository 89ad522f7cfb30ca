import os
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets import corpus_cache
from tubelet.datasets.clips import ClipConfig, clip_batches, clip_frames, num_starts
from tubelet.datasets.corpus import index_corpus


@pytest.fixture(scope="module")
def index(corpus_folder):
    return index_corpus(corpus_folder, progress=False)


def _take(batches, count):
    return list(islice(batches, count))


def _same(a, b):
    return a.step == b.step and all(
        torch.equal(getattr(a, name), getattr(b, name))
        for name in ("video", "video_ids", "timestamps")
    )


def test_clips_hold_the_frames_that_they_claim(index, videos):
    config = ClipConfig(frames=6, frame_step=3, size=48)
    for batch in _take(clip_batches(index, config, 5), 4):
        assert (batch.video.dtype, batch.video.shape) == (torch.uint8, (5, 6, 48, 48, 3))
        assert (batch.video_ids.dtype, batch.timestamps.dtype) == (torch.int64, torch.float64)
        for clip, number, times in zip(batch.video, batch.video_ids, batch.timestamps, strict=True):
            stamps = [videos.read_stamp(frame) - 100 * int(number) for frame in clip.numpy()]
            np.testing.assert_allclose(times, np.array(stamps) / 25, atol=1e-9)
            assert np.diff(stamps).tolist() == [3] * 5


def test_batches_depend_on_the_seed_and_on_nothing_else(index):
    config = ClipConfig(frames=4)
    first = _take(clip_batches(index, config, 4), 6)
    assert all(map(_same, first, _take(clip_batches(index, config, 4), 6)))
    assert all(map(_same, first, _take(clip_batches(index, config, 4, workers=1), 6)))
    assert all(map(_same, first, _take(clip_batches(index, config, 4, workers=2), 6)))
    assert all(map(_same, first[4:], _take(clip_batches(index, config, 4, start_step=4), 2)))
    resumed = clip_batches(index, config, 4, start_step=4, workers=2)
    assert all(map(_same, first[4:], _take(resumed, 2)))
    other = _take(clip_batches(index, ClipConfig(frames=4, seed=1), 4), 6)
    assert not any(map(_same, first, other))


def test_ranks_share_out_the_clips_of_one_large_batch(index):
    config = ClipConfig(frames=4)
    whole = _take(clip_batches(index, config, 6), 2)
    ranks = [_take(clip_batches(index, config, 2, rank=r, world_size=3), 2) for r in range(3)]
    for step in range(2):
        parts = torch.cat([rank[step].video for rank in ranks])
        assert torch.equal(parts, whole[step].video)


def test_global_random_state_is_left_alone(index):
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    next(clip_batches(index, ClipConfig(frames=4), 2, workers=1))
    assert torch.equal(before, torch.random.get_rng_state())


def test_the_cache_gives_the_same_bytes(tmp_path, index, monkeypatch):
    config = ClipConfig(frames=5, fps=9, size=40)
    direct = _take(clip_batches(index, config, 4), 5)
    cached = clip_batches(index, config, 4, cache=tmp_path / "frames")
    assert all(map(_same, direct, _take(cached, 5)))
    monkeypatch.setattr(corpus_cache, "_decode_all", None)  # not decoded again
    workers = clip_batches(index, config, 4, cache=tmp_path / "frames", workers=2)
    assert all(map(_same, direct, _take(workers, 5)))


def test_the_cache_is_rebuilt_when_its_sources_change(tmp_path, corpus_folder, videos):
    a = videos.write(tmp_path / "a.mp4", 30)
    cache = tmp_path / "frames"
    index_corpus([a], progress=False).decode_to_cache(cache, 32, progress=False)
    videos.write(a, 25, first=500)
    index = index_corpus([a], progress=False)
    frames = index.decode_to_cache(cache, 64, progress=False)
    assert frames.frames.shape == (25, 64, 64, 3)
    assert [videos.read_stamp(frame) for frame in frames.read(0, [3, 24])] == [503, 524]
    with open(cache / "frames.u8", "r+b") as file:
        file.truncate(1000)
    assert index.decode_to_cache(cache, 64, progress=False).read(0, [24]).any()
    (cache / "manifest.json").write_text("{}")
    assert index.decode_to_cache(cache, 64, progress=False).read(0, [24]).any()


def test_a_cache_beside_the_index_needs_an_index_file(tmp_path, corpus_folder, index):
    with pytest.raises(ConfigError, match="cache=True"):
        clip_batches(index, ClipConfig(), 2, cache=True)
    kept = index_corpus(corpus_folder, cache_path=tmp_path / "i.jsonl", progress=False)
    next(clip_batches(kept, ClipConfig(), 2, cache=True))
    assert os.path.exists(tmp_path / "i.jsonl.frames" / "frames.u8")


def test_a_cache_larger_than_the_disk_is_refused(tmp_path, index, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(corpus_cache.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DatasetError, match=r"need 0\.0 GB and 0\.0 GB are free"):
        index.decode_to_cache(tmp_path / "frames", 64)


def test_sampling_by_starts_or_by_videos(index):
    config = {"frames": 20, "size": 1}
    starts = np.array([max(0, e.num_frames - 19) for e in index.entries])
    for sampling, weights in (("starts", starts), ("videos", starts > 0)):
        source = clip_batches(index, ClipConfig(sampling=sampling, **config), 1)._source
        draws = [source._draw(sample, 0) for sample in range(4000)]
        counts = np.bincount([number for number, _ in draws], minlength=10)
        expected = 4000 * weights / weights.sum()
        assert ((counts - expected) ** 2 / expected).sum() < 40  # chi², 9 degrees of freedom
        assert all(start < starts[number] for number, start in draws)
        assert {start for number, start in draws if number == 1} == set(range(starts[1]))


def test_short_videos_are_left_out_with_a_reason(index):
    batches = clip_batches(index, ClipConfig(frames=16, frame_step=2), 8)
    assert sorted(map(os.path.basename, batches.excluded)) == [f"{i:03d}.mp4" for i in range(4)]
    assert "20 frames in 0.76 s are too short for 16 frames at a step of 2" in batches.report()
    assert {4, 5, 6, 7, 8, 9}.issuperset(next(batches).video_ids.tolist())
    with pytest.raises(DatasetError, match=r"none of 10 .*longest is .*009\.mp4 with 47 frames"):
        clip_batches(index, ClipConfig(frames=16, frame_step=4), 8)


@pytest.mark.parametrize(
    "wrong",
    [
        {"frames": 0},
        {"size": 0},
        {"frame_step": 0},
        {"fps": 0.0},
        {"fps": 5.0, "frame_step": 2},
        {"backend": "opencv"},
        {"sampling": "length"},
        {"max_bad_share": 2.0},
    ],
)
def test_impossible_configs_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match="|".join(wrong)):
        ClipConfig(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"batch_size": 0}, {"rank": 2}, {"workers": -1}, {"start_step": -1}]
)
def test_impossible_requests_are_refused(index, wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        clip_batches(index, ClipConfig(), **({"batch_size": 2, "world_size": 2} | wrong))


@st.composite
def _times(draw):
    gaps = draw(st.lists(st.integers(1, 200), min_size=1, max_size=80))
    return np.cumsum([draw(st.integers(0, 5000)), *gaps]) / 1000


@settings(max_examples=200, deadline=None)
@given(_times(), st.integers(1, 12), st.floats(0.5, 200))
def test_clips_by_rate_follow_the_true_times(times, frames, fps):
    config = ClipConfig(frames=frames, fps=fps)
    starts = num_starts(times, config)
    assert 0 <= starts <= len(times)
    for start in range(starts):
        numbers = clip_frames(times, start, config)
        assert numbers[0] == start
        assert numbers[-1] < len(times)
        assert (np.diff(numbers) >= 1).all()  # a slow video never gives a frame twice
        wanted = times[start] + np.arange(frames) / fps
        nearest = np.abs(times[None] - wanted[:, None]).min(1)
        off = np.abs(times[numbers] - wanted)
        ahead = np.maximum.accumulate(numbers - np.arange(frames)) == numbers - np.arange(frames)
        assert ahead.all()
        if 1 / fps >= np.diff(times).max():  # no frame was wanted twice: all are the nearest
            np.testing.assert_allclose(off, nearest, atol=1e-5)
    if starts < len(times):  # and no valid start is left out
        end = times[starts] + (frames - 1) / fps
        fits = clip_frames(times, starts, config)[-1] < len(times)
        assert end > times[-1] or not fits


def test_a_constant_rate_gives_the_steps_one_expects():
    times = np.arange(100) / 30
    for fps, step in ((30, 1), (15, 2), (10, 3), (60, 1), (1000, 1)):
        config = ClipConfig(frames=5, fps=fps)
        assert clip_frames(times, 7, config).tolist() == [7 + step * i for i in range(5)]
        assert num_starts(times, config) == 100 - 4 * step
    # 30 to 20 per second: every second wanted time lies half-way, where the earlier frame is taken
    assert clip_frames(times, 3, ClipConfig(frames=5, fps=20)).tolist() == [3, 4, 6, 7, 9]
