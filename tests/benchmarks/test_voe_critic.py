"""The critic as a scorer of surprise: error - beta D of what came, for both kinds of models."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from tubelet.benchmarks.voe.critic import CriticDynamics, CriticMasked, critic_scorer
from tubelet.benchmarks.voe.dynamics import DynamicsScorer, StepConfig
from tubelet.benchmarks.voe.masked import MaskedScorer
from tubelet.benchmarks.voe.models import masked_parts, of_world_model
from tubelet.benchmarks.voe.score import ScoreConfig, score_set
from tubelet.benchmarks.voe.windows import WindowConfig
from tubelet.core.errors import CheckpointError, ConfigError
from tubelet.vjepa import dynamics, presets, pretrain
from tubelet.vjepa.action_predictor import ActionPredictorConfig
from tubelet.vjepa.checkpoint import save_checkpoint
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.masked import token_places
from tubelet.vjepa.objectives import Latents
from tubelet.vjepa.objectives.feedback import FeedbackConfig
from tubelet.vjepa.objectives.presets import jedi, vjepa2
from tubelet.vjepa.recipes import load_world_model
from tubelet.vjepa.world_model import WorldModelConfig

from .voe_toy import vanishing, voe_set

WINDOWS = WindowConfig(window=6, contexts=(2, 4), stride=2, skip=1)


def clips(count, frames=6, size=16, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, frames, size, size, 3), np.uint8)


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A run of `tubelet pretrain`, never trained: weights and critics of a seed."""
    config = replace(
        presets.preset("debug"),
        encoder=EncoderConfig(width=48, depth=1, heads=2, patch=8),
        objective=jedi(momentum=(0.9, 0.9)),
    )
    out = tmp_path_factory.mktemp("runs") / "jedi"
    save_checkpoint(out, 1, model=pretrain.build(config), config=config)
    return out


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    config = dynamics.DynamicsConfig(
        model=WorldModelConfig(
            encoder=EncoderConfig(width=24, depth=1, heads=1, patch=8),
            predictor=ActionPredictorConfig(width=16, depth=1, heads=2),
            latent_dim=4,
            head_width=32,
            image_size=16,
            action_block=2,
            frame_gap=1,
        ),
        cache_stride=1,
        feedback=FeedbackConfig(normalise=False),
    )
    out = tmp_path_factory.mktemp("runs") / "world"
    save_checkpoint(out, 1, model=dynamics.build(config), config=config)
    return out


def test_masked_surprise_is_the_error_less_beta_times_the_verdict(masked):
    scorer = critic_scorer(str(masked), 0.7)
    assert isinstance(scorer, CriticMasked)
    videos = clips(3)
    plain = MaskedScorer(masked_parts(str(masked)), baselines=False)(videos, (2, 4))
    found = scorer(videos, (2, 4), None)
    verdicts = scorer.verdicts(videos, (2, 4))
    assert verdicts.shape == (3, 2)
    torch.testing.assert_close(
        found, plain - 0.7 * verdicts[None, ..., None, None, None], equal_nan=True
    )
    assert torch.equal(found.isnan(), plain.isnan())  # the context stays unjudged
    none = critic_scorer(str(masked), 0.0)(videos, (2, 4), None)
    torch.testing.assert_close(none, plain, equal_nan=True)


def test_masked_verdicts_are_those_of_the_training_term_on_what_came(masked):
    """With the sets, places and contexts that its own driver gives it."""
    scorer = critic_scorer(str(masked), 1.0)
    videos = clips(2, seed=1)
    config = pretrain.PretrainConfig
    from tubelet.vjepa.checkpoint import find_checkpoint, load_checkpoint, load_config

    folder = find_checkpoint(masked)
    model = pretrain.build(load_config(folder, config)).eval()
    load_checkpoint(folder, model=model)
    video = torch.from_numpy(videos)
    grid = model.encoder.grid(video)
    ids = torch.arange(grid.size).view(grid.t, -1)
    context, future = ids[:2].flatten()[None], ids[2:].flatten()[None].expand(2, -1)
    with torch.no_grad():
        known = Latents(
            pred=(torch.zeros(2, future.shape[1], 48),),
            target=(model.targets(video)[:, future[0]],),
            context=(model.encoder(video, context.expand(2, -1)),),
            places=(token_places(future, grid),),
        )
        wanted = model.objective.terms["feedback"].score(known, of="target")
        other = model.objective.terms["feedback"].score(known)
    torch.testing.assert_close(scorer.verdicts(videos, (4,))[:, 0], wanted, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(wanted, other)


def test_the_verdict_depends_on_what_came_and_a_prediction_would_not(masked, world):
    """Two windows with one beginning: what the model predicts is the same for both."""
    one = clips(1, seed=2)
    other = one.copy()
    other[:, 4:] = clips(1, seed=3)[:, 4:]
    both = np.concatenate([one, other])
    for scorer in (critic_scorer(str(masked), 1.0), critic_scorer(str(world), 1.0)):
        a, b = scorer.verdicts(both, (4,))[:, 0]
        assert not torch.isclose(a, b)


def test_world_model_surprise_is_the_error_less_beta_times_the_verdict(world):
    steps = StepConfig(actions="logged")
    scorer = critic_scorer(str(world), 0.5, steps=steps)
    assert isinstance(scorer, CriticDynamics)
    videos = clips(3, seed=4)
    moves = np.random.default_rng(0).standard_normal((3, 6, 2)).astype(np.float32)
    model = load_world_model(world)
    plain = DynamicsScorer(model, of_world_model(model, steps), baselines=False)
    found, verdicts = scorer(videos, (2, 4), moves), scorer.verdicts(videos, (2, 4), moves)
    torch.testing.assert_close(
        found,
        plain(videos, (2, 4), moves) - 0.5 * verdicts[None, ..., None, None, None],
        equal_nan=True,
    )
    still = scorer.verdicts(videos, (2, 4), np.zeros_like(moves))
    assert not torch.allclose(still, verdicts)  # coherence: the actions are part of the context


def test_runs_without_a_critic_are_refused(tmp_path):
    config = replace(presets.preset("debug"), objective=vjepa2())
    save_checkpoint(tmp_path / "plain", 1, model=pretrain.build(config), config=config)
    with pytest.raises(CheckpointError, match="trained without a critic"):
        critic_scorer(str(tmp_path / "plain"), 1.0)
    config = replace(config, objective=jedi(kind="moments"))
    save_checkpoint(tmp_path / "moments", 1, model=pretrain.build(config), config=config)
    with pytest.raises(CheckpointError, match="trained without a critic"):
        critic_scorer(str(tmp_path / "moments"), 1.0)
    with pytest.raises(ConfigError, match=r"critic = -1\.0"):
        ScoreConfig(critic=-1.0)


def test_scoring_a_set_gives_the_critic_a_row_of_its_own(masked, tmp_path):
    voe = voe_set(vanishing(3, side=16), cut=6)
    config = ScoreConfig(
        model=str(masked), windows=WINDOWS, untrained=1, gallery=0, critic=0.3, batch=4
    )
    tables = score_set(voe, config, tmp_path)
    facts = {
        json.loads(p.read_text())["name"]: json.loads(p.read_text())["role"]
        for p in (tmp_path / "losses").glob("*.json")
    }
    assert facts["model"] == "model"
    assert facts["model + critic"] == "baseline"
    assert any("model + critic" in map(str, row) for table in tables for row in table.rows)
