"""Trajectory sets: what goes in comes out, in the layout that LeRobot writes and reads."""

import errno
import json
import os
import pickle
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tubelet.core.errors import ConfigError, DatasetError, VideoDecodeError
from tubelet.datasets import lerobot
from tubelet.datasets.trajectories import TrajectorySet, TrajectoryWriter
from tubelet.datasets.video_writer import write_video

LENGTHS = (12, 25, 3)
SIZE = 32
#: A small set written by lerobot 0.4.4 itself: 3 episodes of 12 frames in one AV1 file.
REFERENCE = Path(__file__).parent / "data" / "lerobot_v3_reference"


def types(root, path):
    """The columns of a parquet file and their types, without statistics per episode."""
    schema = pq.read_schema(root / path)
    return {f.name: str(f.type) for f in schema if not f.name.startswith("stats/")}


def episode(number, length):
    """A bright square that moves one pixel per frame over a dark ground, and random rows."""
    rng = np.random.default_rng(number)
    pixels = np.full((length, SIZE, SIZE, 3), 20 + 40 * number, np.uint8)
    for t in range(length):
        pixels[t, 8:16, t % 24 : t % 24 + 8] = 220
    action = rng.uniform(-1, 1, (length, 2)).astype(np.float32)
    action[-1] = 0
    return {
        "pixels": pixels,
        "proprio": rng.standard_normal((length, 4)).astype(np.float32),
        "state": rng.standard_normal((length, 7)),
        "action": action,
    }


def writer(root, **changes):
    settings = {"fps": 10, "image_size": SIZE, "proprio_dim": 4, "state_dim": 7, "action_dim": 2}
    return TrajectoryWriter.create(
        root, **{**settings, "metadata": {"k": 1}, "task": "t", **changes}
    )


def fill(root, order=(0, 1, 2)):
    made = writer(root)
    for number in order:
        made.add_episode(number, **episode(number, LENGTHS[number]))
    made.finalize()
    return TrajectorySet.open(root)


@pytest.fixture
def stored(tmp_path):
    return fill(tmp_path / "set")


def test_rows_come_back_exactly_and_frames_nearly(stored):
    assert stored.num_episodes == 3
    assert [stored.length(number) for number in range(3)] == list(LENGTHS)
    for number, length in enumerate(LENGTHS):
        given, got = episode(number, length), stored.slice(number, 0, length)
        for name in ("proprio", "state", "action"):
            assert got[name].dtype == given[name].dtype
            assert np.array_equal(got[name], given[name])
        assert got["pixels"].dtype == np.uint8
        assert np.abs(got["pixels"].astype(int) - given["pixels"]).mean() < 4


@pytest.mark.parametrize(
    ("start", "stop", "step"), [(0, 1, 1), (7, 20, 3), (24, 25, 1), (3, 25, 8)]
)
def test_slices_are_cut_from_the_whole(stored, start, stop, step):
    whole, part = stored.slice(1, 0, 25), stored.slice(1, start, stop, step)
    for name, values in part.items():
        assert np.array_equal(values, whole[name][start:stop:step])


@pytest.mark.parametrize(
    "cut", [(3, 0, 1), (-1, 0, 1), (0, 0, 13), (0, 5, 5), (0, -1, 3), (0, 0, 2, 0)]
)
def test_slices_outside_are_refused(stored, cut):
    with pytest.raises(IndexError):
        stored.slice(*cut)


def test_arrays_hold_all_rows_in_order(stored):
    arrays = stored.arrays()
    assert arrays["offsets"].tolist() == [0, 12, 37, 40]
    assert np.array_equal(arrays["state"][12:37], episode(1, 25)["state"])
    table = pq.read_table(stored.root / "data/chunk-000/file-000.parquet")
    assert table["index"].to_pylist() == list(range(40))
    assert table["frame_index"].to_pylist() == [*range(12), *range(25), *range(3)]


def test_order_of_writing_does_not_matter_and_finalize_repeats(stored, tmp_path):
    other = fill(tmp_path / "other", order=(2, 0, 1))
    writer(other.root).finalize()
    for path in (p for p in stored.root.rglob("*") if p.is_file()):
        assert path.read_bytes() == (other.root / path.relative_to(stored.root)).read_bytes()
    assert not (other.root / "parts").exists()


def test_data_files_are_split_when_large(tmp_path, monkeypatch):
    monkeypatch.setattr("tubelet.datasets.trajectory_writer._MAX_DATA_BYTES", 100)
    split = fill(tmp_path / "set")
    assert len(list((split.root / "data").rglob("*.parquet"))) == 3
    assert np.array_equal(split.slice(2, 0, 3)["state"], episode(2, 3)["state"])


def test_writing_goes_on_where_it_stopped(tmp_path):
    first = writer(tmp_path)
    first.add_episode(1, **episode(1, 25))
    assert writer(tmp_path).finished() == {1}
    with pytest.raises(DatasetError, match=r"lacks episodes \[0\]"):
        first.finalize()
    with pytest.raises(DatasetError, match="not a trajectory set"):
        TrajectorySet.open(tmp_path)
    first.add_episode(0, **episode(0, 12))
    first.finalize()
    again = writer(tmp_path)
    assert again.finished() == {0, 1}
    again.add_episode(2, **episode(2, 3))
    again.finalize()
    assert TrajectorySet.open(tmp_path).arrays()["offsets"].tolist() == [0, 12, 37, 40]


