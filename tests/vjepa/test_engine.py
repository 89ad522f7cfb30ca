"""The training loop on a toy: exact resumption, honest stops, what is logged."""

import os
import signal
from dataclasses import dataclass, field

import pytest
import torch
from torch import nn

from tubelet.core.errors import CheckpointError, ConfigError, Stopped, TubeletError
from tubelet.core.rng import torch_generator
from tubelet.core.run import RunDir, read_metrics
from tubelet.vjepa import checkpoint
from tubelet.vjepa.checkpoint import latest_checkpoint, load_checkpoint
from tubelet.vjepa.engine import LoopConfig, fit
from tubelet.vjepa.optim import OptimConfig, make_optimizer


@dataclass(frozen=True, kw_only=True)
class Config:
    loop: LoopConfig = field(
        default_factory=lambda: LoopConfig(steps=12, log_every=1, report_every=5, save_every=4)
    )
    optim: OptimConfig = field(default_factory=lambda: OptimConfig(lr=0.05, warmup=0.3, clip=1.0))


class Interrupted(BaseException):
    """Stands in for a power cut."""


class Toy:
    """Regress noise with a batch-normed net and an averaged copy of it; keeps what happened."""

    def __init__(self, folder, config=None, *, at=None, at_step=None):
        self.folder, self.config = folder, config or Config()
        self.at, self.at_step = at or (lambda: None), at_step
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))
        self.seen, self.modes = [], []

    def batches(self, first):
        step = first
        while True:
            yield torch.randn(8, 3, generator=torch_generator(0, "data", step))
            step += 1

    def losses(self, batch, step):
        self.seen.append(step)
        self.modes.append(self.model.training)
        fit_term = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
        small = self.model[0].weight.square().mean()
        if step == self.at_step:
            fit_term = fit_term * (self.at() or 1)
        return {"fit": fit_term, "small": small, "loss": fit_term + 0.1 * small}

    def report(self, batch, step):
        assert not self.model.training
        assert not torch.is_grad_enabled()
        return {"val/output": self.model(batch).mean().item()}

    def run(self, *, resume=False):
        with RunDir.create(self.folder, self.config, resume=resume) as run:
            return fit(
                self.model,
                run,
                self.config,
                loop=self.config.loop,
                optim=self.config.optim,
                batches=self.batches,
                losses=self.losses,
                report=self.report,
                describe=lambda batch: f"{len(batch)} rows",
            )

    def weights(self):
        return {name: value.clone() for name, value in self.model.state_dict().items()}

    def metrics(self):
        """All but the share of time spent waiting, which is a matter of the clock."""
        return [
            {k: v for k, v in line.items() if not k.startswith("pace/")}
            for line in read_metrics(self.folder)
        ]


def raise_interrupted():
    raise Interrupted


def alike(a, b):
    wa, wb = a.weights(), b.weights()
    return all(torch.equal(wa[name], wb[name]) for name in wa) and a.metrics() == b.metrics()


