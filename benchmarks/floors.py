"""Floors: what is reached without a world model. Each agent fits ``goal_reaching.evaluate``.

A method that does not stand clearly above all of these has shown nothing about its model. An
untrained model, the remaining floor, is an ordinary agent around freshly initialised weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from ..core.errors import ConfigError
from ..core.rng import numpy_generator

Observation = dict[str, np.ndarray]
Embed = Callable[[np.ndarray], np.ndarray]
"""``embed(pixels uint8 [M, H, W, 3]) -> float [M, ...]``; distances are Euclidean."""


class OpenLoop:
    """Plays actions drawn before the episode, whatever it sees.

    Args:
        draw: ``draw(generator) -> float [budget, a]``, one problem's actions.
        seed: problem p draws from its own stream under this seed, whatever the batch size.
    """

    def __init__(self, draw: Callable[[np.random.Generator], np.ndarray], seed: int = 0):
        self._draw, self._seed = draw, seed
        self._actions = np.zeros((0, 0, 0), np.float32)

    def reset(self, goal_obs: Observation, *, problems: Sequence[int]) -> None:
        """Draw the actions of all ``problems``; the goals are not looked at."""
        draws = [self._draw(numpy_generator(self._seed, "floor", p)) for p in problems]
        self._actions = np.stack(draws).astype(np.float32)

    def act(self, obs: Observation) -> np.ndarray:
        """All actions of the episode, float32 ``[B, budget, a]``."""
        return self._actions


def no_action(budget: int, action_dim: int) -> OpenLoop:
    """Zero actions: what standing still scores."""
    return OpenLoop(lambda generator: np.zeros((budget, action_dim)))


def uniform_random(budget: int, action_dim: int, *, seed: int) -> OpenLoop:
    """A new action, uniform in the box [-1, 1], at every environment step."""
    return OpenLoop(lambda generator: generator.uniform(-1, 1, (budget, action_dim)), seed)


def coloured_random(budget: int, action_dim: int, *, seed: int, colour: float = 1.0) -> OpenLoop:
    """Smooth random actions: Gaussian with power ~ 1 / f**colour, std 1, clipped to [-1, 1]."""
    from ..envs.policies import coloured_noise

    def draw(generator: np.random.Generator) -> np.ndarray:
        noise = [coloured_noise(budget, colour, generator) for _ in range(action_dim)]
        return np.stack(noise, 1).clip(-1, 1)

    return OpenLoop(draw, seed)


def replay(actions: np.ndarray, offsets: np.ndarray, budget: int, *, seed: int) -> OpenLoop:
    """The data's own actions, from random moments of random episodes, until the budget is full.

    Args:
        actions: float ``[total, a]``, all episodes one after another; row t leads from frame t to
            frame t + 1, so the last row of an episode is unused.
        offsets: int ``[E + 1]``; episode e is rows ``offsets[e] : offsets[e + 1]``.
    """
    _check_offsets(offsets, len(actions))
    long_enough = np.flatnonzero(np.diff(offsets) >= 2)
    if len(long_enough) == 0:
        raise ConfigError("no episode has an action to replay: all are shorter than two frames")

    def draw(generator: np.random.Generator) -> np.ndarray:
        parts, length = [], 0
        while length < budget:
            episode = generator.choice(long_enough)
            last = offsets[episode + 1] - 1
            first = generator.integers(offsets[episode], last)
            parts.append(actions[first:last])
            length += last - first
        return np.concatenate(parts)[:budget]

    return OpenLoop(draw, seed)


class Retrieval:
    """Nearest-neighbour control from memory: no model, only the training trajectories.

    At each decision it looks for the stored segment (one episode, from frame i to a frame j that is
    at most ``window`` environment steps later) with the smallest
    ``|embed(frame_i) - embed(now)| + |embed(frame_j) - embed(goal)|``, and plays the first
    ``execute`` of the segment's actions; past frame j it plays zeros. Then it looks again.

    Args:
        frames: uint8 ``[total, H, W, 3]``, one per environment step, all episodes one after
            another. actions, offsets: as in :func:`replay`.
        embed: features for the distances, pixels by default; give a model's encoder for latents.
        window: longest segment in environment steps, at most the budget.
        execute: environment steps per decision. stride: use every stride-th stored frame only.
    """

    def __init__(
        self,
        frames: np.ndarray,
        actions: np.ndarray,
        offsets: np.ndarray,
        *,
        window: int,
        execute: int = 5,
        stride: int = 2,
        embed: Embed | None = None,
    ):
        if min(window, execute, stride) < 1:
            raise ConfigError(
                f"window, execute and stride must be at least 1, got {window}, {execute}, {stride}"
            )
        _check_offsets(offsets, len(frames))
        self._embed = pixel_embedding if embed is None else embed
        self._rows = np.concatenate([np.arange(a, b, stride) for a, b in pairwise(offsets)])
        self._episode = np.searchsorted(offsets, self._rows, side="right") - 1
        self._memory = self._features(frames, self._rows)
        self._actions, self._execute = np.asarray(actions, np.float32), execute
        self._ahead = window // stride
        self._to_goal, self._end = np.zeros((0, 0)), np.zeros((0, 0), int)

    def reset(self, goal_obs: Observation, *, problems: Sequence[int]) -> None:
        """For each stored frame, find the later frame that comes nearest to each goal."""
        distance = self._distances(goal_obs["pixels"])  # [B, M]
        best, end = distance.copy(), np.tile(np.arange(len(self._rows)), (len(distance), 1))
        for ahead in range(1, min(self._ahead, len(self._rows) - 1) + 1):
            same = self._episode[ahead:] == self._episode[:-ahead]
            better = same & (distance[:, ahead:] < best[:, :-ahead])
            problem, start = np.nonzero(better)
            best[problem, start] = distance[problem, start + ahead]
            end[problem, start] = start + ahead
        self._to_goal, self._end = best, end

    def act(self, obs: Observation) -> np.ndarray:
        """The next actions of the retrieved segments, float32 ``[B, execute, a]``."""
        total = self._distances(obs["pixels"][:, -1]) + self._to_goal
        start = total.argmin(1)  # [B] positions in memory
        end = self._end[np.arange(len(start)), start]
        rows = self._rows[start][:, None] + np.arange(self._execute)
        inside = rows < self._rows[end][:, None]
        actions = self._actions[np.where(inside, rows, 0)]
        return np.where(inside[..., None], actions, np.float32(0))

    def _features(self, frames: np.ndarray, rows: np.ndarray) -> np.ndarray:
        chunks = [
            self._embed(np.asarray(frames[rows[i : i + 256]])) for i in range(0, len(rows), 256)
        ]
        return np.concatenate([np.asarray(c, np.float32).reshape(len(c), -1) for c in chunks])

    def _distances(self, pixels: np.ndarray) -> np.ndarray:
        """Euclidean distances of B images to all memory frames, float32 ``[B, M]``."""
        query = self._features(pixels, np.arange(len(pixels)))
        squared = (query**2).sum(1)[:, None] + (self._memory**2).sum(1) - 2 * query @ self._memory.T
        return np.sqrt(squared.clip(min=0))


def pixel_embedding(pixels: np.ndarray, size: int = 16) -> np.ndarray:
    """Images uint8 ``[M, H, W, 3]`` averaged down to about ``size`` pixels: float32 ``[M, D]``.

    Averaging blurs the image, so that nearby poses have nearby features.
    """
    m, height, width, _ = pixels.shape
    block = max(1, min(height, width) // size)
    rows, columns = height // block, width // block
    cut = pixels[:, : rows * block, : columns * block].astype(np.float32) / 255
    return cut.reshape(m, rows, block, columns, block, 3).mean((2, 4)).reshape(m, -1)


def _check_offsets(offsets: np.ndarray, total: int) -> None:
    if len(offsets) < 2 or offsets[0] != 0 or offsets[-1] != total or (np.diff(offsets) < 0).any():
        raise ConfigError(f"offsets must rise from 0 to the {total} stored rows, got {offsets!r}")
