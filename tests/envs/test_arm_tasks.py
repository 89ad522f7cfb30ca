"""The arm's four tasks: where starts and goals are, what counts as success, what cannot succeed."""

import itertools

import numpy as np
import pytest

from tubelet import envs
from tubelet.envs.arm import HALF, HIGH, LOW, OPEN, object_place, opening, tip
from tubelet.envs.arm_pick_place import SHELF
from tubelet.envs.arm_reach import WALL_TOP

REACH, WALL, PUSH, PICK = (
    envs.make(f"tubelet/{name}-v0", render_obs=False)
    for name in ("ArmReach", "ArmReachWall", "ArmPush", "ArmPickPlace")
)
OBJECT_TASKS = pytest.mark.parametrize("env", [PUSH, PICK], ids=["push", "pick"])


def hands(states, env):
    return tip(env.position(np.stack(states)))


def cubes(states, env):
    return object_place(env.position(np.stack(states)))


def drawn(env, count=30, seed=0):
    rng = np.random.default_rng(seed)
    pairs = [(env.sample_state(rng), env.sample_goal(rng)) for _ in range(count)]
    return [start for start, _ in pairs], [goal for _, goal in pairs]


def at(env, hand, cube=None, opened=0.0):
    return env.state_at(env.pose(np.array(hand), opened, None if cube is None else np.array(cube)))


def test_reaching_counts_within_5_cm():
    goal = at(REACH, [0.0, 0.0, 0.2])
    assert REACH.success(at(REACH, [0.03, 0.0, 0.2395]), goal)
    assert not REACH.success(at(REACH, [0.03, 0.0, 0.2405]), goal)
    assert REACH.distance(at(REACH, [0.03, 0.04, 0.2]), goal)["hand"] == pytest.approx(0.05)


def test_reach_starts_cover_the_workspace():
    starts, goals = drawn(REACH, 400)
    for states in (starts, goals):
        places = hands(states, REACH)
        assert (places >= LOW - 1e-9).all()
        assert (places <= HIGH + 1e-9).all()
        np.testing.assert_allclose(places.std(0), (HIGH - LOW) / np.sqrt(12), rtol=0.1)


def test_the_wall_is_between_every_start_and_goal_and_blocks_the_straight_way():
    starts, goals = drawn(WALL)
    assert (hands(starts, WALL)[:, 0] < -0.06).all()
    assert (hands(goals, WALL)[:, 0] > 0.06).all()
    assert (hands(starts + goals, WALL)[:, 2] < WALL_TOP).all()
    for start, goal in zip(starts[:5], goals[:5], strict=True):
        WALL.reset(options={"state": start, "goal_state": goal})
        target = tip(WALL.position(goal))
        for _ in range(40):
            info = WALL.step(WALL.towards(target, 0.0))[4]
        assert not info["success"]
        assert WALL.hand()[0] < 0.0


def test_the_expert_goes_over_the_wall_without_touching_it():
    starts, goals = drawn(WALL, 5)
    for start, goal in zip(starts, goals, strict=True):
        WALL.reset(options={"state": start, "goal_state": goal})
        act, wall = WALL.expert(np.random.default_rng(0)), WALL.model.geom("wall").id
        for t in range(40):
            WALL.step(act(t))
            assert wall not in WALL._data.contact.geom
        assert WALL.success(WALL.get_state(), goal)


@OBJECT_TASKS
def test_nothing_is_solved_before_it_starts(env):
    starts, goals = drawn(env)
    assert not any(env.success(a, b) for a, b in zip(starts, goals, strict=True))


@OBJECT_TASKS
def test_success_looks_at_the_cube_alone(env):
    goal = env.sample_goal(np.random.default_rng(0))
    cube = object_place(env.position(goal))
    tolerance = {PUSH: 0.05, PICK: 0.07}[env]
    for offset, reached in ((tolerance - 1e-3, True), (tolerance + 1e-3, False)):
        state = at(env, [-0.15, 0.1, 0.2], cube + np.array([0.0, offset, 0.0]))
        assert env.success(state, goal) is reached
        assert env.distance(state, goal)["object"] == pytest.approx(offset)


def test_cubes_lie_where_the_tasks_say():
    starts, goals = drawn(PUSH)
    assert np.abs(cubes(starts + goals, PUSH)[:, 2] - HALF).max() < 1e-3
    assert (cubes(goals, PUSH)[:, 0] > cubes(starts, PUSH)[:, 0]).all()
    starts, goals = drawn(PICK)
    assert np.abs(cubes(starts, PICK)[:, 2] - HALF).max() < 1e-3
    assert np.abs(cubes(goals, PICK)[:, 2] - SHELF - HALF).max() < 1e-3
    assert (opening(PICK.position(np.stack(goals))) > OPEN - 1e-3).all()


