"""A world with a fork in it, of which the mean future is impossible.

A point moves in the plane towards a goal on the other side of a line. The line can be crossed
anywhere, but in wind its middle, the gate, throws the point into one of two pits at either end of
the line, left or right by a fair coin, and a pit is for ever. Half way between the pits, on the
line, lies the mean of both futures, from where the goal is near: whoever believes in the mean goes
through the gate. In calm the gate is the shortest way; to know which it is, one has to look.

State float64 ``[..., 3]``: x, y, wind (0 or 1). Actions float ``[..., 2]``: brought into the unit
disc, times 0.3 is the step. A coin float ``[...]`` in [0, 1) decides a throw: up below ``CHANCE``.

Observations are a fixed linear lift of the state (:func:`lift`), so that latents have the plane's
own geometry and what is measured is prediction and planning alone. :func:`draw` makes pictures.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from ..core.rng import numpy_generator, torch_generator

STEP = 0.3
"""Farthest way of one step."""
GATE = 0.5
"""Half the width of the gate, around y = 0 on the line x = 0."""
PIT = 1.1
"""The pits are around (0, PIT) and (0, -PIT)."""
LIP = 0.05
"""A throw ends so far beyond the line, seen from where the point came."""
EDGE = (1.2, 0.9)
"""Largest |x| and |y| that a walk can come to; pits lie beyond."""
CHANCE = 0.5
"""Of being thrown up."""
TOLERANCE = 0.2
"""A goal is reached within this distance, and futures agree."""
BUDGET = 12
"""Steps of an episode; seven lead straight across."""
WIDTH = 12
"""Entries of an observation."""


def advance(state: np.ndarray, action: np.ndarray, coin: np.ndarray) -> np.ndarray:
    """The state ``[..., 3]`` after an action ``[..., 2]`` and a coin ``[...]``."""
    forked, up, down = _outcomes(state, action)
    return np.where((forked & (coin >= CHANCE))[..., None], down, up)


def branches(state: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """All that can come of actions ``[C, H, 2]`` from states ``[C, 3]``.

    Returns:
        states ``[C, 2, H, 3]`` along both branches, and their probabilities ``[C, 2]``: where
        nothing forks, the branches are the same and the second has probability 0.
    """
    paths, chance = [], np.tile([1.0, 0.0], (len(state), 1))
    both = np.stack([state, state], axis=1)
    for h in range(actions.shape[1]):
        action = np.repeat(actions[:, h : h + 1], 2, axis=1)
        forked, up, down = _outcomes(both, action)
        both = np.stack([up[:, 0], np.where(forked[:, 1:], down[:, 1], up[:, 1])], axis=1)
        chance[forked[:, 0]] = (CHANCE, 1 - CHANCE)
        paths.append(both)
    return np.stack(paths, axis=2), chance


def sunk(state: np.ndarray) -> np.ndarray:
    """Whether states ``[..., 3]`` are in a pit."""
    return np.abs(state[..., 1]) > (EDGE[1] + PIT) / 2


def reached(state: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Whether states ``[..., 3]`` are at goals ``[..., 3]``."""
    return np.linalg.norm(state[..., :2] - goal[..., :2], axis=-1) <= TOLERANCE


def mean_step(state: np.ndarray, action: np.ndarray) -> np.ndarray:
    """What a perfect deterministic model predicts: the mean of both outcomes, ``[..., 3]``."""
    _, up, down = _outcomes(state, action)
    return CHANCE * up + (1 - CHANCE) * down


def windows(seed: int, step: int, count: int, horizon: int) -> tuple[np.ndarray, np.ndarray]:
    """Training walks of one step: states ``[count, horizon + 1, 3]``, actions float32
    ``[count, horizon, 2]``. Three of four start near the line and head for it."""
    rng = numpy_generator(seed, "fork windows", step)
    near, side = rng.random(count) < 0.75, rng.choice([-1.0, 1.0], count)
    x = np.where(near, side * rng.uniform(0, 2 * STEP, count), rng.uniform(-1, 1, count) * EDGE[0])
    y = np.where(near, 0.7, EDGE[1]) * rng.uniform(-1, 1, count)
    state = np.stack([x, y, (rng.random(count) < 0.5).astype(float)], axis=-1)
    pull = rng.standard_normal((count, 1, 2))
    pull[near, 0, 0] = -side[near] * np.abs(pull[near, 0, 0])
    actions = np.clip(pull + 0.7 * rng.standard_normal((count, horizon, 2)), -1, 1)
    states = [state]
    for h in range(horizon):
        states.append(advance(states[-1], actions[:, h], rng.random(count)))
    return np.stack(states, axis=1), actions.astype(np.float32)


