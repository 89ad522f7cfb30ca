"""TwoRooms: one door, no other way; goals in the other room; layouts in the state."""

import numpy as np
import pytest

from tubelet import envs
from tubelet.envs.tworooms import (
    DOOR,
    FIT,
    PUBLISHED,
    RADIUS,
    ROOM,
    STEP,
    TOLERANCE,
    WALL,
    opening_split,
)  # fmt: skip

ENV = envs.make("tubelet/TwoRooms-v0", render_obs=False)


def place(env, x, y):
    return env.state_at(np.array([x, y]))


def test_a_step_has_the_published_length_in_every_direction():
    for angle in np.linspace(0, 2 * np.pi, 9):
        ENV.reset(options={"state": place(ENV, -15, -10)})
        action = 2 * np.array([np.cos(angle), np.sin(angle)])
        ENV.step(action)
        before = ENV.position(ENV.get_state())
        after = ENV.position(ENV.step(action)[4]["state"])
        assert np.linalg.norm(after - before) == pytest.approx(STEP, rel=0.01)


def test_the_wall_stops_and_the_door_lets_through():
    assert ENV.opening == PUBLISHED
    for y, passes in [(0.0, False), (PUBLISHED[1], True), (PUBLISHED[1] - DOOR - RADIUS, False)]:
        ENV.reset(options={"state": place(ENV, -10, y)})
        for _ in range(10):
            info = ENV.step(np.array([1.0, 0.0]))[4]
        x = ENV.position(info["state"])[0]
        assert (x > 10) == passes
        assert passes or x < RADIUS / 2 - WALL - RADIUS + 0.5


def test_goals_are_in_the_other_room():
    rng = np.random.default_rng(0)
    for env_id in ("tubelet/TwoRooms-v0", "tubelet/TwoRoomsRandom-v0"):
        env = envs.make(env_id, render_obs=False)
        for _ in range(30):
            start, goal = env.sample_state(rng), env.sample_goal(rng)
            wall = env.opening[0]
            a, b = env.position(start)[0] - wall, env.position(goal)[0] - wall
            assert a * b < 0
            assert min(abs(a), abs(b)) >= WALL + FIT
            assert np.array_equal(env.layout_of(start)[0], env.layout_of(goal)[0])
        env.reset(options={"state": start})
        assert (env.position(env.goal_state)[0] - wall) * a < 0


def test_random_layouts_keep_to_their_split_and_travel_with_the_state():
    rng = np.random.default_rng(1)
    for split in ("train", "test"):
        env = envs.make("tubelet/TwoRoomsRandom-v0", render_obs=False, split=split)
        openings = set()
        for _ in range(40):
            state = env.sample_state(rng)
            openings.add(env.opening)
            assert opening_split(*env.opening) == split
        assert len(openings) == 40
        other = envs.make("tubelet/TwoRoomsRandom-v0", render_obs=False)
        other.set_state(state)
        assert other.opening == env.opening
        np.testing.assert_allclose(env.features(state)[2:] * ROOM, env.opening, rtol=1e-5)


def test_the_way_counts_not_the_crow():
    """Beside the wall and far from the door, the next room is far away."""
    near, beyond = np.array([-4.0, -20.0]), np.array([4.0, -20.0])
    here, there = ENV.plan_features(near), ENV.plan_features(beyond)
    same = ENV.plan_features(np.array([-12.0, -20.0]))
    door = 2 * (PUBLISHED[1] + 20.0)
    assert ((here - same) ** 2).mean() == pytest.approx(0.1 * 8 / TOLERANCE, rel=0.25)
    assert ((here - there) ** 2).mean() == pytest.approx(0.1 * (door + 8) / TOLERANCE, rel=0.15)
