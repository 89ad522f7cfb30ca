"""Workers that hang, crash or are killed: replaced, counted and named, and the clips unchanged."""

import faulthandler
import gc
import os
import signal
import time
from itertools import islice
from pathlib import Path

import pytest
import torch

from tubelet.core.errors import ConfigError, DatasetError, VideoDecodeError
from tubelet.datasets import clip_source, workers
from tubelet.datasets.clips import ClipConfig, clip_batches
from tubelet.datasets.corpus import index_corpus

CONFIG = ClipConfig(frames=4, size=16, clip_timeout=1.0)


@pytest.fixture
def index(corpus_folder):
    return index_corpus(corpus_folder, progress=False)


@pytest.fixture
def trap(monkeypatch):
    """``trap(name, act)``: in a worker, opening the video of this name does ``act()`` first."""
    here, opened = os.getpid(), clip_source.open_video

    def set_trap(name, act):
        def open_video(path, *args, **kwargs):
            if os.path.basename(path) == name and os.getpid() != here:
                act()
            return opened(path, *args, **kwargs)

        monkeypatch.setattr(clip_source, "open_video", open_video)

    return set_trap


def _without(index, name, count):
    """The batches of a run in which the video ``name`` cannot be decoded."""
    batches = clip_batches(index, CONFIG, 4)
    read = batches._source._read

    def refuse(number, entry, *rest):
        if os.path.basename(entry.path) == name:
            raise VideoDecodeError(entry.path, "refused", "test")
        return read(number, entry, *rest)

    batches._source._read = refuse
    return list(islice(batches, count))


def _equal(batches, others):
    return all(
        a.step == b.step and torch.equal(a.video, b.video) and torch.equal(a.video_ids, b.video_ids)
        for a, b in zip(batches, others, strict=True)
    )


def test_a_decoder_that_hangs_is_stopped_and_its_file_left_out(index, trap):
    trap("004.mp4", lambda: time.sleep(3600))
    batches = clip_batches(index, CONFIG, 4, workers=2)
    seen = list(islice(batches, 8))
    assert _equal(seen, _without(index, "004.mp4", 8))  # only the samples that met it changed
    assert batches.bad == {index[4].path: "decoding took longer than 1 s"}
    assert batches.lost["hung"] >= 1
    assert batches.lost["died"] == 0
    assert "004.mp4: decoding took longer than 1 s" in batches.report()
    assert "workers hung" in batches.report()


def test_a_file_that_crashes_the_decoder_twice_is_left_out(index, trap):
    def crash():
        faulthandler.disable()  # pytest's, which would print the stack
        os.kill(os.getpid(), signal.SIGSEGV)

    trap("004.mp4", crash)
    batches = clip_batches(index, CONFIG, 4, workers=1)
    assert _equal(list(islice(batches, 8)), _without(index, "004.mp4", 8))
    assert "died at it twice, was killed by SIGSEGV" in batches.bad[index[4].path]
    assert batches.lost == {"died": 2}


def test_a_worker_killed_from_outside_costs_nothing(index):
    expected = list(islice(clip_batches(index, CONFIG, 4), 12))
    batches = clip_batches(index, CONFIG, 4, workers=2)
    seen = list(islice(batches, 4))
    os.kill(batches.worker_pids()[0], signal.SIGKILL)
    seen += list(islice(batches, 8))
    assert _equal(seen, expected)
    assert batches.bad == {}
    assert batches.lost == {"died": 1}


def test_workers_that_never_survive_are_an_error(index, monkeypatch):
    monkeypatch.setattr(workers, "_work", lambda *args: os._exit(3))
    batches = clip_batches(index, CONFIG, 4, workers=1)
    with pytest.raises(DatasetError, match=r"10 decoding processes in a row.*exit code 3"):
        next(batches)


def test_too_many_hanging_files_stop_the_run(index, monkeypatch):
    here = os.getpid()

    def hang(*args, **kwargs):
        if os.getpid() != here:
            time.sleep(3600)

    monkeypatch.setattr(clip_source, "open_video", hang)
    config = ClipConfig(frames=4, size=16, clip_timeout=0.05, max_bad_share=1.0)
    with pytest.raises(DatasetError, match=r"10 d|draws in a row"):
        next(clip_batches(index, config, 4, workers=1))


def test_a_bug_in_a_worker_is_raised_here_with_its_traceback(index, monkeypatch):
    monkeypatch.setattr(clip_source.ClipSource, "_read", lambda self, *args: 1 / 0)
    with pytest.raises(RuntimeError, match=r"step 3(.|\n)*ZeroDivisionError"):
        next(clip_batches(index, CONFIG, 4, start_step=3, workers=2))


def test_an_idle_worker_does_not_count_as_hung(index):
    config = ClipConfig(frames=4, size=16, clip_timeout=0.3)
    batches = clip_batches(index, config, 4, workers=1)
    for _ in range(3):
        next(batches)
        time.sleep(0.7)  # a long training step
    assert not batches.lost


def test_workers_end_with_the_loader(index):
    batches = clip_batches(index, CONFIG, 4, workers=2)
    next(batches)
    processes = [worker._process for worker in batches._pool._workers]
    batches.close()
    batches.close()
    assert not any(process.is_alive() for process in processes)
    forgotten = clip_batches(index, CONFIG, 4, workers=1)
    process = forgotten._pool._workers[0]._process
    del forgotten
    gc.collect()
    assert not process.is_alive()


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="no /proc to read memory in")
def test_memory_stays_flat(index):
    def resident(pids):
        pages = [int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids]
        return sum(pages) * os.sysconf("SC_PAGE_SIZE")

    batches = clip_batches(index, ClipConfig(frames=4, size=32), 4, workers=2)
    pids = [os.getpid(), *batches.worker_pids()]
    for _ in range(60):
        next(batches)
    before = resident(pids)
    for _ in range(140):
        next(batches)
    assert resident(pids) == pytest.approx(before, rel=0.05)


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan")])
def test_a_timeout_must_be_positive(wrong):
    with pytest.raises(ConfigError, match="clip_timeout"):
        ClipConfig(clip_timeout=wrong)
