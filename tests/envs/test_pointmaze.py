"""The corridor: walls where the map says, nothing passes them, and its own coordinates."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tubelet import envs
from tubelet.envs.pointmaze import FREE_CELLS, RADIUS, unroll

ENV = envs.make("tubelet/PointMaze-v0", render_obs=False)


def contacts(x, y):
    ENV.set_state(ENV.state_at(np.array([x, y])))
    ENV._mj.mj_forward(ENV.model, ENV._data)
    return ENV._data.ncon


def test_walls_are_where_the_map_says():
    free = {tuple(cell) for cell in FREE_CELLS.tolist()}
    for x in range(-2, 3):
        for y in range(-2, 3):
            assert (contacts(x, y) == 0) == ((x, y) in free)


def test_sampled_states_touch_no_wall_and_fill_the_corridor():
    rng = np.random.default_rng(0)
    places = np.stack([ENV.position(ENV.sample_state(rng)) for _ in range(500)])
    assert all(contacts(x, y) == 0 for x, y in places)
    nearest = np.linalg.norm(places[:, None] - FREE_CELLS, axis=-1).argmin(1)
    assert (np.bincount(nearest, minlength=7) > 40).all()


@given(st.integers(0, 2**32 - 1), st.floats(0, 2 * np.pi))
def test_nothing_passes_a_wall(seed, angle):
    """Full force in one direction for two seconds; contacts give way by half a radius at most."""
    ENV.reset(options={"state": ENV.sample_state(np.random.default_rng(seed))})
    for _ in range(40):
        ENV.step(np.array([np.cos(angle), np.sin(angle)]))
        x, y = ENV.position(ENV.get_state())
        assert max(abs(x), abs(y)) < 1.5 - RADIUS / 2
        assert x > 0.5 + RADIUS / 2 or abs(y) > 0.5 + RADIUS / 2


def test_the_ball_is_never_faster_than_its_stated_limit():
    ENV.reset(options={"state": ENV.state_at(np.array([1.0, 1.2]))})
    places = [ENV.position(ENV.step(np.array([0, -1]))[4]["state"]) for _ in range(9)]
    assert 0.15 < np.abs(np.diff(places, axis=0)).max() <= 0.25


def test_success_at_the_tolerance():
    goal = ENV.state_at(np.array([1.0, 0.0]))
    assert ENV.success(ENV.state_at(np.array([1.0, 0.44])), goal)
    assert not ENV.success(ENV.state_at(np.array([1.0, 0.46])), goal)
    assert ENV.distance(ENV.state_at(np.array([1.0, 0.44])), goal)["distance"] == pytest.approx(
        0.44
    )


def test_scripted_policy_walks_from_end_to_end():
    ENV.reset(options={"state": ENV.state_at(np.array([-1.0, 1.0]))})
    act = ENV.scripted_policy(np.random.default_rng(0))
    places = np.stack([ENV.position(ENV.step(act(t))[4]["state"]) for t in range(500)])
    nearest = np.linalg.norm(places[:, None] - FREE_CELLS, axis=-1).argmin(1)
    assert set(nearest) == set(range(7))


def test_unrolled_corridor_is_straight():
    centres = unroll(FREE_CELLS.astype(float))
    np.testing.assert_allclose(centres[:, 1], [0.5, 0.5, np.hypot(0.5, 0.5), 0.5,
                                               np.hypot(0.5, 0.5), 0.5, 0.5])  # fmt: skip
    half = 0.5 + np.pi / 8
    np.testing.assert_allclose(
        centres[:, 0],
        [half + np.pi / 8 + 1.5, half + np.pi / 8 + 0.5, half, 0, -half,
         -half - np.pi / 8 - 0.5, -half - np.pi / 8 - 1.5],
        atol=1e-12,
    )  # fmt: skip


@given(st.floats(-1.3, 1.3), st.floats(-1.3, 1.3), st.floats(-1, 1), st.floats(-1, 1))
def test_unrolling_is_continuous_with_bounded_stretch(x, y, dx, dy):
    assume(x > 0.66 or abs(y) > 0.66)
    here = np.array([x, y])
    near = here + 1e-5 * np.array([dx, dy])
    assert np.linalg.norm(unroll(near) - unroll(here)) <= 3.5 * np.linalg.norm(near - here) + 1e-12
