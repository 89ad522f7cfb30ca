"""Runs on point clouds and skeletons: exact resumption, what is written, what is refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.cli.main import main
from tubelet.core.errors import CheckpointError, ConfigError, DatasetError
from tubelet.core.run import read_metrics
from tubelet.datasets.labelled import LabelledSet
from tubelet.datasets.points import PrimitivesConfig
from tubelet.datasets.stick_figures import StickFigureConfig
from tubelet.vjepa import engine
from tubelet.vjepa.modalities.recipe import (
    TokenRunConfig,
    load_data,
    load_token_encoder,
    pretrain_tokens,
    run_preset,
)
from tubelet.vjepa.modalities.tokens import encode
from tubelet.vjepa.recipes import load_encoder

NAMES = ("pointjepa-debug", "sjepa-debug", "lejepa-points-debug", "lejepa-skeletons-debug")


class Interrupted(BaseException):
    """Stands in for a power cut."""


def config(name, out, **more):
    return replace(run_preset(name), out=str(out), device="cpu", **more)


def losses(path):
    return [line["train/loss"] for line in read_metrics(path) if "train/loss" in line]


@pytest.mark.parametrize("name", NAMES)
def test_a_killed_run_goes_on_exactly(name, tmp_path, monkeypatch):
    whole = pretrain_tokens(config(name, tmp_path / "whole"))
    backward, calls = engine._backward, []

    def failing(*args):
        calls.append(1)
        if len(calls) == 7:  # after the checkpoint of step 4
            raise Interrupted
        return backward(*args)

    monkeypatch.setattr(engine, "_backward", failing)
    with pytest.raises(Interrupted):
        pretrain_tokens(config(name, tmp_path / "cut"))
    monkeypatch.setattr(engine, "_backward", backward)
    model = pretrain_tokens(config(name, tmp_path / "cut", resume=True))
    for (key, a), b in zip(whole.state_dict().items(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b), key
    assert losses(tmp_path / "whole") == losses(tmp_path / "cut")


@pytest.mark.parametrize("name", NAMES)
def test_a_run_says_what_came_of_it_and_its_encoder_loads(name, tmp_path):
    asked = config(name, tmp_path / "run")
    seen = []
    model = pretrain_tokens(asked, probe=lambda encoder: {"probe/width": seen.append(1) or 1.0})
    assert len(seen) == 3  # steps 0, 6 and the last
    assert "40 samples used" in (tmp_path / "run" / "data.txt").read_text()
    verdict = (tmp_path / "run" / "verdict.txt").read_text()
    assert verdict.split(":")[0].strip() in ("healthy", "warning", "collapsed")
    encoder = load_token_encoder(tmp_path / "run")
    x = asked.train.modality.still(torch.from_numpy(load_data(asked).samples[:5]))
    torch.testing.assert_close(encode(encoder, x), encode(model.output, x))
    with pytest.raises(CheckpointError, match=r"not an encoder of videos"):
        load_encoder(tmp_path / "run")


def test_a_resumed_run_wants_its_data_back(tmp_path):
    asked = config("pointjepa-debug", tmp_path / "run")
    data = load_data(asked)
    pretrain_tokens(asked, data=data)
    changed = replace(data, samples=data.samples + 1)
    with pytest.raises(DatasetError, match="its data have changed"):
        pretrain_tokens(replace(asked, resume=True), data=changed)


def test_the_verb_trains_repeats_and_refuses(tmp_path, capsys):
    flags = ["--device", "cpu", "--train.loop.steps", "4", "--train.batch-size", "4"]
    run = ["pretrain", "--preset", "sjepa-debug", "--out", str(tmp_path / "a"), *flags]
    assert main(run) == 0
    printed = capsys.readouterr().out
    assert "encoder: " in printed
    assert "walk" in printed
    file = str(tmp_path / "a" / "config.toml")
    assert main(["pretrain", "--config", file, "--out", str(tmp_path / "b")]) == 0
    assert losses(tmp_path / "a") == losses(tmp_path / "b")
    assert main(["pretrain", "--preset", "sjepa", "--out", str(tmp_path / "c"), *flags]) == 2
    assert "train.skeletons.joints = 25" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()
    centres = ["--train.points.centres", "65"]
    with pytest.raises(SystemExit, match="2"):
        main(["pretrain", "--preset", "pointjepa-debug", *centres, *flags])
    assert "points.centres = 65 of points.points = 64" in capsys.readouterr().err


def test_generated_data_must_suffice():
    small = run_preset("pointjepa-debug")
    with pytest.raises(ConfigError, match=r"solids.points = 63"):
        replace(small, solids=PrimitivesConfig(points=63))
    with pytest.raises(ConfigError, match=r"figures.frames = 15"):
        replace(run_preset("sjepa-debug"), figures=StickFigureConfig(frames=15))
    loop = replace(small.train.loop, accumulate=2)
    with pytest.raises(ConfigError, match=r"train.loop.accumulate = 2"):
        TokenRunConfig(train=replace(small.train, loop=loop))


def test_a_nan_names_the_samples(tmp_path):
    asked = config("sjepa-debug", tmp_path / "run")
    data = load_data(asked)
    bad = data.samples.copy()
    bad[:, 3, 4] = np.nan
    with pytest.raises(Exception, match=r"step 0: .*The batch: sequence \d+"):
        pretrain_tokens(asked, data=replace(data, samples=bad))


def test_data_facts_are_json(tmp_path):
    data = LabelledSet(
        samples=np.random.default_rng(0).normal(size=(8, 64, 3)).astype(np.float32),
        labels=np.zeros(8, np.int64),
        classes=("noise",),
        names=tuple("abcdefgh"),
    )
    pretrain_tokens(config("pointjepa-debug", tmp_path / "run"), data=data)
    facts = json.loads((tmp_path / "run" / "data.json").read_text())
    assert facts["samples"] == 8
    assert facts["shape"] == [64, 3]
