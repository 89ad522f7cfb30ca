"""Diagnoses against worlds whose answer is known."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from tubelet.benchmarks import diagnose as module
from tubelet.benchmarks.goal_reaching import GoalReachingResult
from tubelet.benchmarks.grid_report import distance_bins
from tubelet.core.latent import Latent
from tubelet.datasets.windows import WindowBatch
from tubelet.planning import LatentCost


class Line:
    """A point on a line; its image's brightness is where it is, and so is its latent."""

    config = type("Config", (), {"image_size": 2, "action_block": 1, "frame_gap": 1})
    latent_dim = 1

    def __init__(self, drift=0.0):
        self.token_mean = torch.zeros(1)
        self.predictor = self
        self.drift = drift

    def encode_goal(self, obs):
        pixels = torch.from_numpy(obs["pixels"]).float()
        return Latent(pixels.mean(dim=(1, 2, 3))[:, None, None])

    def tokens(self, frames):
        return frames.float().mean(dim=(1, 2, 3, 4))[:, None, None]

    def project(self, tokens):
        return tokens

    def join(self, z, proprio):
        return z

    def rollout(self, z, actions):
        return z + actions.cumsum(dim=1)[..., None] + self.drift


class Env:
    def distance(self, state, goal):
        return {"gap": float(abs(state[0] - goal[0]))}


class Data:
    def __init__(self, states):
        self.offsets = np.array([0, len(states)])
        self.states = np.asarray(states, float)[:, None]

    def arrays(self):
        return {"state": self.states}


def frames(values):
    return np.asarray(values, np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)


@pytest.mark.parametrize(
    ("shown", "rank"), [([1, 4, 9, 16, 25], 1.0), ([25, 26, 27, 28, 20], -1.0)]
)
def test_rank_correlation_of_known_orders(shown, rank):
    """Latents that come nearer as the state does, and ones that go away until the last frame."""
    data = Data([0, 1, 2, 3, 4])
    found = module._rank(Line(), data, Env(), LatentCost(kind="l2"), frames(shown), 0)
    assert found == pytest.approx(rank)


def test_an_episode_without_movement_has_no_rank():
    data = Data([3, 3, 3])
    assert np.isnan(module._rank(Line(), data, Env(), LatentCost(), frames([1, 2, 3]), 0))


def window(steps):
    """Two windows that move by 1 and by 3 per step."""
    at = torch.tensor([[10.0 + s * h for h in range(steps + 1)] for s in (1, 3)])
    obs = at[:, :, None, None, None, None].expand(-1, -1, 1, 2, 2, 3).to(torch.uint8)
    actions = torch.tensor([[1.0] * steps, [3.0] * steps])[..., None]
    return WindowBatch(obs, actions, np.arange(2), np.zeros((2, steps + 1), int))


def test_errors_of_a_perfect_and_of_a_drifting_imagination():
    true, shuffled, copied = module._errors(Line(), window(3))
    assert not true.any()
    steps = np.arange(1, 4) ** 2
    assert np.allclose(copied, [steps, 9 * steps])
    assert np.allclose(shuffled, [4 * steps, 4 * steps])
    true, *_ = module._errors(Line(drift=0.5), window(3))
    assert np.allclose(true, 0.25)


def test_what_was_trained_on_is_told_from_what_was_held_out():
    """In the last of ten episodes, the one held out, the point goes a step farther than it is told
    to: a model of the others errs there alone, by 1, 2 and 3 of the 4, 8 and 12 it has gone."""
    data = Many()
    found = module.diagnose(
        Whole(), data, Env(), LatentCost(kind="l2"), held_out=0.1, horizon=3, seed=0
    )
    assert found.trained.value == pytest.approx(0, abs=1e-9)
    assert [d.value for d in found.divergence] == pytest.approx([1 / 16] * 3, rel=1e-4)
    assert found.actions.value == pytest.approx(1)  # all windows have the same actions
    assert found.rank.value == pytest.approx(1)


class Whole(Line):
    """With all that a model's config must say."""

    config = SimpleNamespace(
        image_size=2,
        action_block=1,
        frame_gap=1,
        proprio_dim=0,
        encoder=SimpleNamespace(tubelet=1),
    )


class Many:
    """Ten episodes of 9 frames, actions of 3."""

    num_episodes = 10

    def __init__(self):
        self.offsets = 9 * np.arange(11)
        paces = np.repeat([3] * 9 + [4], 9)
        self.states = (paces * np.tile(np.arange(9), 10)).astype(float)[:, None]
        self.actions = np.full((90, 1), 3, np.float32)

    def arrays(self):
        return {"state": self.states, "action": self.actions, "proprio": self.states}

    def cache(self, size):
        return SimpleNamespace(frames=frames(self.states[:, 0]), offsets=self.offsets)


def test_bins_share_the_problems_by_distance():
    start = np.array([4.0, 1.0, 3.0, 2.0, 8.0, 7.0, 6.0, 5.0])
    hit = start <= 4
    result = GoalReachingResult(
        name="m",
        role="model",
        seed=0,
        privileged=False,
        env_id="e",
        kind="far",
        episodes_sha256="",
        episodes_seed=0,
        rejected_share=0.0,
        budget=1,
        success=np.stack([np.zeros(8, bool), hit], 1),
        distance={"gap": np.stack([start, start], 1)},
        seconds=0.1,
        model_calls=None,
    )
    bins = distance_bins([result, result], "gap")["m"]
    assert bins == [(1.5, 4, 4), (3.5, 4, 4), (5.5, 0, 4), (7.5, 0, 4)]
