import json

import numpy as np
import pytest

from tubelet.benchmarks.landscape import Landscape, latent_landscape

from .toy import PixelDynamics, PointEnv

GRID = np.linspace(0, 1, 9)


def euclidean(trajectory, goal):
    gap = trajectory.tokens[:, :, -1] - goal.tokens[:, None]
    return gap.flatten(2).norm(dim=-1)


def draw(cost=euclidean, **kwargs):
    goal = np.array([0.25, 0.75, 0, 0])
    return latent_landscape(
        PixelDynamics(), cost, PointEnv(), goal, name="toy", x=GRID, y=GRID, **kwargs
    )


def test_a_perfect_latent_gives_the_true_landscape():
    landscape = draw()
    assert landscape.spearman > 0.999
    np.testing.assert_allclose(landscape.cost, landscape.distance, atol=0.01)
    row, column = np.unravel_index(landscape.cost.argmin(), landscape.cost.shape)
    assert (GRID[column], GRID[row]) == landscape.goal == (0.25, 0.75)  # [y, x] order
    assert landscape.distance_name == "position"


def test_batches_do_not_matter_and_reversed_costs_are_seen():
    np.testing.assert_allclose(draw(batch=7).cost, draw().cost)
    assert draw(cost=lambda a, b: -euclidean(a, b)).spearman == pytest.approx(-draw().spearman)


def test_round_trip():
    landscape = draw()
    again = Landscape.from_json(json.loads(json.dumps(landscape.to_json())))
    np.testing.assert_allclose(again.cost, landscape.cost)
    assert again.spearman == landscape.spearman
