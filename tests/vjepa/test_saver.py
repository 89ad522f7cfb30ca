"""Saving while training goes on: what is written, when it is waited for, and where errors go."""

import resource
import threading
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tubelet.core.errors import CheckpointError
from tubelet.vjepa import saver as module
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint, stored_extra
from tubelet.vjepa.saver import Saver


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 3


def made(folder, *, background, keep=2, width=3):
    torch.manual_seed(0)
    model = nn.Linear(2, width)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(4, 2)).sum().backward()
    optimizer.step()
    settings = {"config": Config(), "keep": keep, "background": background}
    return model, optimizer, Saver(folder, model=model, optimizer=optimizer, **settings)


def weights_at(folder):
    path = latest_checkpoint(folder)
    assert path is not None
    model = nn.Linear(2, 3)
    return load_checkpoint(path, model=model), model.weight.detach()


def test_what_is_written_in_the_background_is_what_was_when_save_was_called(tmp_path, monkeypatch):
    gate, write = threading.Event(), module.write_checkpoint

    def later(*args, **options):
        assert gate.wait(20)
        return write(*args, **options)

    monkeypatch.setattr(module, "write_checkpoint", later)
    model, _, saver = made(tmp_path, background=True)
    before = model.weight.detach().clone()
    with saver:
        saver.save(1, [0.5])
        assert latest_checkpoint(tmp_path) is None  # and yet save has returned
        with torch.no_grad():
            model.weight.zero_()
        gate.set()
    step, weight = weights_at(tmp_path)
    assert step == 1
    assert torch.equal(weight, before)
    path = latest_checkpoint(tmp_path)
    assert path is not None
    assert stored_extra(path) == [0.5]


def test_a_save_waits_for_the_one_before(tmp_path, monkeypatch):
    running, write = [], module.write_checkpoint

    def counted(*args, **options):
        running.append(args[1])
        assert len(running) == 1
        write(*args, **options)
        running.remove(args[1])

    monkeypatch.setattr(module, "write_checkpoint", counted)
    _, _, saver = made(tmp_path, background=True, keep=10)
    with saver:
        for step in range(1, 9):
            saver.save(step)
    names = [path.name for path in sorted((tmp_path / "checkpoints").glob("step-*"))]
    assert names == [f"step-{step:08d}" for step in range(1, 9)]


def leave(saver):
    with saver:
        pass


@pytest.mark.parametrize("following", [lambda saver: saver.save(3), Saver.finish, leave])
def test_a_failure_in_the_background_is_raised_by_what_comes_next(tmp_path, following):
    _, _, saver = made(tmp_path, background=True)
    saver.save(1)
    saver.finish()
    (tmp_path / "checkpoints" / ".step-00000002.tmp").write_text("in the way")
    (tmp_path / "checkpoints" / "step-00000002").write_text("in the way")
    saver.save(2)
    with pytest.raises(CheckpointError, match=r"cannot save the checkpoint .*step-00000002"):
        following(saver)
    assert weights_at(tmp_path)[0] == 1
    saver.finish()  # said once


def test_an_error_of_training_comes_before_one_of_saving(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise CheckpointError("disk full")

    monkeypatch.setattr(module, "write_checkpoint", fail)
    _, _, saver = made(tmp_path, background=True)

    def train():
        with saver:
            saver.save(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as error:
        train()
    assert error.value.__notes__ == ["besides: disk full"]


def test_a_bug_in_the_thread_is_not_lost(tmp_path, monkeypatch):
    def fail(*args, **options):
        raise KeyError("bug")

    monkeypatch.setattr(module, "write_checkpoint", fail)
    _, _, saver = made(tmp_path, background=True)
    saver.save(1)
    with pytest.raises(KeyError, match="bug"):
        saver.finish()


@pytest.mark.parametrize("background", [False, True])
def test_where_the_kernel_refuses_to_write_the_last_good_one_survives(tmp_path, background):
    """A real limit on the size of files, met in the middle of one."""
    _, _, saver = made(tmp_path, background=background)
    saver.save(1)
    saver.finish()
    _, _, larger = made(tmp_path, background=background, width=50_000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(CheckpointError, match=r"step-00000002: .*intact"):
            (larger.save(2), larger.finish())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert weights_at(tmp_path)[0] == 1
    assert [path.name for path in (tmp_path / "checkpoints").glob(".*")] == []


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_are_kept_as_asked(tmp_path, keep):
    _, _, saver = made(tmp_path, background=False, keep=keep)
    for step in range(1, 6):
        saver.save(step)
    kept = sorted(path.name for path in (tmp_path / "checkpoints").glob("step-*"))
    assert kept == [f"step-{step:08d}" for step in range(6 - keep, 6)]