def test_layout_is_lerobots(stored):
    """The same files, keys, columns and types as lerobot writes; its cameras have other names."""
    reference = json.loads((REFERENCE / "meta/info.json").read_text())
    info = json.loads((stored.root / "meta/info.json").read_text())
    assert list(info) == list(reference)
    for name, feature in reference["features"].items():
        ours = info["features"][name.replace("images.cam", "images.top")]
        assert set(ours) == set(feature)
        assert ours["dtype"] == feature["dtype"]
        assert set(ours.get("info", ())) == set(feature.get("info", ()))
    for key in ("codebase_version", "data_path", "video_path", "chunks_size"):
        assert info[key] == reference[key]

    path = "data/chunk-000/file-000.parquet"
    data, expected = types(stored.root, path), types(REFERENCE, path)
    assert data.pop("observation.sim_state") == "fixed_size_list<element: double>[7]"
    assert data.pop("observation.state") == "fixed_size_list<element: float>[4]"
    assert expected.pop("observation.state") == "fixed_size_list<element: float>[2]"
    assert data == expected
    assert types(stored.root, "meta/tasks.parquet") == types(REFERENCE, "meta/tasks.parquet")
    expected = types(REFERENCE, lerobot.EPISODES_PATH)
    renamed = {k.replace("images.cam", "images.top"): v for k, v in expected.items()}
    assert types(stored.root, lerobot.EPISODES_PATH) == renamed
    stats = json.loads((stored.root / "meta/stats.json").read_text())
    assert set(stats["action"]) == set(
        json.loads((REFERENCE / "meta/stats.json").read_text())["action"]
    )
    assert np.shape(stats[lerobot.CAMERA]["mean"]) == (3, 1, 1)
    assert stats["index"]["max"] == [39.0]


def test_reads_what_lerobot_wrote():
    """Frame brightness grows by 5 per frame of each episode; states are (episode, frame)."""
    foreign = TrajectorySet.open(REFERENCE)
    assert (foreign.num_episodes, foreign.fps, foreign.image_size) == (3, 10, (64, 64))
    for number in range(3):
        part = foreign.slice(number, 2, 12, 3)
        assert set(part) == {"pixels", "proprio", "action"}
        assert part["proprio"].tolist() == [[number, t] for t in (2, 5, 8, 11)]
        brightness = part["pixels"].mean((1, 2, 3))
        np.testing.assert_allclose(np.diff(brightness), 15, atol=2)
        np.testing.assert_allclose(brightness[0], 20 * number + 10, atol=6)


def test_several_episodes_in_one_video_file(stored):
    """As other writers do: the same set with its videos joined reads the same."""
    root = stored.root
    before = [stored.slice(n, 0, stored.length(n))["pixels"] for n in range(3)]
    write_video(stored.video_path(0), np.concatenate(before), fps=10, crf=0)
    path = root / lerobot.EPISODES_PATH
    rows = pq.read_table(path).to_pylist()
    for row, start in zip(rows, (0, 12, 37), strict=True):
        key = f"videos/{lerobot.CAMERA}"
        row[f"{key}/file_index"] = 0
        row[f"{key}/from_timestamp"] = start / 10
        row[f"{key}/to_timestamp"] = start / 10 + row["length"] / 10
    pq.write_table(lerobot.episodes_table(rows), path)
    joined = TrajectorySet.open(root)
    assert joined.locate(2) == (joined.video_path(0), 37)
    for number in range(3):
        again = joined.slice(number, 0, LENGTHS[number])["pixels"].astype(int)
        assert np.abs(again - before[number]).mean() < 2
        assert np.array_equal(joined.cache().episode(number), again)


def test_reads_a_set_without_simulator_states(stored):
    info = json.loads((stored.root / "meta/info.json").read_text())
    del info["features"]["observation.sim_state"]
    (stored.root / "meta/info.json").write_text(json.dumps(info))
    (stored.root / "meta/tubelet.json").unlink()
    foreign = TrajectorySet.open(stored.root)
    assert set(foreign.slice(0, 0, 2)) == {"pixels", "proprio", "action"}
    assert foreign.metadata == {}


def test_cache_holds_the_decoded_frames(stored):
    cache = stored.cache()
    assert cache.frames.shape == (40, SIZE, SIZE, 3)
    assert np.array_equal(cache.episode(1), stored.slice(1, 0, 25)["pixels"])
    assert not cache.frames.flags.writeable
    small = stored.cache(16)
    assert small.frames.shape == (40, 16, 16, 3)
    assert np.array_equal(pickle.loads(pickle.dumps(small)).frames, small.frames)


