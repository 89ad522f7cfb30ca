"""JeDi from files, on images: I-JEPA's masks, critics in the checkpoint, exact resuming."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.core.run import read_metrics
from tubelet.vjepa import presets
from tubelet.vjepa.checkpoint import find_checkpoint, load_config
from tubelet.vjepa.engine import LoopConfig
from tubelet.vjepa.pretrain import PretrainConfig, with_objective
from tubelet.vjepa.recipes import PretrainRunConfig, pretrain_encoder


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder, rng = tmp_path_factory.mktemp("data") / "photos", np.random.default_rng(0)
    folder.mkdir()
    for number in range(6):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def config(photos, out, steps=3, **changes):
    loop = LoopConfig(steps=steps, log_every=1, report_every=2, save_every=1)
    return PretrainRunConfig(
        images=str(photos),
        out=str(out),
        objective="jedi",
        train=replace(presets.debug(), loop=loop, batch_size=4),
        clips=presets.clips("debug"),
        threads=1,
        device="cpu",
        **changes,
    )


def test_feedback_on_images(photos, tmp_path):
    model = pretrain_encoder(config(photos, tmp_path / "whole"))
    stored = load_config(find_checkpoint(tmp_path / "whole"), PretrainConfig)
    assert stored.masks.style == "image"
    assert stored.encoder.tubelet == 1
    assert stored.objective == with_objective(presets.debug(), "jedi").objective
    lines = [x for x in read_metrics(tmp_path / "whole") if "train/feedback_critic" in x]
    assert len(lines) == 3
    assert all(line["train/feedback_factor"] > 0 for line in lines)
    assert any("feedback.critics" in name for name in model.state_dict())
    # stopped after a step, and gone on with
    first = config(photos, tmp_path / "cut")
    keep = [model.state_dict()]

    def stop(_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pretrain_encoder(first, probe=stop)
    again = pretrain_encoder(replace(first, resume=True))
    keep.append(again.state_dict())
    assert all(torch.equal(value, keep[1][name]) for name, value in keep[0].items())


def test_video_keeps_its_own_masks():
    base = presets.debug()
    assert with_objective(base, "jedi").masks == base.masks
    assert with_objective(base, "jedi", images=True).masks.style == "image"
