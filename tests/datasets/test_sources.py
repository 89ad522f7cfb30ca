"""Shards, object stores, index files, mixtures and buckets: other ways to name a corpus."""

import io
import json
import os
import shutil
import tarfile
from itertools import islice

import fsspec
import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets import storage
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.corpus_stats import reasons, summary, write_report
from tubelet.datasets.images import index_images
from tubelet.datasets.shards import expand_braces

CONFIG = ClipConfig(frames=4, size=48)


def _take(batches, count):
    return list(islice(batches, count))


def _same(a, b):
    return torch.equal(a.video, b.video) and torch.equal(a.video_ids, b.video_ids)


def _names(paths):
    return [os.path.basename(path) for path in paths]


def _tar(path, files):
    with tarfile.open(path, "w") as archive:
        for file in files:
            archive.add(file, f"./some/folder/{os.path.basename(file)}")
            label = tarfile.TarInfo(f"./some/folder/{os.path.basename(file)[:-4]}.cls")
            label.size = 1
            archive.addfile(label, io.BytesIO(b"3"))
    return path


@pytest.fixture
def shards(corpus_folder, tmp_path):
    files = sorted(corpus_folder.iterdir())
    (tmp_path / "shards").mkdir()
    for number in range(2):
        _tar(tmp_path / "shards" / f"{number:03d}.tar", files[5 * number : 5 * number + 5])
    return tmp_path / "shards"


@pytest.fixture
def plain(corpus_folder):
    return _take(clip_batches(index_corpus(corpus_folder, progress=False), CONFIG, 4), 3)


