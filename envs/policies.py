"""Policies that make training data: coloured noise, the same held, play, experts, a mixture of all.

A policy is a function ``act(t) -> action`` (float32 ``[A]`` in [-1, 1]) for one episode of one
environment, with its own random generator.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..core.errors import ConfigError
from .base import GoalEnv

Policy = Callable[[int], np.ndarray]
KINDS = ("noise", "held", "scripted", "expert")
LINGER = 5
"""Steps for which the expert stays at a goal before it heads for another."""


@dataclass(frozen=True, kw_only=True)
class PolicyMix:
    """Which policies make the data, each episode by one of them, drawn with these weights."""

    noise: float = 1.0
    """Weight of coloured noise, a new action every step."""
    held: float = 1.0
    """Weight of coloured noise whose every action is held for ``hold`` steps."""
    scripted: float = 1.0
    """Weight of play: the environment's scripted controller towards random targets."""
    expert: float = 0.0
    """Weight of the environment's expert with noise, towards goals, a new one when the last is
    reached."""
    expert_noise: float = 0.3
    """Most noise added to the expert's actions; its standard deviation is drawn per episode."""
    colour: float = 1.0
    """Exponent of the noise's power spectrum 1/f^colour: 0 is white, 1 pink, 2 Brownian."""
    scale: float = 1.0
    """Standard deviation of the noise before it is clipped to [-1, 1]."""
    hold: int = 5
    """Steps for which ``held`` keeps an action."""

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in KINDS}
        for name, weight in weights.items():
            if not 0 <= weight < float("inf"):
                raise ConfigError(f"{name} = {weight}: a weight is 0 or more")
        if not any(weights.values()):
            raise ConfigError(f"{', '.join(KINDS)} are all 0: give one of them a weight")
        if not 0 <= self.expert_noise < float("inf"):
            raise ConfigError(f"expert_noise = {self.expert_noise}: must be 0 or more")
        if not 0 <= self.colour <= 4:
            raise ConfigError(f"colour = {self.colour}: must be 0 (white) to 4")
        if not 0 < self.scale < float("inf"):
            raise ConfigError(f"scale = {self.scale}: must be above 0")
        if self.hold < 1:
            raise ConfigError(f"hold = {self.hold}: must be at least 1 step")


def mixed_policy(mix: PolicyMix, env: GoalEnv, steps: int, rng: np.random.Generator) -> Policy:
    """Draw one of the mixture's policies for an episode of ``steps`` steps."""
    weights = np.array([getattr(mix, name) for name in KINDS])
    kind = KINDS[rng.choice(len(KINDS), p=weights / weights.sum())]
    if kind == "scripted":
        return env.scripted_policy(rng)
    if kind == "expert":
        return noisy_expert(env, rng, mix.expert_noise)
    hold = mix.hold if kind == "held" else 1
    return noise_policy(env, steps, rng, colour=mix.colour, scale=mix.scale, hold=hold)


def noisy_expert(env: GoalEnv, rng: np.random.Generator, noise: float) -> Policy:
    """The expert towards the episode's goal and, when it has been there for some steps, another.

    Args:
        noise: most noise; the standard deviation is uniform on [0, noise], drawn once.
    """
    deviation = rng.uniform(0.0, noise)
    expert, stayed = env.expert(rng), 0

    def act(t: int) -> np.ndarray:
        nonlocal expert, stayed
        state = env.get_state()
        stayed = stayed + 1 if env.success(state, env.goal_state) else 0
        if stayed > LINGER:
            env.remember(state)
            env.goal_state, stayed = env.sample_goal(rng), 0
            expert = env.expert(rng)
        action = expert(t)
        return np.clip(action + deviation * rng.standard_normal(action.shape), -1.0, 1.0)

    return act


def noise_policy(
    env: GoalEnv,
    steps: int,
    rng: np.random.Generator,
    *,
    colour: float = 1.0,
    scale: float = 1.0,
    hold: int = 1,
) -> Policy:
    """Coloured noise, clipped to the actions' bounds; every action is held for ``hold`` steps."""
    count = -(-steps // hold)
    width = env.model.nu
    noise = scale * np.stack([coloured_noise(count, colour, rng) for _ in range(width)], axis=1)
    actions = np.clip(noise, -1.0, 1.0).astype(np.float32)
    return lambda t: actions[t // hold]


def coloured_noise(steps: int, colour: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise of unit variance with power spectrum 1/f^colour: float64 ``[steps]``.

    Timmer & König 1995, as used for exploration by Eberhard et al. 2023 ("Pink noise is all you
    need"). The zero frequency has the power of the lowest one, so that short sequences drift.
    """
    frequencies = np.fft.rfftfreq(steps)
    if steps > 1:
        frequencies[0] = frequencies[1]
    amplitude = np.maximum(frequencies, 1e-12) ** (-colour / 2) if steps > 1 else np.ones(1)
    twice = np.full(
        len(amplitude), 2.0
    )  # every frequency but the first and the Nyquist counts twice
    twice[0] = 1.0
    if steps % 2 == 0:
        twice[-1] = 1.0
    deviation = np.sqrt(np.sum(twice * amplitude**2)) / steps
    phases = rng.standard_normal((2, len(amplitude)))
    spectrum = amplitude * (phases[0] + 1j * phases[1]) / np.sqrt(2.0)
    real = twice == 1.0
    spectrum[real] = amplitude[real] * phases[0][real]
    return np.fft.irfft(spectrum, n=steps) / deviation
