"""Checkpoints: exact, atomic, and clear about what does not fit."""

import errno
import json
import os
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tubelet.core.errors import CheckpointError
from tubelet.vjepa import checkpoint as module
from tubelet.vjepa.checkpoint import (
    find_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    load_config,
    save_checkpoint,
)


@dataclass(frozen=True, kw_only=True)
class Config:
    width: int = 3


@dataclass(frozen=True, kw_only=True)
class OtherConfig:
    width: int = 3


def net(width=3):
    return nn.Sequential(nn.Linear(2, width), nn.BatchNorm1d(width), nn.Linear(width, 1))


def train(model, optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 2, generator=generator)).square().mean().backward()
        optimizer.step()


def made(tmp_path, step=5, **changes):
    torch.manual_seed(step)
    model = net()
    optimizer = torch.optim.AdamW(model.parameters())
    train(model, optimizer, 3, seed=0)
    settings = {"model": model, "config": Config(), "optimizer": optimizer, **changes}
    return model, optimizer, save_checkpoint(tmp_path, step, **settings)


def same(a, b):
    assert a.keys() == b.keys()
    return all(torch.equal(a[name], b[name]) for name in a)


def test_round_trip_is_exact_and_training_goes_on_alike(tmp_path):
    model, optimizer, path = made(tmp_path)
    copy = net()
    copied = torch.optim.AdamW(copy.parameters())
    assert load_checkpoint(path, model=copy, optimizer=copied) == 5
    assert same(copy.state_dict(), model.state_dict())
    train(model, optimizer, 4, seed=1)
    train(copy, copied, 4, seed=1)
    assert same(copy.state_dict(), model.state_dict())


def test_parameters_that_never_had_a_gradient_are_no_obstacle(tmp_path):
    model = nn.ModuleDict({"used": nn.Linear(2, 2), "unused": nn.Linear(2, 2)})
    optimizer = torch.optim.AdamW(model.parameters())
    model["used"](torch.ones(1, 2)).sum().backward()
    optimizer.step()
    path = save_checkpoint(tmp_path, 1, model=model, config=Config(), optimizer=optimizer)
    assert load_checkpoint(path, model=model, optimizer=optimizer) == 1


def test_half_precision_and_integers_keep_their_bits(tmp_path):
    model = net().bfloat16()
    model[1].num_batches_tracked.fill_(2**40 + 1)
    path = save_checkpoint(tmp_path, 1, model=model, config=Config())
    copy = net().bfloat16()
    load_checkpoint(path, model=copy)
    assert same(copy.state_dict(), model.state_dict())


def test_config_round_trip_and_foreign_config(tmp_path):
    *_, path = made(tmp_path, config=Config(width=9))
    assert load_config(path, Config) == Config(width=9)
    with pytest.raises(CheckpointError, match="holds a Config, not a OtherConfig"):
        load_config(path, OtherConfig)
    (path / "config.toml").unlink()
    with pytest.raises(CheckpointError, match=r"config\.toml"):
        load_config(path, Config)


def test_no_pickles(tmp_path):
    *_, path = made(tmp_path)
    assert {p.suffix for p in path.iterdir()} == {".safetensors", ".toml", ".json"}


def test_the_newest_two_are_kept(tmp_path):
    for step in (1, 2, 30, 4):
        made(tmp_path, step)
    names = {p.name for p in (tmp_path / "checkpoints").glob("step-*")}
    # 30 was left by a run that went on from 2: it does not push 4, the latest, out
    assert names == {"step-00000002", "step-00000004", "step-00000030"}
    latest = latest_checkpoint(tmp_path)
    assert latest is not None
    assert latest.name == "step-00000004"


def test_found_by_run_folder_and_by_its_own(tmp_path):
    *_, path = made(tmp_path)
    assert find_checkpoint(tmp_path) == find_checkpoint(path) == path
    assert latest_checkpoint(tmp_path / "other") is None
    with pytest.raises(CheckpointError, match=r"no checkpoint at .*other.*step-"):
        find_checkpoint(tmp_path / "other")


def test_a_pointer_to_nothing(tmp_path):
    *_, path = made(tmp_path)
    path.rename(path.with_name("gone"))
    with pytest.raises(CheckpointError, match="names step-00000005, which is not there"):
        latest_checkpoint(tmp_path)