@pytest.mark.parametrize("source", ["", "{000..001}.tar"])
@pytest.mark.parametrize("backend", ["pyav", "decord"])
def test_shards_give_the_clips_of_their_files(shards, plain, source, backend):
    if backend == "decord":
        pytest.importorskip("decord")
    index = index_corpus(shards / source, progress=False)
    assert len(index) == 10
    assert len(index.ignored) == 10  # the labels
    config = ClipConfig(frames=4, size=48, backend=backend)
    found = _take(clip_batches(index, config, 4, workers=1), 3)
    if backend == "pyav":
        assert all(map(_same, found, plain))
    assert all(torch.equal(a.timestamps, b.timestamps) for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize("where", ["in a video", "in a header", "between members"])
def test_a_shard_that_ends_early_is_counted_and_survived(shards, where):
    path = shards / "001.tar"
    with tarfile.open(path) as archive:
        third, last = archive.getmembers()[4], archive.getmembers()[-1]
    end = {
        "in a video": third.offset_data + third.size // 2,
        "in a header": third.offset + 100,
        "between members": last.offset_data + 512,
    }[where]
    path.write_bytes(path.read_bytes()[:end])
    index = index_corpus(shards, progress=False)
    assert len(index) == (10 if where == "between members" else 7)
    reasons = {os.path.basename(bad.path): bad.reason for bad in index.quarantine}
    if where == "in a video":
        assert f"ends inside it: {third.size // 2} of {third.size} bytes" in reasons.pop("007.mp4")
    says = "lacks its end mark" if where == "between members" else "ends early or is damaged"
    assert says in reasons.pop("001.tar")
    assert not reasons
    next(clip_batches(index, CONFIG, 4))


def test_things_that_are_no_shards_are_named(shards, tmp_path):
    (shards / "002.tar").write_text("no archive\n" * 100)
    (shards / "003.tar").touch()
    with tarfile.open(shards / "004.tar.gz", "w:gz"):
        pass
    found = {_names([b.path])[0]: b.reason for b in index_corpus(shards, progress=False).quarantine}
    assert found.keys() == {"002.tar", "003.tar", "004.tar.gz"}
    assert found["002.tar"].startswith("not a tar file")
    assert "empty" in found["003.tar"]
    assert "compressed" in found["004.tar.gz"]
    missing = index_corpus([shards / "000.tar", shards / "009.tar"], progress=False)
    assert [(b.path, b.reason) for b in missing.quarantine] == [
        (str(shards / "009.tar"), "no such file")
    ]


def test_links_in_a_shard_lead_nowhere(shards):
    with tarfile.open(shards / "000.tar", "a") as archive:
        link = tarfile.TarInfo("../../outside.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert len(index_corpus(shards, progress=False)) == 10


def test_braces_stand_for_ranges():
    assert expand_braces("a-{08..11}.tar") == [f"a-{n}.tar" for n in ("08", "09", "10", "11")]
    assert len(expand_braces("{0..3}/{00..09}.tar")) == 40
    assert expand_braces("plain") == ["plain"]


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_object_stores(corpus_folder, tmp_path, plain, kind):
    root = f"memory://{tmp_path.name}" if kind == "memory" else f"file://{tmp_path}/store"
    system, path = fsspec.core.url_to_fs(root)
    system.put(str(corpus_folder), path + "/videos", recursive=True)
    try:
        index = index_corpus(f"{root}/videos", progress=False, processes=1)
        assert len(index) == 10
        assert all(storage.is_remote(entry.path) for entry in index.entries)
        assert all(map(_same, _take(clip_batches(index, CONFIG, 4, workers=1), 3), plain))
        cached = index_corpus(
            f"{root}/videos", cache_path=tmp_path / "i.jsonl", progress=False, deduplicate=True
        )
        assert len(index_corpus(tmp_path / "i.jsonl", progress=False)) == len(cached) == 10
        with pytest.raises(DatasetError, match=r"nothing in it|cannot be listed"):
            index_corpus(f"{root}/nowhere", progress=False)
        missing = [f"{root}/videos/000.mp4", f"{root}/none.mp4"]
        bad = index_corpus(missing, progress=False).quarantine
        assert [(b.path, b.reason) for b in bad] == [(f"{root}/none.mp4", "no such file")]
    finally:
        system.rm(path, recursive=True)


def test_shards_in_an_object_store(shards, plain, tmp_path):
    root = f"memory://{tmp_path.name}-shards"
    system, path = fsspec.core.url_to_fs(root)
    system.put(str(shards), path, recursive=True)
    try:
        index = index_corpus(root + "/{000..001}.tar", progress=False, processes=1)
        assert all(map(_same, _take(clip_batches(index, CONFIG, 4), 3), plain))
    finally:
        system.rm(path, recursive=True)


def test_a_protocol_without_its_library_says_what_to_install():
    with pytest.raises(ConfigError, match=r"nowhere://.*pip install"):
        index_corpus("nowhere://bucket/videos", progress=False)


def test_duplicates_are_left_out_and_named(tmp_path, corpus_folder):
    for name in ("000.mp4", "001.mp4"):
        shutil.copy(corpus_folder / name, tmp_path / name)
    shutil.copy(corpus_folder / "000.mp4", tmp_path / "copy.mp4")
    names = ["000.mp4", "001.mp4", "copy.mp4", "001.mp4"]
    (tmp_path / "list.txt").write_text("\n".join(names))
    plain = index_corpus(tmp_path / "list.txt", progress=False)
    assert (len(plain), len(plain.duplicates)) == (3, 1)
    out = tmp_path / "index.jsonl"
    found = index_corpus(tmp_path / "list.txt", cache_path=out, deduplicate=True, progress=False)
    assert _names(entry.path for entry in found.entries) == ["000.mp4", "001.mp4"]
    assert [_names(pair) for pair in found.duplicates] == [
        ["001.mp4", "001.mp4"],
        ["copy.mp4", "000.mp4"],
    ]
    assert "2 duplicates left out" in found.report()
    assert "copy.mp4: the same as" in found.report()
    again = index_corpus(out, progress=False)  # the index is a source
    assert [e.to_json() for e in again.entries] == [e.to_json() for e in found.entries]
    assert again.duplicates == found.duplicates


def test_an_index_as_a_source_notices_changes(tmp_path, corpus_folder):
    shutil.copytree(corpus_folder, tmp_path / "videos")
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    out = tmp_path / "index.jsonl"
    index_corpus(tmp_path / "videos", cache_path=out, progress=False)
    shutil.copy(corpus_folder / "009.mp4", tmp_path / "videos" / "001.mp4")
    (tmp_path / "videos" / "002.mp4").unlink()
    index = index_corpus(out, progress=False)
    assert len(index) == 9
    assert index[1].num_frames == 47
    assert _names(bad.path for bad in index.quarantine) == ["002.mp4", "bad.mp4"]
    (tmp_path / "other.jsonl").write_text('{"format": "poem"}\n')
    with pytest.raises(DatasetError, match=r"not a video index.*poem"):
        index_corpus(tmp_path / "other.jsonl")


@pytest.fixture
def mixture(tmp_path, corpus_folder):
    files = sorted(corpus_folder.iterdir())
    for folder, chosen in (("a", files[:7]), ("b", files[7:])):
        (tmp_path / folder).mkdir()
        for file in chosen:
            os.link(file, tmp_path / folder / file.name)
    (tmp_path / "photos").mkdir()
    for number in range(3):
        Image.new("RGB", (40, 30), (80 * number, 0, 0)).save(tmp_path / "photos" / f"{number}.png")

    def write(*tables):
        text = "\n".join(f"[[corpus]]\n{table}" for table in tables)
        (tmp_path / "mix.toml").write_text(text)
        return tmp_path / "mix.toml"

    return write


def test_a_mixture_draws_each_sample_by_the_weights(mixture):
    source = mixture('videos = "a"\nweight = 3', 'videos = "b"')
    index = index_corpus(source, progress=False)
    assert len(index) == 10
    assert [(p.name, p.weight, p.first, p.stop) for p in index.parts] == [
        ("a", 3, 0, 7),
        ("b", 1, 7, 10),
    ]
    drawn = clip_batches(index, ClipConfig(frames=2, sampling="videos"), 1)._source
    numbers = np.array([drawn._draw(sample, 0)[0] for sample in range(4000)])
    counts = np.bincount(numbers, minlength=10)
    expected = 4000 * np.array([3 / 7] * 7 + [1 / 3] * 3) / 4
    assert ((counts - expected) ** 2 / expected).sum() < 40  # chi², 9 degrees of freedom
    redrawn = np.array([drawn._draw(sample, 5)[0] for sample in range(4000)])
    assert ((numbers < 7) == (redrawn < 7)).all()  # a redrawn sample stays in its corpus


def test_mixtures_are_the_same_for_any_workers_and_ranks(mixture):
    index = index_corpus(mixture('videos = "a"', 'images = "photos"'), progress=False)
    config = ClipConfig(buckets=((2, 25.0, 1.0), (6, 12.5, 1.0)), size=24)
    first = _take(clip_batches(index, config, 4), 8)
    assert {batch.video.shape[1] for batch in first} == {2, 6}
    assert all(map(_same, first, _take(clip_batches(index, config, 4, workers=2), 8)))
    resumed = clip_batches(index, config, 4, start_step=5, workers=1)
    assert all(map(_same, first[5:], _take(resumed, 3)))
    ranks = [_take(clip_batches(index, config, 2, rank=r, world_size=2), 8) for r in range(2)]
    for step, whole in enumerate(first):
        assert torch.equal(torch.cat([rank[step].video for rank in ranks]), whole.video)


def test_buckets_have_their_shares_and_rates(corpus_folder):
    index = index_corpus(corpus_folder, progress=False)
    config = ClipConfig(buckets=((4, 25.0, 3.0), (8, 12.5, 1.0)), size=8)
    source = clip_batches(index, config, 2)._source
    shapes = [source.shape(step)[1] for step in range(2000)]
    assert abs(shapes.count(4) / 2000 - 0.75) < 0.04  # 4 standard errors
    for batch in _take(clip_batches(index, config, 2), 6):
        gap = 1 / 25 if batch.video.shape[1] == 4 else 2 / 25
        np.testing.assert_allclose(np.diff(batch.timestamps), gap, atol=1e-9)


def test_images_among_videos_are_still_clips_or_steps_of_their_own(mixture):
    index = index_corpus(mixture('videos = "a"', 'images = "photos"'), progress=False)
    still = 0
    for batch in _take(clip_batches(index, ClipConfig(frames=4, size=16), 4), 6):
        assert batch.video.shape == (4, 4, 16, 16, 3)
        for clip, number in zip(batch.video, batch.video_ids, strict=True):
            if number >= 7:
                still += 1
                assert (clip == clip[:1]).all()
                assert clip[0, 0, 0].tolist() == [80 * (int(number) - 7), 0, 0]
    assert 4 < still < 20
    config = ClipConfig(frames=4, size=16, stills="single")
    alone = []
    for batch in _take(clip_batches(index, config, 4, workers=1), 24):
        images = batch.video.shape[1] == 1
        assert batch.video.shape[1] in (1, 4)
        assert ((batch.video_ids >= 7) == images).all()
        alone.append(images)
    assert 4 < sum(alone) < 20


def test_a_mixture_can_be_cached(mixture, tmp_path):
    source = mixture('videos = "a"', 'images = "photos"')
    index = index_corpus(source, cache_path=tmp_path / "i.jsonl", progress=False)
    direct = _take(clip_batches(index, CONFIG, 4), 3)
    assert all(map(_same, direct, _take(clip_batches(index, CONFIG, 4, cache=True), 3)))
    assert {"i.jsonl.0", "i.jsonl.1"} <= set(os.listdir(tmp_path))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("x = ", "not a readable mixture"),
        ("", "needs a .*corpus"),
        ('[[corpora]]\nvideos = "a"', "did you mean 'corpus'"),
        ('[[corpus]]\nvideo = "a"', "did you mean 'videos'"),
        ('[[corpus]]\nvideos = "a"\nimages = "b"', "one of them"),
        ('[[corpus]]\nvideos = "a"\nweight = -1', "above 0"),
    ],
)
def test_a_file_that_is_no_mixture(tmp_path, text, says):
    (tmp_path / "mix.toml").write_text(text)
    with pytest.raises(ConfigError, match=says):
        index_corpus(tmp_path / "mix.toml")


