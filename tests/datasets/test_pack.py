"""Packed shards: the same clips, decoded faster, and nothing lost when packing is killed."""

import json
import os
import shutil
import tarfile

import av
import numpy as np
import pytest

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets import pack as packing
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.decode import open_video
from tubelet.datasets.pack import PackConfig, pack

CONFIG = PackConfig(size=32, gop=4, shard_videos=4, preset="ultrafast")


@pytest.fixture(scope="module")
def packed(corpus_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("packed")
    index = index_corpus(corpus_folder, progress=False)
    return folder, index, pack(index, folder, CONFIG, progress=False, processes=1)


def test_packed_videos_hold_the_same_frames_at_the_same_times(packed, videos):
    _, index, shards = packed
    assert len(shards) == len(index) == 10
    for number, (entry, original) in enumerate(zip(shards.entries, index.entries, strict=True)):
        np.testing.assert_allclose(entry.timestamps, original.timestamps, atol=1e-6)
        assert (entry.height, entry.width) == (32, 42)
        assert entry.info.keyframes.tolist() == list(range(0, entry.num_frames, 4))
        assert not entry.info.open_gop
        numbers = [entry.num_frames - 1, 0, 9]
        with open_video(entry.path, info=entry.info) as video:
            stamps = [videos.read_stamp(frame) for frame in video.get_frames(numbers, 32)]
        assert stamps == [100 * number + n for n in numbers]


def test_a_packed_folder_is_a_source_and_may_be_moved(packed, tmp_path, monkeypatch):
    folder, _, shards = packed
    shutil.copytree(folder, tmp_path / "elsewhere")  # keeps the times of change
    monkeypatch.setattr("tubelet.datasets.videos.scan", None)  # nothing is looked at again
    found = index_corpus(tmp_path / "elsewhere", progress=False)
    batch = next(clip_batches(found, ClipConfig(frames=4, size=16), 4))
    same = next(clip_batches(shards, ClipConfig(frames=4, size=16), 4))
    assert str(tmp_path) in found[0].path
    assert (batch.video == same.video).all()


def test_shards_are_plain_tar_files_that_say_where_they_come_from(packed, tmp_path):
    folder, index, _ = packed
    with tarfile.open(folder / "000001.tar") as archive:
        names = archive.getnames()
        about = json.load(archive.extractfile("00000004.json"))
        archive.extract("00000004.mp4", tmp_path, filter="data")
    assert names == [f"{n:08d}.{kind}" for n in range(4, 8) for kind in ("mp4", "json")]
    assert about == {"source": index[4].path, "start": 0.0}
    with av.open(str(tmp_path / "00000004.mp4")) as file:
        assert file.streams.video[0].codec_context.has_b_frames == 0
        assert sum(1 for _ in file.decode(video=0)) == index[4].num_frames
    # and an index that knows nothing of packing reads them too
    plain = index_corpus(folder / "{000000..000002}.tar", progress=False)
    assert [entry.num_frames for entry in plain.entries] == [e.num_frames for e in index.entries]
    assert len(plain.ignored) == 10


def test_times_at_a_variable_rate_and_from_a_late_start_are_kept(tmp_path, videos):
    times = (7000 + np.cumsum([0, *np.random.default_rng(0).choice([20, 33, 100], 29)])).tolist()
    videos.write(tmp_path / "a.mkv", 30, times_ms=times)
    index = index_corpus([tmp_path / "a.mkv"], progress=False)
    (entry,) = pack(index, tmp_path / "out", CONFIG, progress=False).entries
    np.testing.assert_allclose(entry.timestamps, (np.array(times) - 7000) / 1000, atol=1e-6)
    with tarfile.open(tmp_path / "out" / "000000.tar") as archive:
        assert json.load(archive.extractfile("00000000.json"))["start"] == pytest.approx(7)


@pytest.mark.parametrize("rotation", [0, 90])
def test_small_odd_and_turned_videos(tmp_path, videos, rotation):
    options = {"codec": "ffv1", "size": (31, 45)} if not rotation else {"size": (48, 96)}
    name = "a.mkv" if not rotation else "a.mp4"
    videos.write(tmp_path / name, 5, rotation=rotation, **options)
    index = index_corpus([tmp_path / name], progress=False)
    (entry,) = pack(index, tmp_path / "out", CONFIG, progress=False).entries
    assert (entry.height, entry.width) == ((32, 44) if not rotation else (64, 32))
    assert entry.info.rotation == 0


def test_a_killed_run_goes_on_and_gives_the_same_frames(packed, tmp_path, monkeypatch):
    folder, index, shards = packed
    encode, count = packing.encode, []

    def dies(entry, config):
        count.append(entry)
        if len(count) == 6:
            raise KeyboardInterrupt
        return encode(entry, config)

    monkeypatch.setattr(packing, "encode", dies)
    with pytest.raises(KeyboardInterrupt):
        pack(index, tmp_path, CONFIG, progress=False, processes=1)
    assert sorted(os.listdir(tmp_path)) == ["000000.json", "000000.tar", "pack.json"]
    again = pack(index, tmp_path, CONFIG, progress=False, processes=1)
    assert len(count) == 6 + 6  # the first shard's four were not done again
    assert sorted(os.listdir(tmp_path)) == sorted(os.listdir(folder))
    for one, other in zip(again.entries, shards.entries, strict=True):
        with open_video(one.path) as a, open_video(other.path) as b:
            numbers = range(one.num_frames)
            assert np.array_equal(a.get_frames(numbers), b.get_frames(numbers))


def test_a_video_damaged_in_the_middle_is_listed(tmp_path, corpus_folder, videos):
    (tmp_path / "in").mkdir()
    shutil.copy(corpus_folder / "001.mp4", tmp_path / "in")
    videos.scramble(corpus_folder / "005.mp4", tmp_path / "in" / "005.mp4", at=0.6)
    index = index_corpus(tmp_path / "in", verify="header", progress=False)
    shards = pack(index, tmp_path / "out", CONFIG, progress=False)
    assert len(shards) == 1
    assert [os.path.basename(bad.path) for bad in shards.quarantine] == ["005.mp4"]
    again = index_corpus(tmp_path / "out", progress=False)
    assert len(again) == 1
    assert len(again.quarantine) == 1


def test_a_folder_of_something_else_is_refused(packed, tmp_path):
    folder, index, _ = packed
    with pytest.raises(DatasetError, match="settings differ"):
        pack(index, folder, PackConfig(size=64), progress=False)
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(DatasetError, match="not empty"):
        pack(index, tmp_path, CONFIG, progress=False)


@pytest.mark.parametrize("wrong", [{"size": 8}, {"gop": 0}, {"crf": 60}, {"shard_videos": 0}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        PackConfig(**wrong)
