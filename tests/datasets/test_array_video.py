"""Training videos stored as arrays are a corpus like any other, and probes never are."""

import json

import numpy as np
import pytest

from tubelet.core.errors import DatasetError
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.decode import open_video

FPS = 16


@pytest.fixture
def voe(tmp_path):
    """A set of four training videos and two probes of noise, in the layout of the generator."""
    rng, root = np.random.default_rng(0), tmp_path / "set"
    for part, count in (("train", 4), ("probe", 2)):
        (root / part / "videos").mkdir(parents=True)
        for number in range(count):
            film = rng.integers(0, 256, (20, 32, 32, 3), np.uint8)
            np.save(root / part / "videos" / f"{part}{number}.npy", film)
    about = {"format": "tubelet-voe", "version": 1, "fps": FPS}
    (root / "dataset.json").write_text(json.dumps(about))
    return root


@pytest.mark.parametrize("below", ["", "train"])
def test_a_set_is_its_training_videos_with_their_times(voe, below):
    index = index_corpus(voe / below, progress=False, processes=1)
    assert [entry.path.rsplit("/", 1)[-1] for entry in index.entries] == [
        f"train{n}.npy" for n in range(4)
    ]
    assert {(e.num_frames, e.height, e.width, e.fps) for e in index.entries} == {(20, 32, 32, FPS)}
    assert not index.quarantine


def test_probes_are_refused(voe):
    with pytest.raises(DatasetError, match="probes, half of them impossible"):
        index_corpus(voe / "probe", progress=False)
    for film in (voe / "train" / "videos").iterdir():
        film.unlink()
    with pytest.raises(DatasetError, match="no training videos"):
        index_corpus(voe, progress=False)


@pytest.mark.parametrize("cache", [False, True])
def test_clips_are_the_stored_bytes(voe, cache, tmp_path):
    index = index_corpus(voe, progress=False, processes=1)
    config = ClipConfig(frames=5, fps=8, size=32)  # every second frame
    batches = clip_batches(index, config, 6, cache=tmp_path / "cache" if cache else False)
    batch = next(batches)
    for clip, number, times in zip(batch.video, batch.video_ids, batch.timestamps, strict=True):
        stored = np.load(index.entries[number].path)
        frames = np.rint(times.numpy() * FPS).astype(int)
        assert (np.diff(frames) == 2).all()
        assert np.array_equal(clip.numpy(), stored[frames])


def test_frames_are_scaled_as_those_of_other_videos(voe):
    film = np.repeat(np.arange(20, dtype=np.uint8) * 10, 32 * 48 * 3).reshape(20, 32, 48, 3)
    path = voe / "train" / "videos" / "wide.npy"
    np.save(path, film)
    index = index_corpus(voe, progress=False, processes=1)
    entry = next(e for e in index.entries if e.path == str(path))
    with open_video(entry.path, info=entry.info) as video:
        small = video.get_frames([7, 3, 7], 16)
    assert small.shape == (3, 16, 16, 3)
    assert [set(np.unique(frame)) for frame in small] == [{70}, {30}, {70}]


def test_damaged_arrays_are_left_out_with_the_reason(voe):
    folder = voe / "train" / "videos"
    whole = (folder / "train0.npy").read_bytes()
    (folder / "train0.npy").write_bytes(whole[: len(whole) // 2])
    np.save(folder / "train1.npy", np.zeros((20, 32, 32), np.float32))
    (folder / "train2.npy").write_bytes(b"")
    index = index_corpus(voe, progress=False, processes=1, max_bad_share=0.8)
    assert len(index) == 1
    reasons = " ".join(bad.reason for bad in index.quarantine)
    assert reasons.count("truncated or damaged") == 2
    assert "float32 [20, 32, 32], where uint8" in reasons
    (voe / "list.txt").write_text(str(folder / "train3.npy"))
    (voe / "dataset.json").unlink()
    with pytest.raises(DatasetError, match="rate is unknown"):
        index_corpus(voe / "list.txt", progress=False)
