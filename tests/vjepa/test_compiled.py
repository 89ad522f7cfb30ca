"""Compiled rollouts are the rollouts, in one graph, and planners plan the same with them."""

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.planning import CEM, CEMConfig, LatentCost
from tubelet.vjepa.action_predictor import ActionPredictor, ActionPredictorConfig
from tubelet.vjepa.compiled import compile_rollouts
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.world_model import WorldModel, WorldModelConfig

SIZES = {"width": 24, "depth": 1, "heads": 2}  # tracing takes seconds per block


def _predictor(conditioning: str, grid: tuple[int, int], seed: int = 0) -> ActionPredictor:
    torch.manual_seed(seed)
    config = ActionPredictorConfig(**SIZES, conditioning=conditioning)  # pyright: ignore
    predictor = ActionPredictor(config, latent_dim=8, action_dim=3, grid=grid).eval()
    for parameter in predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return predictor


def _imagine(predictor, candidates: int = 5, steps: int = 2) -> torch.Tensor:
    g = torch.Generator().manual_seed(1)
    context = torch.randn(2, steps, predictor.tokens, 8, generator=g)
    past = torch.randn(2, steps - 1, 3, generator=g)
    actions = torch.randn(2, candidates, 3, 3, generator=g)
    with torch.inference_mode():
        return predictor.rollout_candidates(context, past, actions)


@pytest.fixture(autouse=True)
def forget():
    """Shapes are counted for the process: each test has its own eight."""
    torch.compiler.reset()


@pytest.mark.parametrize(
    ("conditioning", "grid"), [("adaln", (1, 1)), ("tokens", (2, 3)), ("concat", (1, 2))]
)
def test_one_graph_gives_the_same_rollouts(conditioning, grid):
    predictor = _predictor(conditioning, grid)
    wanted = {n: _imagine(predictor, n) for n in (5, 1)}
    compile_rollouts(predictor, backend="aot_eager", fullgraph=True)
    for candidates, expected in wanted.items():
        torch.testing.assert_close(_imagine(predictor, candidates), expected, rtol=1e-5, atol=1e-5)
    for weight in predictor.parameters():  # not baked in
        weight.data.mul_(0.5)
    assert (_imagine(predictor) - wanted[5]).abs().max() > 1e-2


@pytest.mark.slow
def test_generated_code_gives_the_same_rollouts():
    predictor = _predictor("adaln", (1, 1))
    expected = _imagine(predictor)
    compile_rollouts(predictor)
    torch.testing.assert_close(_imagine(predictor), expected, rtol=1e-5, atol=1e-5)


def test_a_planner_plans_the_same_with_it():
    torch.manual_seed(0)
    config = WorldModelConfig(
        encoder=EncoderConfig(width=24, depth=1, heads=2, patch=16, tubelet=1),
        predictor=ActionPredictorConfig(**SIZES),
        latent="vector",
        latent_dim=8,
        image_size=32,
        action_dim=2,
        action_block=2,
    )
    model = WorldModel(config).eval()
    for parameter in model.predictor.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    g = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (2, 2, 32, 32, 3), dtype=torch.uint8, generator=g)
    planner = CEM(CEMConfig(horizon=2, samples=16, iterations=3, elites=4), 4, LatentCost())

    def plan():
        with torch.inference_mode():
            context, goal = (
                model.encode({"pixels": frames[:, :1]}),
                model.encode_goal({"pixels": frames[:, 1]}),
            )
            return planner.plan(model, context, goal, generator=torch.Generator().manual_seed(3))

    expected = plan()
    compile_rollouts(model.predictor, backend="aot_eager")
    got = plan()
    torch.testing.assert_close(got.actions, expected.actions, rtol=1e-4, atol=1e-4)
    assert got.diagnostics["model_calls"] == expected.diagnostics["model_calls"]


def test_other_predictors_are_refused():
    with pytest.raises(ConfigError, match="Linear"):
        compile_rollouts(torch.nn.Linear(2, 2))