def test_a_cube_on_the_table_is_never_at_its_goal_on_the_shelf():
    goal = PICK.sample_goal(np.random.default_rng(0))
    below = object_place(PICK.position(goal)) - [0, 0, SHELF]
    assert not PICK.success(at(PICK, [-0.15, 0.1, 0.2], below), goal)


def test_no_push_brings_the_cube_on_the_shelf():
    goal = PICK.sample_goal(np.random.default_rng(1))
    for y in (-0.1, 0.0, 0.1):
        start = PICK.settled(PICK.pose(np.array([-0.12, y, 0.03]), 0.0, np.array([-0.05, y, HALF])))
        PICK.reset(options={"state": start, "goal_state": goal})
        for _ in range(30):
            info = PICK.step(np.array([1.0, 0, 0, 1.0]))[4]
        assert not info["success"]
        assert cubes([info["state"]], PICK)[0, 2] < SHELF


def test_a_push_moves_the_cube_as_far_as_the_hand():
    start = PUSH.settled(PUSH.pose(np.array([-0.1, 0, 0.03]), 0.0, np.array([-0.06, 0, HALF])))
    PUSH.reset(options={"state": start})
    states = [PUSH.step(np.array([0.25, 0, 0, 0]))[4]["state"] for _ in range(30)]
    cube, hand = cubes(states, PUSH), hands(states, PUSH)
    np.testing.assert_allclose(cube[10:, 0] - hand[10:, 0], HALF + 0.012, atol=2e-3)
    assert np.abs(cube[:, 1]).max() < 0.01


@OBJECT_TASKS
def test_the_hand_in_the_air_leaves_the_cube_alone(env):
    start = env.sample_state(np.random.default_rng(2))
    env.reset(options={"state": start})
    for action in np.random.default_rng(0).uniform(-1, 1, (20, 4)):
        state = env.step(action * [1, 1, 0, 1])[4]["state"]
    np.testing.assert_allclose(cubes([state], env), cubes([start], env), atol=1e-6)


def test_the_expert_carries_the_cube_in_its_fingers_and_lets_go():
    starts, goals = drawn(PICK, 3, seed=5)
    for start, goal in zip(starts, goals, strict=True):
        PICK.reset(options={"state": start, "goal_state": goal})
        act = PICK.expert(np.random.default_rng(0))
        states = [PICK.step(act(t))[4]["state"] for t in range(PICK.budget)]
        lifted = cubes(states, PICK)[:, 2] > SHELF + HALF + 0.01
        assert lifted.any()
        carried = PICK.position(np.stack(states))[lifted]
        assert np.linalg.norm(object_place(carried) - tip(carried), axis=1).max() < 0.03
        assert opening(PICK.position(states[-1])) > OPEN - 2e-3
        assert np.linalg.norm(cubes(states[-1:], PICK) - cubes([goal], PICK)) < 0.03


@OBJECT_TASKS
def test_play_moves_the_cube(env):
    moved = []
    for seed in range(8):
        start = env.sample_state(np.random.default_rng(seed))
        env.reset(options={"state": start})
        act = env.scripted_policy(np.random.default_rng(seed))
        state = [env.step(act(t))[4]["state"] for t in range(100)][-1]
        moved.append(np.linalg.norm(cubes([state], env) - cubes([start], env)))
    assert np.mean(np.array(moved) > 0.02) >= 0.5


@pytest.mark.parametrize("env", [REACH, WALL, PUSH, PICK], ids=["reach", "wall", "push", "pick"])
def test_planning_coordinates_are_in_tolerances_and_end_at_the_goal(env):
    """A goal's own coordinates cost nothing; the expert's last state costs less than its first."""
    rng = np.random.default_rng(3)
    start, goal = env.sample_state(rng), env.sample_goal(rng)
    env.reset(options={"state": start, "goal_state": goal})
    act = env.expert(np.random.default_rng(0))
    states = [env.step(act(t))[4]["state"] for t in range(env.budget)]
    gap = env.plan_features(env.position(np.stack([start, *states, goal])))
    cost = np.square(gap - gap[-1]).mean(-1)
    assert cost[-1] == 0
    assert cost[-2] < 0.25 * cost[0]


def test_the_way_over_the_wall_always_gets_nearer():
    """In the planning coordinates; in x, y and z the first half of it, upwards, does not."""
    goal, top = np.array([0.12, 0.05, 0.05]), 0.18
    corners = np.array([[-0.12, 0.0, 0.05], [-0.12, 0.0, top], [0.12, 0.05, top], goal])
    way = np.concatenate([np.linspace(a, b, 20) for a, b in itertools.pairwise(corners)])
    places = np.stack([WALL.pose(place, 0.0) for place in way])
    left = np.linalg.norm(WALL.plan_features(places) - WALL.plan_features(places[-1]), axis=1)
    assert (np.diff(left) < 1e-9).all()
    plain = np.linalg.norm(way - goal, axis=1)
    assert plain[19] > plain[0]