@pytest.fixture
def whole(tmp_path):
    toy = Toy(tmp_path / "whole")
    assert toy.run() == 0
    return toy


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 11])
def test_interrupted_and_resumed_equals_left_alone(tmp_path, whole, stop):
    with pytest.raises(Interrupted):
        Toy(tmp_path / "cut", at=raise_interrupted, at_step=stop).run()
    resumed = Toy(tmp_path / "cut")
    assert resumed.run(resume=True) == stop // 4 * 4
    assert resumed.seen == list(range(stop // 4 * 4, 12))
    assert alike(resumed, whole)


def test_saved_in_the_background_interrupted_and_resumed_equals_left_alone(tmp_path, whole):
    loop = LoopConfig(steps=12, log_every=1, report_every=5, save_every=2, background=True, keep=3)
    config = Config(loop=loop)
    with pytest.raises(Interrupted):
        Toy(tmp_path / "cut", config, at=raise_interrupted, at_step=7).run()
    resumed = Toy(tmp_path / "cut", config)
    assert resumed.run(resume=True) == 6  # leaving waited for the save of step 6
    assert alike(resumed, whole)
    assert len(list((tmp_path / "cut" / "checkpoints").glob("step-*"))) == 3


def test_processes_that_nothing_brought_together_are_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="torchrun started 2 processes"):
        Toy(tmp_path / "run").run()


def test_muon_trains_is_resumed_exactly_and_is_not_mistaken_for_adamw(tmp_path):
    def toy(folder, kind="muon", **options):
        optim = OptimConfig(lr=0.05, warmup=0.3, clip=1.0, kind=kind)
        made = Toy(folder, Config(optim=optim), **options)
        made.model = nn.Sequential(made.model, nn.ModuleDict({"blocks": nn.Linear(1, 1)}))
        made.model.forward = lambda x: made.model[1]["blocks"](made.model[0](x))
        made.losses = lambda batch, step: (
            made.at() if step == made.at_step else None,
            {"loss": (made.model(batch) - batch.sum(1, keepdim=True)).square().mean()},
        )[1]
        return made

    whole = toy(tmp_path / "whole")
    whole.run()
    with pytest.raises(Interrupted):
        toy(tmp_path / "cut", at=raise_interrupted, at_step=9).run()
    resumed = toy(tmp_path / "cut")
    assert resumed.run(resume=True) == 8
    assert alike(resumed, whole)
    with pytest.raises(CheckpointError, match=r"moments.*optim\.kind"):
        load_checkpoint(
            latest_checkpoint(tmp_path / "cut"),
            model=resumed.model,
            optimizer=make_optimizer(resumed.model, OptimConfig()),
        )


def test_twice_interrupted(tmp_path, whole):
    for stop in (5, 9):
        with pytest.raises(Interrupted):
            Toy(tmp_path / "cut", at=raise_interrupted, at_step=stop).run(resume=True)
    resumed = Toy(tmp_path / "cut")
    resumed.run(resume=True)
    assert alike(resumed, whole)


def test_resuming_a_finished_run_loads_it_and_trains_no_more(tmp_path, whole):
    again = Toy(whole.folder)
    assert again.run(resume=True) == 12
    assert again.seen == []
    assert not again.model.training
    assert alike(again, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_saves_and_stops_and_the_rest_can_be_resumed(tmp_path, whole, number):
    before = signal.getsignal(number)
    cut = Toy(tmp_path / "cut", at=lambda: os.kill(os.getpid(), number), at_step=6)
    with pytest.raises(Stopped, match=r"stopped by a signal after step 6; saved.*--resume"):
        cut.run()
    assert signal.getsignal(number) is before
    assert cut.seen == list(range(7))
    resumed = Toy(tmp_path / "cut")
    assert resumed.run(resume=True) == 7
    assert alike(resumed, whole)


def test_sigterm_at_the_last_step_is_no_error(tmp_path, whole):
    toy = Toy(tmp_path / "cut", at=lambda: os.kill(os.getpid(), signal.SIGTERM), at_step=11)
    toy.run()
    assert alike(toy, whole)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_a_loss_that_is_not_finite_stops_before_it_spoils_anything(tmp_path, value):
    toy = Toy(tmp_path / "run", at=lambda: float(value), at_step=6)
    with pytest.raises(TubeletError, match=rf"step 6: .*train/fit = {value}.*8 rows") as error:
        toy.run()
    assert "train/small" not in str(error.value)
    saved = latest_checkpoint(tmp_path / "run")
    assert saved is not None
    copy = Toy(tmp_path / "other").model
    assert load_checkpoint(saved, model=copy) == 4
    assert all(value.isfinite().all() for value in copy.state_dict().values())
    assert [line["step"] for line in toy.metrics()][-1] == 5
    assert all(parameter.isfinite().all() for parameter in toy.model.parameters())


def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    toy = Toy(tmp_path / "run")

    def losses(batch, step):
        out = toy.model(batch).mean()
        return {"loss": (out - out).abs().sqrt() if step == 2 else out}  # 0 with slope inf * 0

    toy.losses = losses
    with pytest.raises(TubeletError, match=r"step 2: gradient norm = nan.*8 rows"):
        toy.run()


def test_a_full_disk_stops_with_the_last_checkpoint_intact(tmp_path, monkeypatch):
    toy = Toy(tmp_path / "run")
    saved = checkpoint.save_file

    def full(tensors, file):
        if "step-00000008" in str(file):
            raise OSError(28, "No space left on device")
        saved(tensors, file)

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(CheckpointError, match="No space left"):
        toy.run()
    latest = latest_checkpoint(tmp_path / "run")
    assert latest is not None
    assert latest.name == "step-00000004"


def test_what_is_logged_when(tmp_path):
    loop = LoopConfig(steps=11, log_every=4, report_every=5, save_every=100)
    toy = Toy(tmp_path / "run", Config(loop=loop))
    toy.run()
    lines = toy.metrics()
    assert [line["step"] for line in lines if "train/loss" in line] == [0, 4, 8, 10]
    assert [line["step"] for line in lines if "val/output" in line] == [0, 5, 10]
    assert {"train/fit", "train/small", "train/lr", "train/grad_norm"} <= lines[0].keys()
    assert all(toy.modes)
    assert not toy.model.training
    latest = latest_checkpoint(tmp_path / "run")
    assert latest is not None
    assert latest.name == "step-00000011"


def test_gradients_are_clipped_and_the_norm_logged_is_the_one_before(tmp_path):
    toy = Toy(tmp_path / "run", Config(loop=LoopConfig(steps=1), optim=OptimConfig(clip=1e-3)))
    toy.run()
    gradients = [p.grad for p in toy.model.parameters() if p.grad is not None]
    assert nn.utils.get_total_norm(gradients).item() == pytest.approx(1e-3, rel=1e-3)
    assert toy.metrics()[0]["train/grad_norm"] > 0.1


def test_after_step_is_called_after_every_optimiser_step(tmp_path):
    toy, calls = Toy(tmp_path / "run"), []
    with RunDir.create(toy.folder, toy.config) as run:
        fit(
            toy.model,
            run,
            toy.config,
            loop=LoopConfig(steps=3),
            optim=toy.config.optim,
            batches=toy.batches,
            losses=toy.losses,
            after_step=lambda step: calls.append((step, len(toy.seen))),
        )
    assert calls == [(0, 1), (1, 2), (2, 3)]


@pytest.mark.parametrize("end", ["done", "nan", "cut", "stream"])
def test_the_stream_is_closed_however_training_ends(tmp_path, end):
    class Stream:
        closed = 0

        def __init__(self, items):
            self._items = items

        def __iter__(self):
            return self

        def __next__(self):
            if end == "stream":
                raise TubeletError("the stream broke")
            return next(self._items)

        def close(self):
            self.closed += 1

    at = {"nan": lambda: float("nan"), "cut": raise_interrupted}.get(end)
    toy = Toy(tmp_path, at=at, at_step=6 if at else None)
    stream = Stream(toy.batches(0))
    toy.batches = lambda first: stream
    if end == "done":
        toy.run()
    else:
        with pytest.raises(Interrupted if end == "cut" else TubeletError):
            toy.run()
    assert stream.closed == 1


def test_accumulation_without_a_way_to_cut_a_batch_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"loop.accumulate = 2"):
        Toy(tmp_path / "run", Config(loop=LoopConfig(accumulate=2))).run()


def test_spikes_are_left_out_counted_and_remembered_by_a_resumed_run(tmp_path):
    loop = LoopConfig(steps=40, log_every=100, save_every=28, spike=6.0)
    config = Config(loop=loop, optim=OptimConfig(lr=1e-3))
    whole = Toy(tmp_path / "whole", config, at=lambda: 1e4, at_step=30)
    before = {}

    def watch(step):
        before[step] = whole.weights()["0.weight"]

    original = whole.losses
    whole.losses = lambda batch, step: (watch(step), original(batch, step))[1]
    whole.run()
    assert torch.equal(before[30], before[31])
    assert not torch.equal(before[31], before[32])
    logged = {line["step"]: line for line in whole.metrics() if "train/spikes" in line}
    assert {step: line["train/spikes"] for step, line in logged.items()} == {0: 0, 30: 1, 39: 1}
    with pytest.raises(Interrupted):
        Toy(tmp_path / "cut", config, at=raise_interrupted, at_step=29).run()
    resumed = Toy(tmp_path / "cut", config, at=lambda: 1e4, at_step=30)
    assert resumed.run(resume=True) == 28
    assert alike(resumed, whole)


@pytest.mark.parametrize(
    "bad", [{"steps": 0}, {"log_every": 0}, {"precision": "fp16"}, {"spike": -1.0}, {"keep": 0}]
)
def test_impossible_configs(bad):
    with pytest.raises(ConfigError, match="loop"):
        LoopConfig(**bad)


def test_bf16_trains_and_keeps_the_weights_in_float32(tmp_path):
    toy = Toy(tmp_path / "run", Config(loop=LoopConfig(steps=3, log_every=1, precision="bf16")))
    dtypes = []
    toy.model[0].register_forward_hook(lambda *args: dtypes.append(args[2].dtype))
    toy.run()
    assert torch.bfloat16 in dtypes
    assert all(p.dtype == torch.float32 for p in toy.model.parameters())
    assert all(line["train/loss"] is not None for line in toy.metrics() if "train/loss" in line)
