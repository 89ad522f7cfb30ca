"""End to end: in an Ornstein-Uhlenbeck world, prediction and SIGReg recover the true state.

The theorem (arXiv 2605.26379): for Gaussian latents that move by z' = rho z + noise, predicting and
being Gaussian together identify them up to a rotation. Without SIGReg the encoder collapses.
"""

import math
from dataclasses import replace

import torch
from torch import nn

from tubelet.vjepa.diagnostics import channel_std, collapse_verdict, rankme, ridge_r2
from tubelet.vjepa.objectives import Latents, Objective
from tubelet.vjepa.objectives.presets import lewm

WIDTH, RHO, SLOPE = 4, 0.9, 0.3


def world(seed):
    """``draw(batch, generator)``: states now and next, and what is seen of them."""
    generator = torch.Generator().manual_seed(seed)
    turns = [torch.linalg.qr(torch.randn(4, 4, generator=generator))[0] for _ in range(3)]

    def see(z):
        for turn in turns:
            z = nn.functional.leaky_relu(z @ turn, SLOPE)
        return z

    def draw(batch, generator):
        z = torch.randn(batch, WIDTH, generator=generator)
        noise = math.sqrt(1 - RHO**2) * torch.randn(batch, WIDTH, generator=generator)
        states = torch.stack([z, RHO * z + noise], dim=1)
        return states, see(states)

    return draw


def train(draw, *, steps, batch, lam, slices=16, lr=1e-2):
    """An encoder and a linear predictor, trained on fresh pairs."""
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Linear(WIDTH, 128), nn.ReLU(), nn.Linear(128, WIDTH))
    predictor = nn.Linear(WIDTH, WIDTH, bias=False)
    config = lewm(lam=lam)
    assert config.regress is not None
    assert config.sigreg is not None
    regularised = replace(config.sigreg, slices=slices) if lam > 0 else None
    config = replace(config, regress=replace(config.regress, weight=1 - lam), sigreg=regularised)
    objective = Objective(config, {"pred", "target", "sequence"})
    parameters = [*encoder.parameters(), *predictor.parameters()]
    optimizer = torch.optim.Adam(parameters, lr=lr, foreach=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(1)
    for step in range(steps):
        _, seen = draw(batch, generator)
        z = encoder(seen)
        known = Latents(step=step, sequence=z, pred=(predictor(z[:, :1]),), target=(z[:, 1:],))
        optimizer.zero_grad()
        objective(known)["loss"].backward()
        optimizer.step()
        schedule.step()
    return encoder, predictor


@torch.no_grad()
def judge(draw, encoder, predictor):
    states, seen = draw(4000, torch.Generator().manual_seed(2))
    z = encoder(seen)
    error = (predictor(z[:, 0]) - z[:, 1]).square().mean().item()
    found = {
        "error": error,
        "variance": z[:, 1].var(dim=0).mean().item(),
        "rank": rankme(z[:, 0]),
        "width": WIDTH,
        "std": channel_std(z[:, 0])[1],
        "probe": ridge_r2(z[:, 0], states[:, 0], penalty=1e-4),
    }
    return found, ridge_r2(seen[:, 0], states[:, 0], penalty=1e-4)


def test_without_a_regulariser_it_collapses_and_the_verdict_says_so():
    draw = world(0)
    found, _ = judge(draw, *train(draw, steps=300, batch=64, lam=0.0))
    assert found["error"] < 1e-4  # the loss looks better than it ever can with a state in it
    assert found["std"] < 0.01
    assert found["probe"] < 0.05
    assert collapse_verdict(**found).startswith("collapsed: std")


def test_with_sigreg_the_true_state_is_recovered_up_to_a_linear_map():
    """What is seen gives R² 0.83; the floor of the error, relative to the variance, is 0.19."""
    draw = world(0)
    encoder, predictor = train(draw, steps=4000, batch=512, lam=0.05)
    found, raw = judge(draw, encoder, predictor)
    gains = torch.linalg.svdvals(predictor.weight.detach())
    assert found["probe"] >= 0.95, found
    assert 0.19 * 0.9 < found["error"] / found["variance"] < 0.22, found
    assert gains.min() > 0.86, gains
    assert gains.max() < 0.92, gains
    assert raw < 0.9
    assert collapse_verdict(**found) == "healthy"
