"""Mazes of blocks and of slabs: walls where the map says, layouts uniform and held out."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components, shortest_path

from tubelet import envs
from tubelet.core.errors import ConfigError
from tubelet.envs.geodesic import Geodesic
from tubelet.envs.maze_layouts import EDGES, MEDIUM, layout_split, random_layout, slab_cells

MEDIUM_ENV = envs.make("tubelet/PointMazeMedium-v0", render_obs=False)
RANDOM_ENV = envs.make("tubelet/PointMazeRandom-v0", render_obs=False)


def contacts(env, place):
    env.set_state(env.state_at(np.array(place)))
    env._mj.mj_forward(env.model, env._data)
    return env._data.ncon


def test_medium_walls_are_where_the_map_says():
    for row, letters in enumerate(MEDIUM):
        for column, letter in enumerate(letters):
            place = (column - 3.5, 3.5 - row)
            assert (contacts(MEDIUM_ENV, place) == 0) == (letter == ".")


@pytest.mark.parametrize("env", [MEDIUM_ENV, RANDOM_ENV], ids=["medium", "random"])
def test_sampled_places_touch_no_wall_and_reach_every_cell(env):
    rng = np.random.default_rng(0)
    cells = set()
    for _ in range(300):
        place = env.position(env.sample_state(rng))
        assert contacts(env, place) == 0
        cells.add(env.cells.nearest(place))
    assert cells == set(range(len(env.cells.centres)))


@given(st.integers(0, 2**32 - 1), st.sampled_from(["train", "test"]))
def test_one_way_joins_any_two_cells_and_splits_are_kept(seed, split):
    closed = random_layout(np.random.default_rng(seed), split)
    cells = slab_cells(closed)
    assert len(closed) == 9
    assert layout_split(closed) == split
    assert cells.meets.sum() == 2 * 15  # a tree over 16 cells
    assert connected_components(cells.meets)[0] == 1


def test_layouts_are_drawn_alike():
    """Every inner wall stands in 9 of 24 layouts on average; symmetric ones equally often."""
    rng = np.random.default_rng(1)
    counts = np.zeros(len(EDGES))
    for _ in range(800):
        counts[list(random_layout(rng, "train"))] += 1
    share = counts / 800
    for turned in (-EDGES, EDGES[:, ::-1], EDGES * (1, -1)):
        partner = np.abs(EDGES[:, None] - turned).sum(-1).argmin(1)
        assert np.abs(share - share[partner]).max() < 0.09


def test_the_layout_is_a_part_of_the_state():
    rng = np.random.default_rng(2)
    first, second = RANDOM_ENV.sample_state(rng), RANDOM_ENV.sample_state(rng)
    goal = RANDOM_ENV.sample_goal(rng)
    closed = RANDOM_ENV.closed
    RANDOM_ENV.set_state(first)
    assert RANDOM_ENV.closed != closed
    other = envs.make("tubelet/PointMazeRandom-v0", split="test", image_size=32)
    other.reset(options={"state": second, "goal_state": goal})
    assert other.closed == closed
    frame = other.render_state(first)
    assert not np.array_equal(frame, other.render())
    np.testing.assert_array_equal(RANDOM_ENV.features(second)[2:].nonzero()[0], closed)


@pytest.mark.parametrize("env", [MEDIUM_ENV, RANDOM_ENV], ids=["medium", "random"])
def test_squared_distance_between_features_is_the_way_around_walls(env):
    rng = np.random.default_rng(3)
    env.remember(env.sample_state(rng))
    cells = env.cells
    ways = shortest_path(cells.meets.astype(float), unweighted=True)
    features = env.plan_features(cells.centres)
    squared = ((features[:, None] - features) ** 2).mean(-1)
    assert np.corrcoef(squared.ravel(), ways.ravel())[0, 1] > 0.97
    scale = squared[cells.meets] * 0.45 / 0.1  # rounded corners and left-out coordinates shorten
    assert 0.6 < scale.min() < scale.max() < 1.01


@pytest.mark.parametrize("env", [MEDIUM_ENV, RANDOM_ENV], ids=["medium", "random"])
def test_going_towards_the_goal_always_pays(env):
    """Along the expert's way to the goal the planner's cost goes down all the time."""
    rng = np.random.default_rng(4)
    for _ in range(5):
        state, goal = env.sample_state(rng), env.sample_goal(rng)
        env.reset(options={"state": state, "goal_state": goal})
        act, costs = env.expert(rng), []
        wanted = env.plan_features_in(goal, env.position(goal))
        for t in range(60):
            place = env.position(env.step(act(t))[4]["state"])
            costs.append(((env.plan_features_in(state, place) - wanted) ** 2).mean())
        assert (np.diff(costs[::4]) < 0.03).all()
        assert costs[-1] < 0.5 * costs[0] + 0.05


def test_geodesic_of_an_open_room_is_the_way_along_the_axes():
    free = np.ones((6, 5), bool)
    room = Geodesic(
        free, free[:-1], free[:, :-1], origin=0.0, spacing=0.5, unit=2.0
    )  # 30 points: fewer dimensions than it keeps
    rng = np.random.default_rng(5)
    a, b = rng.integers(0, (6, 5), (2, 20, 2)) * 0.5
    squared = ((room(a) - room(b)) ** 2).mean(-1)
    np.testing.assert_allclose(squared, 0.05 * np.abs(a - b).sum(-1), atol=1e-6)


def test_a_lattice_in_pieces_is_refused():
    free = np.ones((3, 3), bool)
    free[1] = False
    with pytest.raises(ValueError, match="pieces"):
        Geodesic(free, free[:-1], free[:, :-1], origin=0.0, spacing=1.0, unit=1.0)


def test_unknown_splits_are_refused():
    with pytest.raises(ConfigError, match="train or test"):
        envs.make("tubelet/PointMazeRandom-v0", split="validation")
