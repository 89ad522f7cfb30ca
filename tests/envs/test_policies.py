"""Coloured noise has the spectrum and variance it says; mixtures keep to their weights."""

import numpy as np
import pytest

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.envs.policies import (
    PolicyMix,
    coloured_noise,
    mixed_policy,
    noise_policy,
    noisy_expert,
)

ENV = envs.make("tubelet/Reacher-v0", render_obs=False)


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("steps", [2, 20, 101])
def test_noise_has_unit_variance(colour, steps):
    rng = np.random.default_rng(0)
    draws = np.stack([coloured_noise(steps, colour, rng) for _ in range(4000)])
    assert draws.shape == (4000, steps)
    assert draws.var() == pytest.approx(1.0, rel=0.1)
    assert abs(draws.mean()) < 0.05


@pytest.mark.parametrize("colour", [0.0, 1.0, 2.0])
def test_noise_has_its_power_spectrum(colour):
    """The slope of log power over log frequency is minus the colour."""
    rng = np.random.default_rng(1)
    draws = np.stack([coloured_noise(256, colour, rng) for _ in range(500)])
    power = (np.abs(np.fft.rfft(draws)) ** 2).mean(0)[1:-1]
    slope = np.polyfit(np.log(np.fft.rfftfreq(256)[1:-1]), np.log(power), 1)[0]
    assert slope == pytest.approx(-colour, abs=0.05)


def test_a_single_step_of_noise():
    assert np.isfinite(coloured_noise(1, 1.0, np.random.default_rng(0))).all()


def test_held_actions_change_only_at_the_hold():
    act = noise_policy(ENV, 12, np.random.default_rng(0), hold=5)
    actions = np.stack([act(t) for t in range(12)])
    assert actions.dtype == np.float32
    assert (np.abs(actions) <= 1).all()
    changes = np.flatnonzero((np.diff(actions, axis=0) != 0).any(1)) + 1
    assert changes.tolist() == [5, 10]


def test_mixture_draws_by_weight():
    rng = np.random.default_rng(2)
    mix = PolicyMix(noise=1.0, held=3.0, scripted=0.0, hold=4)
    held = sum(
        np.array_equal(act(0), act(3))
        for act in (mixed_policy(mix, ENV, 8, rng) for _ in range(200))
    )
    assert 130 <= held <= 170


@pytest.mark.parametrize(
    "options",
    [
        {"noise": -1.0},
        {"noise": 0.0, "held": 0.0, "scripted": 0.0},
        {"expert_noise": -0.1},
        {"hold": 0},
        {"scale": 0.0},
        {"colour": 9.0},
        {"held": float("nan")},
    ],
)
def test_impossible_mixtures_are_refused(options):
    with pytest.raises(ConfigError):
        PolicyMix(**options)


def test_noisy_expert_reaches_one_goal_after_another():
    ENV.reset(seed=0)
    act = noisy_expert(ENV, np.random.default_rng(0), 0.1)
    goals, reached = set(), 0
    for t in range(150):
        goals.add(ENV.goal_state.tobytes())
        reached += ENV.step(act(t))[4]["success"]
    assert len(goals) >= 4
    assert reached > 15


def test_weights_pick_the_expert():
    mix = PolicyMix(noise=0, held=0, scripted=0, expert=1, expert_noise=0)
    ENV.reset(seed=1)
    act, clean = mixed_policy(mix, ENV, 5, np.random.default_rng(0)), ENV.expert(None)
    assert np.array_equal(act(0), clean(0))
