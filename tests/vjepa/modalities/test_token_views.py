"""LeJEPA over tokens: what a view sees, what the loss is, that it does not collapse."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.vjepa.modalities.model import build
from tubelet.vjepa.modalities.presets import preset
from tubelet.vjepa.modalities.views import TokenViewsConfig
from tubelet.vjepa.objectives import TargetConfig
from tubelet.vjepa.objectives.regress import ViewsConfig
from tubelet.vjepa.objectives.sigreg import SigregConfig, sigreg

NAMES = ("lejepa-points-debug", "lejepa-skeletons-debug")


def samples(name, batch=6, seed=0):
    shape = (batch, 64, 3) if "points" in name else (batch, 16, 16, 3)
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def with_views(name, **views):
    config = preset(name)
    return replace(config, views=replace(config.views, **views))


@pytest.mark.parametrize("name", NAMES)
def test_views_are_of_one_batch_and_follow_the_samples_number(name):
    """The views of sample n do not depend on where in which batch it is (batch norms aside)."""
    model = build(with_views(name, count=3)).eval()
    x = samples(name)
    views = model.latents(x, 5, 60).views
    assert views.shape == (3, 6, 32)
    assert model.latents(x, 5, 60).global_views == 3
    part = model.latents(x[2:4], 5, 62).views
    torch.testing.assert_close(part, views[:, 2:4])
    assert not torch.allclose(views[0], views[1])  # drawn, turned and cut anew
    assert not torch.allclose(model.latents(x, 5, 66).views, views)


@pytest.mark.parametrize("name", NAMES)
def test_a_view_sees_a_run_of_its_length(name):
    model = build(with_views(name, keep=(0.5, 0.75)))
    count = model.encoder.tokenizer.count
    runs = [model._run(view, step) for step in range(60) for view in range(2)]
    for run in runs:
        assert torch.equal(run, torch.arange(int(run[0]), int(run[0]) + len(run)))
        assert run[0] >= 0
        assert run[-1] < count
    lengths = np.array([len(run) for run in runs]) / count
    assert lengths.min() >= 0.5 - 0.5 / count
    assert lengths.max() <= 0.75 + 0.5 / count
    assert len({(int(run[0]), len(run)) for run in runs}) > 10
    whole = build(with_views(name, keep=(1.0, 1.0)))
    assert torch.equal(whole._run(1, 7), torch.arange(count))


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_by_hand(name):
    config = preset(name)
    model = build(config).eval()
    x = samples(name)
    out = model.losses(x, 3, 18)
    z = model.latents(x, 3, 18).views
    terms = config.objective
    assert isinstance(terms.views, ViewsConfig)
    assert isinstance(terms.sigreg, SigregConfig)
    apart = (z - z.mean(dim=0)).square().mean()
    drawn = torch_generator(config.seed, "sigreg", 3)
    spread = sigreg(z, generator=drawn, slices=terms.sigreg.slices)
    torch.testing.assert_close(out["loss"], 0.95 * apart + 0.05 * spread)


def test_without_sigreg_views_collapse_and_with_it_they_do_not():
    """The views of one sample agree either way; only SIGReg keeps those of others apart."""
    name = "lejepa-skeletons-debug"
    spread = {}
    for weight in (0.0, 0.05):
        config = preset(name)
        objective = replace(config.objective, sigreg=SigregConfig(on="views", weight=weight))
        model = build(replace(config, objective=objective))
        optim = torch.optim.AdamW(model.parameters(), lr=3e-3)
        for step in range(40):
            loss = model.losses(samples(name, 16, seed=step), step, 16 * step)["loss"]
            optim.zero_grad()
            loss.backward()
            optim.step()
        views = model.latents(samples(name, 64, seed=1000), 0, 10**6).views
        spread[weight] = views.mean(dim=0).std(dim=0).mean().item()
    assert spread[0.05] > 0.3
    assert spread[0.0] < spread[0.05] / 3


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": 1}, "views.count = 1"),
        ({"keep": (0.0, 1.0)}, "views.keep"),
        ({"keep": (0.8, 0.5)}, "views.keep"),
        ({"hidden": 0}, "views.hidden = 0"),
        ({"width": 0}, "views.width = 0"),
    ],
)
def test_impossible_views_are_refused(change, named):
    with pytest.raises(ConfigError, match=named):
        TokenViewsConfig(**change)


def test_views_with_a_teacher_or_with_hidden_tokens_are_refused():
    config = preset("lejepa-points-debug")
    with pytest.raises(ConfigError, match=r'objective.target.kind = "ema" with views'):
        replace(config, objective=replace(config.objective, target=TargetConfig()))
    masked = replace(preset("pointjepa-debug").objective, target=TargetConfig(kind="shared"))
    with pytest.raises(ConfigError, match="regress needs pred"):
        build(replace(config, objective=masked))
