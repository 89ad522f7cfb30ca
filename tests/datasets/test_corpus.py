import json
import os
import shutil

import numpy as np
import pytest

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets import videos
from tubelet.datasets.corpus import VideoEntry, index_corpus


def test_a_folder_is_indexed_in_order_of_paths(corpus_folder):
    index = index_corpus(corpus_folder, progress=False)
    assert [entry.path for entry in index.entries] == sorted(
        str(path) for path in corpus_folder.iterdir()
    )
    assert [entry.num_frames for entry in index.entries] == [20 + 3 * i for i in range(10)]
    entry = index[4]
    assert (entry.height, entry.width, entry.fps) == (48, 64, pytest.approx(25))
    np.testing.assert_allclose(entry.timestamps, np.arange(32) / 25, atol=1e-9)
    assert index.report() == "10 videos usable, 0 of 10 bad (0.0 %)"


def test_entries_survive_json_compactly(corpus_folder):
    entry = index_corpus(corpus_folder, progress=False)[9]
    text = json.dumps(entry.to_json())
    assert VideoEntry.from_json(json.loads(text)).to_json() == entry.to_json()
    assert len(text) < 500  # a constant rate takes three numbers, not one per frame


def test_other_extensions_are_ignored_and_counted(tmp_path, corpus_folder):
    shutil.copy(corpus_folder / "000.mp4", tmp_path / "B.MP4")
    shutil.copy(corpus_folder / "001.mp4", tmp_path / "video.jpg")
    shutil.copy(corpus_folder / "002.mp4", tmp_path / ".hidden.mp4")
    (tmp_path / "sub").mkdir()
    shutil.copy(corpus_folder / "003.mp4", tmp_path / "sub" / "c.mp4")
    (tmp_path / "notes.txt").write_text("notes")
    index = index_corpus(tmp_path, progress=False)
    assert [os.path.relpath(e.path, tmp_path) for e in index.entries] == ["B.MP4", "sub/c.mp4"]
    assert [os.path.basename(path) for path in index.ignored] == ["notes.txt", "video.jpg"]
    assert "2 files with other extensions ignored" in index.report()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("list.txt", "# a comment\nb c.mp4\n\n1.mp4\nwrong.jpg\n1.mp4\n"),
        ("list.csv", "1.mp4 0\nb c.mp4 12\nwrong.jpg 3\n"),
        ("list.csv", 'path,label\n1.mp4,walk\n"b c.mp4",run\nwrong.jpg,run\n'),
        ("list.csv", "1.mp4::3\nb c.mp4::4\nwrong.jpg::4\n"),
    ],
)
def test_list_files(tmp_path, corpus_folder, name, text):
    for source, copy in (("000", "1.mp4"), ("001", "b c.mp4"), ("002", "wrong.jpg")):
        shutil.copy(corpus_folder / f"{source}.mp4", tmp_path / copy)
    (tmp_path / name).write_text(text)
    index = index_corpus(tmp_path / name, progress=False)
    assert [os.path.basename(entry.path) for entry in index.entries] == [
        "1.mp4",
        "b c.mp4",
        "wrong.jpg",  # the files of a list are tried whatever they are called
    ]


def test_paths_as_a_list(corpus_folder):
    paths = sorted(corpus_folder.iterdir())
    index = index_corpus([paths[3], str(paths[1]), paths[3]], progress=False)
    assert [entry.path for entry in index.entries] == [str(paths[1]), str(paths[3])]


def test_the_cache_is_reused_for_unchanged_files_only(tmp_path, corpus_folder, monkeypatch):
    folder = tmp_path / "videos"
    shutil.copytree(corpus_folder, folder)
    (folder / "bad.mp4").write_text("no video")
    cache = tmp_path / "index.jsonl"
    first = index_corpus(folder, cache_path=cache, progress=False)
    read = []
    inspect = videos._inspect
    monkeypatch.setattr(
        videos, "_inspect", lambda path, verify: (read.append(path), inspect(path, verify))[1]
    )
    again = index_corpus(folder, cache_path=cache, progress=False)
    assert read == []
    assert [e.to_json() for e in again.entries] == [e.to_json() for e in first.entries]
    assert again.quarantine == first.quarantine

    shutil.copy(folder / "009.mp4", folder / "002.mp4")
    (folder / "005.mp4").unlink()
    changed = index_corpus(folder, cache_path=cache, progress=False)
    assert [os.path.basename(path) for path in read] == ["002.mp4"]
    assert changed[2].num_frames == 47
    assert len(changed) == 9

    read.clear()
    index_corpus(folder, cache_path=cache, verify="full", progress=False)
    assert len(read) == 10  # a closer look than the cache had


def test_a_file_that_is_no_index_is_not_overwritten(tmp_path, corpus_folder):
    cache = tmp_path / "thesis.txt"
    cache.write_text("years of work\n")
    with pytest.raises(DatasetError, match="not a video index"):
        index_corpus(corpus_folder, cache_path=cache, progress=False)
    assert cache.read_text() == "years of work\n"


def test_several_processes_give_the_same_index(corpus_folder):
    one = index_corpus(corpus_folder, progress=False, processes=1)
    two = index_corpus(corpus_folder, progress=False, processes=2)
    assert [e.to_json() for e in one.entries] == [e.to_json() for e in two.entries]


def test_a_corpus_without_videos_is_an_error(tmp_path, corpus_folder):
    with pytest.raises(DatasetError, match="no such folder or list file"):
        index_corpus(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="no video files in this folder; looked for"):
        index_corpus(tmp_path)
    (tmp_path / "a.jpg").touch()
    with pytest.raises(DatasetError, match=r"1 other files, such as .*a\.jpg"):
        index_corpus(tmp_path)
    (tmp_path / "list.txt").write_text("# nothing\n")
    with pytest.raises(DatasetError, match="the list names no videos"):
        index_corpus(tmp_path / "list.txt")
    with pytest.raises(DatasetError, match="the list of videos is empty"):
        index_corpus([])
    with pytest.raises(DatasetError, match="neither a folder of videos, nor a list"):
        index_corpus(corpus_folder / "000.mp4")
    with pytest.raises(ConfigError, match="verify='fast'"):
        index_corpus(corpus_folder, verify="fast")
    with pytest.raises(ConfigError, match="max_bad_share=5"):
        index_corpus(corpus_folder, max_bad_share=5)


def test_too_many_bad_files_are_an_error_that_names_them(tmp_path, corpus_folder):
    for i in range(3):
        (tmp_path / f"bad{i}.mp4").touch()
    with pytest.raises(DatasetError, match=r"3 of 3 videos are bad, none is usable.*empty.*\(3×\)"):
        index_corpus(tmp_path, max_bad_share=1, progress=False)
    shutil.copy(corpus_folder / "000.mp4", tmp_path / "good.mp4")
    with pytest.raises(
        DatasetError, match=r"3 of 4.*max_bad_share = 0\.5(.|\n)*bad0\.mp4: the file"
    ):
        index_corpus(tmp_path, progress=False)
    assert len(index_corpus(tmp_path, max_bad_share=0.75, progress=False)) == 1
