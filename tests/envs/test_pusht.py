"""PushT: the T moves only where it is pushed, as the expert's equations say; experts solve it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tubelet import envs
from tubelet.envs.push_expert import DISC, _candidates, _push_targets, _towards, _trace, clearance

ENV = envs.make("tubelet/PushT-v0", render_obs=False)
POSES = st.tuples(*[st.floats(-0.15, 0.15)] * 2, st.floats(-np.pi, np.pi)).map(np.array)


def corners(block):
    """The eight corners of the T's outline, by hand from its measures, in the world: [8, 2]."""
    bottom = 0.0257143 - 0.015
    local = np.array([
        (-0.06, bottom), (-0.06, bottom + 0.03), (0.06, bottom + 0.03), (0.06, bottom),
        (0.015, bottom), (0.015, bottom - 0.09), (-0.015, bottom - 0.09), (-0.015, bottom),
    ])  # fmt: skip
    c, s = np.cos(block[2]), np.sin(block[2])
    return local @ np.array([[c, s], [-s, c]]) + block[:2]


@given(POSES, st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_clearance_is_the_distance_to_the_outline(block, x, y):
    point, outline = np.array([x, y]), corners(block)
    after = np.roll(outline, -1, 0)
    way = after - outline
    share = np.clip(((point - outline) * way).sum(1) / (way**2).sum(1), 0, 1)
    nearest = np.linalg.norm(outline + share[:, None] * way - point, axis=1).min()
    crossing = (outline[:, 1] > y) != (after[:, 1] > y)
    with np.errstate(divide="ignore", invalid="ignore"):
        right = x < outline[:, 0] + (y - outline[:, 1]) / way[:, 1] * way[:, 0]
    inside = (crossing & right).sum() % 2 == 1
    value = clearance(point, block)
    if inside:
        assert -nearest - 1e-6 <= value <= 1e-9
    else:
        assert value == pytest.approx(nearest, abs=1e-6)


def test_the_centre_of_mass_is_the_origin():
    model = ENV.model
    assert np.allclose(model.body("block").ipos, 0, atol=1e-6)
    inertia = float(model.body("block").inertia.max())  # of a flat body: about its normal
    ratio = model.joint("block_turn").damping[0] / model.joint("block_x").damping[0]
    assert ratio == pytest.approx(inertia / float(model.body("block").mass[0]), rel=0.02)


def test_nothing_moves_without_a_push_and_the_block_stops_with_it():
    rng = np.random.default_rng(0)
    state = ENV.sample_state(rng)
    ENV.reset(options={"state": state})
    for _ in range(10):
        info = ENV.step(np.zeros(2))[4]
    assert np.allclose(ENV.position(info["state"]), ENV.position(state), atol=1e-9)
    ENV.reset(options={"state": ENV.state_at(np.array([0, 0.07, 0, 0, 0]))})
    for _ in range(3):
        ENV.step(np.array([0.0, -0.5]))
    pushed = ENV.position(ENV.step(np.zeros(2))[4]["state"])
    assert -0.06 < pushed[3] < -0.03
    assert abs(pushed[4]) < 0.01
    still = ENV.position(ENV.step(np.zeros(2))[4]["state"])
    assert np.allclose(still[2:], pushed[2:], atol=2e-4)


def test_the_disc_goes_as_fast_as_stated_and_no_further_than_the_walls():
    ENV.reset(options={"state": ENV.state_at(np.array([0, 0.2, 0, -0.1, 0]))})
    places = [ENV.position(ENV.step(np.array([1, 0]))[4]["state"])[0] for _ in range(9)]
    assert np.diff(places)[1] == pytest.approx(0.04, rel=0.01)
    assert places[-1] == pytest.approx(0.256 - DISC, abs=0.006)  # contacts give way


def test_traced_pushes_are_what_the_simulator_does():
    """The expert's equations against the simulator: 40 pushes at random places, 4 cm each."""
    rng = np.random.default_rng(1)
    places, slopes, normals = _candidates()
    errors, ways = [], []
    while len(errors) < 40:
        block = rng.uniform((-0.1, -0.1, -np.pi), (0.1, 0.1, np.pi))
        poses = _trace(block, places, slopes, normals)
        pick = int(rng.integers(len(places)))
        if not np.isfinite(poses[pick, 10]).all():
            continue
        targets = list(_push_targets(block, poses[pick], places[pick], normals[pick], 10))[:-1]
        ENV.set_state(ENV.state_at(np.concatenate([targets[0], block])))
        for target in targets[1:]:
            disc = ENV.position(ENV.get_state())[:2]
            ENV.step(_towards(disc, target, 0.04))
        found = ENV.position(ENV.get_state())[2:]
        scale = np.array([1.0, 1.0, 0.044])  # a turn counts by the radius of gyration
        errors.append(np.linalg.norm((found - poses[pick, 10]) * scale))
        ways.append(np.linalg.norm((poses[pick, 10] - block) * scale))
    assert np.median(errors) < 0.15 * np.median(ways)


def test_success_at_the_tolerances():
    goal = ENV.state_at(np.array([0.1, 0.1, 0.0, 0.0, 0.0]))

    def reached(dx, dy, turn):
        return ENV.success(ENV.state_at(np.array([0.1 + dx, 0.1, dy, 0.0, turn])), goal)

    assert reached(0.0119, 0.0159, 0)
    assert not reached(0.0121, 0.0161, 0)
    assert reached(0, 0, np.deg2rad(19.9) - 2 * np.pi)
    assert not reached(0, 0, np.deg2rad(20.1))


def test_expert_solves_far_goals():
    solved = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        start, goal = ENV.sample_state(rng), ENV.sample_goal(rng)
        ENV.reset(options={"state": start, "goal_state": goal})
        act = ENV.expert(rng)
        for t in range(ENV.budget):
            info = ENV.step(act(t))[4]
        solved += info["success"]
    assert solved >= 3


def test_play_moves_the_block_about():
    ENV.reset(seed=0)
    act = ENV.scripted_policy(np.random.default_rng(0))
    poses = np.stack([ENV.position(ENV.step(act(t))[4]["state"])[2:] for t in range(200)])
    moves = np.abs(np.diff(poses, axis=0)).max(1) > 1e-4
    assert 0.15 < moves.mean() < 0.9
    assert poses[:, 2].std() > 0.3
