"""A model's word about its memory is true: a planner's limit in bytes holds."""

import pytest
import torch

from tubelet.benchmarks.planning_speed import PeakMemory
from tubelet.planning import CEM, Adam, AdamConfig, CEMConfig
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.world_model import WorldModel, WorldModelConfig, candidate_bytes


def test_peak_counts_what_is_alive_at_once():
    with PeakMemory() as memory:
        first = torch.zeros(1000)
        second = first + 1  # both alive
        del first
        third = second[:10]  # a view
        del second, third
        torch.zeros(500)
    assert memory.peak == 8000
    assert memory.alive == 0


@pytest.mark.parametrize("conditioning", ["adaln", "tokens", "concat"])
@pytest.mark.parametrize("grid", [1, 4])
@pytest.mark.parametrize("past", [0, 2])
def test_an_estimate_is_an_upper_bound_and_near(conditioning, grid, past):
    config = ActionPredictorConfig(width=48, depth=3, heads=2, conditioning=conditioning)
    predictor = ActionPredictor(config, latent_dim=24, action_dim=2, grid=(grid, grid)).eval()
    context = torch.randn(1, past + 1, grid * grid, 24)
    actions = torch.randn(1, 64, 4, 2)
    with torch.inference_mode(), PeakMemory() as memory:
        predictor.rollout_candidates(context, torch.randn(1, past, 2), actions)
    limit = 64 * candidate_bytes(predictor, 4, past=past)
    assert memory.peak <= limit < 3 * memory.peak


@pytest.mark.parametrize("latent", ["vector", "tokens"])
def test_planners_stay_below_their_limit(latent):
    encoder = EncoderConfig(width=32, depth=1, heads=2, patch=8)
    predictor = ActionPredictorConfig(width=48, depth=2, heads=2)
    config = WorldModelConfig(encoder=encoder, predictor=predictor, latent=latent, image_size=32)
    model = WorldModel(config).requires_grad_(False).eval()
    frames = torch.zeros(2, encoder.tubelet, 32, 32, 3, dtype=torch.uint8)
    with torch.inference_mode():
        context = model.encode({"pixels": frames})
        goal = model.encode_goal({"pixels": frames[:, 0]})
    limit = 60 * model.candidate_bytes(3)
    cem = CEMConfig(horizon=3, samples=100, elites=5, iterations=2, max_bytes=limit)
    limit_adam = 6 * model.candidate_bytes(3, gradient=True)
    adam = AdamConfig(horizon=3, restarts=12, iterations=2, max_bytes=limit_adam)
    for planner, most in ((CEM(cem, 10), limit), (Adam(adam, 10), limit_adam)):
        generators = [torch.Generator().manual_seed(n) for n in range(2)]
        with PeakMemory() as memory:
            planner.plan(model, context, goal, generator=generators)
        assert memory.peak <= 1.2 * most  # the candidates themselves are on top
        assert memory.peak > most / 4