def test_another_architecture_names_the_keys(tmp_path):
    *_, path = made(tmp_path)
    other = nn.Sequential(nn.Linear(2, 4), nn.Identity(), nn.Linear(4, 1, bias=False))
    with pytest.raises(CheckpointError, match="does not fit") as error:
        load_checkpoint(path, model=other)
    text = str(error.value)
    assert "6 unexpected: 1.bias" in text
    assert "mis-shaped: 0.bias: [3] in the file, [4] in the model" in text
    with pytest.raises(CheckpointError, match=r"2 missing: 3\.bias, 3\.weight"):
        load_checkpoint(path, model=net().append(nn.Linear(1, 1)))


def test_a_failed_load_leaves_the_model_as_it_was(tmp_path):
    *_, path = made(tmp_path)
    other = net(width=4)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(CheckpointError):
        load_checkpoint(path, model=other)
    assert same(other.state_dict(), before)


def test_moments_of_other_parameters_are_refused(tmp_path):
    model, _, path = made(tmp_path)
    partly = torch.optim.AdamW(model[2].parameters())  # as if the rest were frozen now
    with pytest.raises(CheckpointError, match="fit no parameter"):
        load_checkpoint(path, model=model, optimizer=partly)


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize("damage", ["truncated", "missing", "scrambled header"])
def test_damaged_files_are_named(tmp_path, name, damage):
    model, optimizer, path = made(tmp_path)
    file = path / name
    data = file.read_bytes()
    if damage == "missing":
        file.unlink()
    else:
        file.write_bytes(data[:-7] if damage == "truncated" else b"\xff" * 16 + data[16:])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        load_checkpoint(path, model=model, optimizer=optimizer)


def test_a_damaged_state_is_named(tmp_path):
    model, _, path = made(tmp_path)
    (path / "state.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"cannot read .*state\.json"):
        load_checkpoint(path, model=model)


@pytest.mark.parametrize("call", [1, 2])
def test_a_full_disk_leaves_the_last_good_checkpoint(tmp_path, monkeypatch, call):
    model, _, path = made(tmp_path)
    saved, calls = module.save_file, []

    def full(tensors, file):
        calls.append(file)
        if len(calls) == call:
            file.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        saved(tensors, file)

    monkeypatch.setattr(module, "save_file", full)
    with pytest.raises(CheckpointError, match=r"No space left on device.*intact"):
        made(tmp_path, step=9)
    assert latest_checkpoint(tmp_path) == path
    assert load_checkpoint(path, model=net()) == 5
    assert [p.name for p in (tmp_path / "checkpoints").glob(".*")] == []
    assert same(model.state_dict(), _loaded(path))


def _loaded(path):
    copy = net()
    load_checkpoint(path, model=copy)
    return copy.state_dict()


class Killed(BaseException):
    """Stands in for SIGKILL: nothing that handles errors sees it."""


@pytest.mark.parametrize("moment", ["save_file", "_fsync", "atomic_write_text"])
def test_a_save_killed_at_any_moment_leaves_the_last_good_one(tmp_path, monkeypatch, moment):
    *_, path = made(tmp_path)

    def die(*_):
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(module, moment, die)
        with pytest.raises(Killed):
            made(tmp_path, step=9)
    assert latest_checkpoint(tmp_path) == path
    assert load_checkpoint(path, model=net()) == 5
    *_, newer = made(tmp_path, step=10)  # and the next save sweeps up
    assert latest_checkpoint(tmp_path) == newer
    assert [p.name for p in (tmp_path / "checkpoints").glob(".*")] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_an_unwritable_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(CheckpointError, match="Permission denied"):
        made(tmp_path)
    tmp_path.chmod(0o700)


def test_a_file_in_the_way(tmp_path):
    (tmp_path / "checkpoints").write_text("not a folder")
    with pytest.raises(CheckpointError, match="cannot save the checkpoint"):
        made(tmp_path)


def test_state_says_what_was_saved(tmp_path):
    *_, path = made(tmp_path)
    state = json.loads((path / "state.json").read_text())
    assert state["step"] == 5
    assert state["config"] == "Config"
    for name, size in state["bytes"].items():
        assert (path / name).stat().st_size == size
