"""What reaches Weights & Biases: checked with a stand-in, and with the package where it is."""

import sys
import types

import pytest

from tubelet.core.errors import TubeletError
from tubelet.core.run import RunDir
from tubelet.core.sinks import WandbSink, replay_to_wandb
from tubelet.vjepa.optim import OptimConfig


class Remote:
    """A run of the stand-in."""

    def __init__(self, settings):
        self.settings, self.logged, self.finished = settings, [], 0

    def log(self, values, step):
        assert not self.finished
        assert not self.logged or step >= self.logged[-1][0]
        self.logged.append((step, values))

    def finish(self):
        self.finished += 1


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the package; ``runs`` holds what was started."""
    module = types.ModuleType("wandb")
    module.Error = type("Error", (Exception,), {})
    module.runs = []

    def init(**settings):
        if settings["project"] == "refused":
            raise module.Error("no key")
        module.runs.append(Remote(settings))
        return module.runs[-1]

    module.init = init
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def folder(tmp_path):
    with RunDir.create(tmp_path / "first", OptimConfig(lr=0.25)) as run:
        run.log(0, loss=1.0)
        run.log(0, rank=3.0)
        run.log(5, loss=float("nan"), rate=2.0)
        run.log(6, loss=float("inf"))
    return tmp_path / "first"


def test_all_that_was_logged_is_passed_on_by_step(wandb, folder):
    assert replay_to_wandb(folder, project="video") == 3
    (remote,) = wandb.runs
    assert remote.logged == [(0, {"loss": 1.0, "rank": 3.0}), (5, {"rate": 2.0})]
    assert remote.finished == 1
    assert remote.settings["config"]["lr"] == 0.25
    assert remote.settings["name"] == "first"
    assert remote.settings["dir"] == str(folder)


def test_a_folder_is_one_run_and_another_folder_another(wandb, folder, tmp_path):
    for _ in range(2):
        with WandbSink(folder, project="video") as sink:
            sink.log(1, {"loss": 0.5})
        sink.close()
    (tmp_path / "second").mkdir()
    WandbSink(tmp_path / "second", project="video", name="other").close()
    ids = [remote.settings["id"] for remote in wandb.runs]
    assert ids[0] == ids[1] != ids[2]
    assert wandb.runs[2].settings["name"] == "other"
    assert [remote.finished for remote in wandb.runs] == [1, 1, 1]


def test_what_is_missing_is_told(wandb, folder, tmp_path, monkeypatch):
    with pytest.raises(TubeletError, match=r"no key; log in .* WANDB_MODE=offline"):
        WandbSink(folder, project="refused")
    with pytest.raises(TubeletError, match="nothing to pass on"):
        replay_to_wandb(tmp_path, project="video")
    assert not wandb.runs
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(TubeletError, match="pip install wandb"):
        WandbSink(folder, project="video")


def test_the_package_itself_takes_it_offline(folder, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is optional and not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert replay_to_wandb(folder, project="video") == 3
    assert list(folder.glob("wandb/offline-run-*/*.wandb"))