def test_cache_is_rebuilt_only_when_videos_change(stored):
    path = stored.cache().path
    made = path.stat().st_mtime_ns
    assert stored.cache().path.stat().st_mtime_ns == made
    write_video(stored.video_path(2), np.zeros((3, SIZE, SIZE, 3), np.uint8), fps=10)
    changed = TrajectorySet.open(stored.root).cache()
    assert changed.episode(2).max() < 5
    path.with_suffix(".json").write_text("{torn")
    assert len(stored.cache()) == 40


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="space is not reserved here")
def test_a_full_disk_is_an_error_and_leaves_no_cache(stored, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(DatasetError, match="No space left on device; free some space"):
        stored.cache()
    assert list((stored.root / "cache").iterdir()) == []


def test_cache_by_several_processes_is_the_same(tmp_path):
    made = writer(tmp_path)
    for number in range(4):
        made.add_episode(number, **episode(number % 3, 1010))
    made.finalize()
    whole = TrajectorySet.open(tmp_path)
    parallel = whole.cache().frames.copy()  # 4040 frames are worth two processes
    for number in (0, 3):
        assert np.array_equal(
            parallel[number * 1010 :][:1010], whole.slice(number, 0, 1010)["pixels"]
        )


def test_pickles_as_its_path(stored):
    again = pickle.loads(pickle.dumps(stored))
    assert np.array_equal(again.slice(0, 2, 5)["pixels"], stored.slice(0, 2, 5)["pixels"])
    assert len(pickle.dumps(stored)) < 500


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"proprio": np.zeros((5, 4))}, r"proprio has shape \[5, 4\]"),
        ({"state": np.full((12, 7), np.nan)}, "finite"),
        ({"action": np.ones((12, 2))}, "last of the 12 action rows must be 0"),
        ({"pixels": np.zeros((12, 8, 8, 3), np.uint8)}, "frames"),
    ],
)
def test_episodes_that_do_not_fit_are_refused(tmp_path, change, message):
    made = writer(tmp_path)
    with pytest.raises(DatasetError, match=message):
        made.add_episode(0, **{**episode(0, 12), **change})
    assert made.finished() == set()


@pytest.mark.parametrize("change", [{"fps": 12}, {"metadata": {"k": 2}}, {"action_dim": 3}])
def test_another_set_in_the_folder_is_refused(stored, change):
    with pytest.raises(DatasetError, match="another trajectory set"):
        writer(stored.root, **change)


@pytest.mark.parametrize(
    ("change", "nearest"), [({"image_size": 33}, "34"), ({"image_size": 8}, "16")]
)
def test_sizes_that_video_cannot_have_are_refused(tmp_path, change, nearest):
    with pytest.raises(ConfigError, match=f"nearest is {nearest}"):
        writer(tmp_path, **change)


def test_damage_is_named(stored):
    path = stored.video_path(1)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoDecodeError, match=r"file-001.mp4"):
        TrajectorySet.open(stored.root).slice(1, 0, 5)
    with pytest.raises(VideoDecodeError, match=r"file-001.mp4"):
        TrajectorySet.open(stored.root).cache()
    os.unlink(path)
    with pytest.raises(DatasetError, match=r"file-001.mp4 .*missing"):
        TrajectorySet.open(stored.root).cache()
    data = stored.root / "data/chunk-000/file-000.parquet"
    data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(DatasetError, match=r"file-000.parquet cannot be read"):
        TrajectorySet.open(stored.root).arrays()
    (stored.root / "meta/info.json").write_text('{"codebase_version": "v2.1"}')
    with pytest.raises(DatasetError, match=r"v2\.1: only v3"):
        TrajectorySet.open(stored.root)


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames"),
        ([np.zeros((15, 16, 3), np.uint8)], "nearest is 16x16"),
        ([np.zeros((16, 16, 3), np.float32)], "uint8"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((18, 16, 3), np.uint8)], "frame 1 is"),
    ],
)
def test_frames_that_are_no_video_are_refused(tmp_path, frames, message):
    with pytest.raises(DatasetError, match=message):
        write_video(tmp_path / "x.mp4", frames, fps=10)
    assert list(tmp_path.iterdir()) == []


def test_frames_as_stored_equal_a_lossless_video(tmp_path):
    from tubelet.datasets.decode import open_video
    from tubelet.datasets.video_writer import as_stored

    frames = np.random.default_rng(0).integers(0, 256, (4, 34, 64, 3), dtype=np.uint8)
    write_video(tmp_path / "x.mp4", frames, fps=10, crf=0)
    with open_video(tmp_path / "x.mp4") as video:
        assert np.array_equal(video.get_frames(range(4)), as_stored(frames))
    assert np.array_equal(as_stored(frames[None])[0, 2], as_stored(frames[2]))


def test_video_times_and_keyframes(tmp_path):
    from tubelet.datasets.decode import open_video

    write_video(tmp_path / "x.mp4", episode(0, 25)["pixels"], fps=10)
    with open_video(tmp_path / "x.mp4") as video:
        np.testing.assert_allclose(video.timestamps, np.arange(25) / 10, atol=1e-9)
        assert np.diff([*video.info.keyframes, 25]).max() <= 10