def test_a_corpus_too_short_for_a_bucket_is_named(mixture):
    index = index_corpus(mixture('videos = "a"', 'videos = "b"'), progress=False)
    config = ClipConfig(buckets=((4, 25.0, 1.0), (40, 25.0, 1.0)))
    with pytest.raises(DatasetError, match="a: none of 7 videos is long enough for 40 frames"):
        clip_batches(index, config, 2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"buckets": ((0, 4.0, 1.0),)},
        {"buckets": ((4, 4.0, 0.0),)},
        {"buckets": ((4, 4.0, 1.0),), "fps": 3.0},
        {"stills": "blink"},
    ],
)
def test_impossible_buckets_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        ClipConfig(**wrong)


def test_the_report_counts_what_is_there(tmp_path, corpus_folder, videos):
    shutil.copytree(corpus_folder, tmp_path / "videos")
    shutil.copy(corpus_folder / "003.mp4", tmp_path / "videos" / "again.mp4")
    videos.write(tmp_path / "videos" / "<b>.webm", 30, codec="libvpx-vp9", size=(32, 32))
    for number in range(2):
        videos.truncate(
            videos.write(tmp_path / "x.mp4", 30 + number, faststart=True),
            tmp_path / "videos" / f"cut<{number}>.mp4",
            0.8,
        )
    index = index_corpus(tmp_path / "videos", deduplicate=True, progress=False)
    facts = summary(index)
    assert (facts["videos"], facts["bad"], facts["duplicates"]) == (11, 2, 1)
    assert facts["frames"] == sum(20 + 3 * i for i in range(10)) + 30
    assert facts["codecs"] == {"h264": 10, "vp9": 1}
    assert facts["resolutions"] == {"64x48": 10, "32x32": 1}
    assert facts["hours"] == pytest.approx(facts["frames"] / 25 / 3600, abs=1e-4)
    assert facts["gop"][4] <= 30
    assert list(reasons(index.quarantine).values()) == [2]  # one reason, whatever the numbers
    write_report(index, tmp_path / "out", pictures=5)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "&lt;b&gt;.webm" not in page  # good files are not listed
    assert "cut&lt;0&gt;.mp4" in page
    assert "<0>" not in page
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == facts
    assert Image.open(tmp_path / "out" / "contact_sheet.jpg").size == (768, 96)


def test_images_in_shards(tmp_path, mixture):
    folder = tmp_path / "photos"
    _tar(tmp_path / "p.tar", sorted(folder.iterdir()))
    index = index_images(tmp_path / "p.tar", progress=False)
    assert [(e.width, e.height, e.info.codec) for e in index.entries] == [(40, 30, "png")] * 3
    batch = next(clip_batches(index, ClipConfig(frames=1, size=8), 6))
    assert batch.video[:, 0, 0, 0, 0].tolist() == (80 * batch.video_ids).tolist()
