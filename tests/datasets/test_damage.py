"""Damaged files in a corpus: found, listed, and without effect on the clips of the others."""

import os
import shutil
from itertools import islice

import numpy as np
import pytest
import torch

from tubelet.core.errors import DatasetError
from tubelet.datasets.clips import MAX_DRAWS, ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus

CONFIG = ClipConfig(frames=8, size=48)


@pytest.fixture(scope="module")
def damaged(corpus_folder, videos, tmp_path_factory):
    """The corpus in 16 copies, and 5 % of damaged files (eight of them) sorted in among them."""
    folder = tmp_path_factory.mktemp("damaged")
    for copy in range(15):
        for path in sorted(corpus_folder.iterdir()):
            os.link(path, folder / f"{path.stem}-{copy:02d}.mp4")
    whole = videos.write(folder / "003-05x.mp4", 40, faststart=True)
    (folder / "000-00x.mp4").touch()
    for i, share in enumerate((0.3, 0.6, 0.95)):
        videos.truncate(whole, folder / f"00{i}-07x.mp4", share)
    whole.unlink()
    videos.truncate(corpus_folder / "009.mp4", folder / "004-01x.mp4", 0.5)
    (folder / "005-03x.mp4").write_bytes(np.random.default_rng(0).bytes(20_000))
    (folder / "006-14x.mp4").write_text("not a video\n" * 500)
    shutil.copy(corpus_folder / "009.mp4", folder / "007-00x.txt")  # wrong extension
    (folder / "008-11x.mp4").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(1000))
    return folder


def _good(folder):
    return [path for path in folder.iterdir() if "x" not in path.stem]


def _same(a, b):
    return torch.equal(a.video, b.video) and torch.equal(a.timestamps, b.timestamps)


def test_every_bad_file_is_listed_with_its_reason(damaged):
    index = index_corpus(damaged, progress=False)
    bad = [os.path.basename(video.path) for video in index.quarantine]
    assert bad == sorted(p.name for p in damaged.iterdir() if "x" in p.stem and p.suffix == ".mp4")
    assert len(index) == 150
    report = index.report()
    assert report.startswith("150 videos usable, 8 of 158 bad (5.1 %), 1 files with other")
    assert all(f"{name}: " in report for name in [*bad, "007-00x.txt"])
    assert all(video.reason for video in index.quarantine)


def test_batches_are_those_of_the_corpus_without_the_damaged_files(damaged):
    with_damage = clip_batches(index_corpus(damaged, progress=False), CONFIG, 8)
    without = clip_batches(index_corpus(_good(damaged), progress=False), CONFIG, 8)
    for a, b in islice(zip(with_damage, without, strict=True), 10):
        assert _same(a, b)
        assert torch.equal(a.video_ids, b.video_ids)
    assert with_damage.bad == {}


@pytest.mark.parametrize("workers", [0, 2])
def test_damage_after_indexing_replaces_only_the_samples_it_meets(
    tmp_path, corpus_folder, videos, workers
):
    folder = tmp_path / "videos"
    shutil.copytree(corpus_folder, folder)
    index = index_corpus(folder, progress=False)
    intact = list(islice(clip_batches(index, CONFIG, 8), 6))
    (folder / "003.mp4").unlink()
    (folder / "007.mp4").write_text("overwritten")
    batches = clip_batches(index, CONFIG, 8, workers=workers)
    replaced = 0
    for a, b in zip(intact, islice(batches, 6), strict=True):
        gone = torch.isin(a.video_ids, torch.tensor([3, 7]))
        replaced += int(gone.sum())
        assert torch.equal(a.video[~gone], b.video[~gone])
        assert not torch.isin(b.video_ids, torch.tensor([3, 7])).any()
    assert replaced > 0
    assert {
        os.path.basename(path): reason.split(":")[0] for path, reason in batches.bad.items()
    } == {
        "003.mp4": "no such file",
        "007.mp4": "not a readable video",
    }
    assert "2 failed to decode" in batches.report()


def test_damage_in_the_middle_is_found_by_a_full_look_or_when_met(tmp_path, corpus_folder, videos):
    folder = tmp_path / "videos"
    shutil.copytree(corpus_folder, folder)
    videos.scramble(corpus_folder / "005.mp4", folder / "005.mp4", at=0.6)
    full = index_corpus(folder, verify="full", progress=False)
    assert [os.path.basename(bad.path) for bad in full.quarantine] == ["005.mp4"]
    index = index_corpus(folder, verify="header", progress=False)
    assert len(index) == 10
    config = ClipConfig(frames=8, frame_step=4, size=48)
    direct = clip_batches(index, config, 8)
    cached = clip_batches(index, config, 8, cache=tmp_path / "frames")
    for _ in range(8):
        next(direct), next(cached)
    assert list(direct.bad) == list(cached.bad) == [str(folder / "005.mp4")]


def test_too_much_damage_stops(tmp_path, corpus_folder):
    folder = tmp_path / "videos"
    shutil.copytree(corpus_folder, folder)
    index = index_corpus(folder, progress=False)
    for i in range(8):
        (folder / f"00{i}.mp4").unlink()
    with pytest.raises(DatasetError, match=r"of 10 videos are bad, more than max_bad_share = 0\.5"):
        list(islice(clip_batches(index, CONFIG, 8), 50))


def test_tries_are_bounded(tmp_path, corpus_folder):
    folder = tmp_path / "videos"
    shutil.copytree(corpus_folder, folder)
    index = index_corpus(folder, progress=False)
    shutil.rmtree(folder)
    batches = clip_batches(index, ClipConfig(frames=8, max_bad_share=1.0), 4)
    with pytest.raises(DatasetError, match=f"{MAX_DRAWS} draws in a row(.|\n)*no such file"):
        next(batches)