def problems(seed: int, count: int, wind: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts and goals ``[count, 3]`` on either side of the gate, and the coins ``[count]`` that
    will throw whoever passes it in wind."""
    rng = numpy_generator(seed, "fork problems", int(wind))
    side = rng.choice([-1.0, 1.0], count)
    across = rng.uniform(0.7, 1.0, (2, count)) * np.stack([side, -side])
    along = rng.uniform(-0.25, 0.25, (2, count))
    start, goal = np.stack([across, along, np.full((2, count), float(wind))], axis=-1)
    return start, goal, rng.random(count)


def lift(state: np.ndarray | Tensor) -> Tensor:
    """Observations float32 ``[..., WIDTH]`` of states ``[..., 3]``: linear, and twice as long."""
    return 2 * torch.as_tensor(state, dtype=torch.float32) @ _frame()


def lower(observed: Tensor) -> np.ndarray:
    """States float64 ``[..., 3]`` of observations (or of latents near them)."""
    return (observed.detach().float() @ _frame().T / 2).double().cpu().numpy()


def draw(state: np.ndarray, size: int = 48) -> np.ndarray:
    """Pictures uint8 ``[..., size, size, 3]`` of states: ground (grey in calm, blue in wind), line
    and gate, pits, and the point in red."""
    state = np.asarray(state, float)
    flat = state.reshape(-1, 3)
    grid = np.linspace(-1.3, 1.3, size)
    x, y = grid[None, None, :], -grid[None, :, None]
    image = np.empty((len(flat), size, size, 3), np.uint8)
    image[:] = np.where(flat[:, 2, None] > 0.5, (150, 185, 225), (205, 205, 205))[:, None, None]
    line = np.broadcast_to(np.abs(x) < 0.04, (len(flat), size, size))
    image[line & (np.abs(y) < GATE)] = (245, 200, 80)
    image[line & (np.abs(y) >= GATE)] = (120, 120, 120)
    image[np.broadcast_to(x**2 + (np.abs(y) - PIT) ** 2 < 0.04, line.shape)] = (70, 50, 40)
    dot = (x - flat[:, 0, None, None]) ** 2 + (y - flat[:, 1, None, None]) ** 2 < 0.012
    image[dot] = (200, 40, 40)
    return image.reshape(*state.shape[:-1], size, size, 3)


class Oracle:
    """The world itself as a dynamics with futures, for planners: what a perfect model would know.

    Args:
        mean: it knows the mean future alone, exactly, like a perfect deterministic model.
    """

    action_dim = 2
    codes = 2

    def __init__(self, *, mean: bool = False):
        self.mean = mean

    def encode(self, obs: Any) -> Latent:
        """From ``state`` float ``[B, T, 3]``."""
        return Latent(lift(obs["state"]).unsqueeze(-2))

    def encode_goal(self, obs: Any) -> Latent:
        """From ``state`` float ``[B, 3]``."""
        return Latent(lift(obs["state"]).unsqueeze(-2))

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """The mean future, or that of a coin that falls up."""
        coin = torch.zeros(1, actions.shape[2])
        return self._walk(context, actions, coin).map(lambda x: x[:, :, 0])

    def rollout_futures(
        self, context: Latent, actions: Tensor, *, how: str, count: int = 8, seed: int = 0
    ) -> tuple[Latent, Tensor]:
        """Futures of stratified coins ("sample"), or of a coin that falls up, and down, at every
        step ("hold")."""
        H = actions.shape[2]
        if how == "sample":
            generator = torch_generator(seed, "fork coins")
            layer = torch.rand(count, H, generator=generator).argsort(dim=0)
            coins = (layer + torch.rand(count, H, generator=generator)) / count
            weights = torch.full((count,), 1 / count)
        elif how == "hold":
            coins = torch.tensor([[0.0], [0.999]]).expand(-1, H)
            weights = torch.tensor([CHANCE, 1 - CHANCE])
        else:
            raise ConfigError(f"how = {how!r}: choose sample or hold")
        found = self._walk(context, actions, coins)
        return found, weights.expand(*actions.shape[:2], -1)

    def _walk(self, context: Latent, actions: Tensor, coins: Tensor) -> Latent:
        """Futures ``[B, S, F, H, 1, WIDTH]`` by coins ``[F, H]``."""
        B, S, H = actions.shape[:3]
        state = lower(context.tokens[:, -1, 0])[:, None, None]
        state = np.broadcast_to(state, (B, S, len(coins), 3))
        given, thrown, steps = actions.double().cpu().numpy(), coins.numpy(), []
        for h in range(H):
            action = given[:, :, None, h]
            if self.mean:
                state = mean_step(state, np.broadcast_to(action, (B, S, len(coins), 2)))
            else:
                state = advance(state, action, np.broadcast_to(thrown[:, h], (B, S, len(coins))))
            steps.append(state)
        return Latent(lift(np.stack(steps, axis=3)).unsqueeze(-2))


def _outcomes(state: np.ndarray, action: np.ndarray) -> tuple[np.ndarray, ...]:
    """Whether the world forks, bool ``[...]``, and the states ``[..., 3]`` if it is thrown up, and
    down; both are the next state where it does not."""
    norm = np.linalg.norm(action, axis=-1, keepdims=True)
    move = STEP * action / np.maximum(1.0, norm)
    place = np.clip(state[..., :2] + move, -np.array(EDGE), EDGE)
    here = state[..., :2]
    crossed = (here[..., 0] < 0) != (place[..., 0] < 0)
    gap = np.where(crossed, place[..., 0] - here[..., 0], 1.0)
    along = here[..., 1] + (place[..., 1] - here[..., 1]) * np.where(
        crossed, -here[..., 0] / gap, 0.0
    )
    stuck = sunk(state)
    forked = crossed & (np.abs(along) < GATE) & (state[..., 2] > 0.5) & ~stuck
    place = np.where(stuck[..., None], here, place)
    wind = np.broadcast_to(state[..., 2:], (*place.shape[:-1], 1))
    plain = np.concatenate([place, wind], axis=-1)
    beyond = np.where(here[..., 0] < 0, LIP, -LIP)
    up, down = (
        np.where(
            forked[..., None],
            np.concatenate([np.stack([beyond, np.full(beyond.shape, y)], -1), wind], axis=-1),
            plain,
        )
        for y in (PIT, -PIT)
    )
    return forked, up, down


def _frame() -> Tensor:
    """Three orthonormal rows ``[3, WIDTH]``: cosines, of whole periods."""
    k = torch.arange(1, 4)[:, None] * (torch.arange(WIDTH) + 0.5)[None] * math.pi / WIDTH
    return torch.cos(k) * math.sqrt(2 / WIDTH)
