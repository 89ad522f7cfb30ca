"""Physics against closed forms, recombination, colours: nothing here needs OpenGL."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError
from tubelet.envs.physics import CONDITIONS, PRINCIPLES, leaks
from tubelet.envs.physics.assets import (
    HELD_OUT_HUES,
    SHAPES,
    Rejected,
    Thing,
    delta_e,
    object_rgb,
    object_size,
)
from tubelet.envs.physics.jobs import BRIDGES, GenerateConfig, ask_of, jobs
from tubelet.envs.physics.occluders import PLANE, extent
from tubelet.envs.physics.simulate import Body, Fixed, simulate
from tubelet.envs.physics.stage import sample_stage
from tubelet.envs.physics.track import Track, in_context, runs, splice, still

G = 9.81


def thing(shape="sphere", h=0.3, name="ball"):
    size = object_size(np.random.default_rng(0), shape, h)
    return Thing(name=name, kind="object", shape=shape, size=size, rgb=(1, 0, 0))


def wall(size=(0.1, 0.5, 0.5)):
    return Thing(name="wall", kind="support", shape="box", size=size, rgb=(0.5, 0.5, 0.5))


@pytest.mark.parametrize("shape", [*SHAPES, "cone", "capsule"])
def test_every_shape_slides_along_the_same_straight_path(shape):
    body = Body(thing=thing(shape), position=(-2, 0, 0.3), velocity=(1.6, 0, 0))
    pose = simulate([body], [], frames=24, fps=16).poses["ball"]
    np.testing.assert_allclose(pose[:, 0], -2 + 0.1 * np.arange(24), atol=2e-3)
    np.testing.assert_allclose(pose[:, 1:], still(24, (0, 0, 0.3))[:, 1:], atol=2e-3)


def test_free_fall_and_rest():
    body = Body(thing=thing(), position=(0, 0, 2.8), settles=False)
    z = simulate([body], [], frames=32, fps=16).poses["ball"][:, 2]
    t = np.arange(10) / 16
    np.testing.assert_allclose(z[:10], 2.8 - 0.5 * G * t**2, atol=0.02)
    assert z[-1] == z[-8] == pytest.approx(0.3, abs=2e-3)


@pytest.mark.parametrize("bounce", [0.6, 0.95])
def test_a_wall_returns_the_asked_share_of_the_speed(bounce):
    body = Body(thing=thing(), position=(-1.5, 0, 0.3), velocity=(2, 0, 0))
    fixed = [Fixed(thing=wall(), position=(0.5, 0, 0.5))]
    motion = simulate([body], fixed, frames=32, fps=16, bounce=bounce)
    speed = np.diff(motion.poses["ball"][:, 0]) * 16
    assert speed[0] == pytest.approx(2, abs=0.02)
    assert speed[-1] == pytest.approx(-2 * bounce, abs=0.1)
    assert 0 < motion.penetration < 0.03


def test_equal_masses_exchange_their_speeds():
    one, two = thing(), thing(name="other")
    bodies = [
        Body(thing=one, position=(-1.5, 0, 0.3), velocity=(2, 0, 0)),
        Body(thing=two, position=(0, 0, 0.3)),
    ]
    poses = simulate(bodies, [], frames=32, fps=16, bounce=0.99).poses
    assert np.diff(poses["other"][-2:, 0])[0] * 16 == pytest.approx(2, abs=0.1)
    assert abs(np.diff(poses["ball"][-2:, 0])[0]) * 16 < 0.1


def test_friction_stops_a_block_where_it_should():
    block = thing("box")
    speed, friction = 2.0, 0.3
    body = Body(thing=block, position=(-1, 0, 0.3), velocity=(speed, 0, 0), rolls=True)
    x = simulate([body], [], frames=32, fps=16, grip=friction).poses["ball"][:, 0]
    assert x[-1] - x[0] == pytest.approx(speed**2 / (2 * friction * G), rel=0.06)


def test_a_pulled_thing_follows_its_path_and_pushes():
    fixed = Fixed(thing=wall(), position=(-1, 0, 0.5), path=lambda t: -1 + 0.8 * t)
    body = Body(thing=thing(), position=(0, 0, 0.3))
    poses = simulate([body], [fixed], frames=32, fps=16, bounce=0.3).poses
    np.testing.assert_allclose(poses["wall"][:, 0], -1 + 0.8 * np.arange(32) / 16, atol=2e-3)
    assert poses["ball"][-1, 0] > 0.5


def test_things_inside_each_other_are_rejected():
    bodies = [
        Body(thing=thing(), position=(0, 0, 0.3)),
        Body(thing=thing(name="other"), position=(0.3, 0, 0.3)),
    ]
    with pytest.raises(Rejected, match="sink into each other"):
        simulate(bodies, [], frames=8, fps=16)


def tracks(seed, frames=12, things=3):
    rng = np.random.default_rng(seed)
    return [
        Track(
            rng.normal(size=(frames, things, 7)),
            rng.uniform(size=(frames, things)) < 0.8,
            np.zeros((frames, 7)),
            np.ones(frames),
        )
        for _ in range(2)
    ]


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1000), st.sets(st.integers(1, 11), max_size=3))
def test_splices_hold_the_same_states_as_their_sources_at_every_time(seed, cuts):
    a, b = tracks(seed)
    ab, ba = splice(a, b, [*cuts]), splice(b, a, [*cuts])
    first = min(cuts, default=12)
    np.testing.assert_array_equal(ab.rows()[:first], a.rows()[:first])
    for t in range(12):
        before = {a.rows()[t].tobytes(), b.rows()[t].tobytes()}
        assert {ab.rows()[t].tobytes(), ba.rows()[t].tobytes()} == before
    back = splice(ab, ba, [*cuts])
    np.testing.assert_array_equal(back.rows(), a.rows())


def test_an_outcome_in_another_context_takes_only_the_context():
    a, b = tracks(0)
    crossed = in_context(a, b, [1])
    np.testing.assert_array_equal(crossed.pose[:, 1], b.pose[:, 1])
    np.testing.assert_array_equal(crossed.present[:, [0, 2]], a.present[:, [0, 2]])
    np.testing.assert_array_equal(a.mirrored().mirrored().rows(), a.rows())


@given(st.lists(st.booleans(), max_size=30))
def test_runs_are_the_maximal_true_intervals(flags):
    found = runs(np.array(flags, bool))
    covered = [any(lo <= t < hi for lo, hi in found) for t in range(len(flags))]
    assert covered == flags
    assert all(a[1] < b[0] for a, b in itertools.pairwise(found))


def test_colours_are_as_far_apart_as_cielab_says():
    assert delta_e((0, 0, 0), (1, 1, 1)) == pytest.approx(100, abs=0.1)
    assert delta_e((1, 0, 0), (0, 1, 0)) == pytest.approx(170.6, abs=0.3)
    rng = np.random.default_rng(0)
    base = object_rgb(rng, False, [])
    near = object_rgb(rng, False, [(base, 12.0)], near=(base, 25.0))
    assert 12 <= delta_e(base, near) <= 25


@pytest.mark.parametrize("held_out", [False, True])
def test_hues_are_held_out_from_training_and_nothing_else_is_in_ood(held_out):
    import colorsys

    rng = np.random.default_rng(0)
    for _ in range(50):
        hue = colorsys.rgb_to_hsv(*object_rgb(rng, held_out, []))[0]
        inside = any(low - 0.01 <= hue <= high + 0.01 for low, high in HELD_OUT_HUES)
        outside = not any(low + 0.01 < hue < high - 0.01 for low, high in HELD_OUT_HUES)
        assert inside if held_out else outside


def test_the_extent_of_a_ball_is_its_shadow_on_the_plane():
    stage = sample_stage(np.random.default_rng(0))
    ball = thing(h=0.3)
    low, high, top = extent(stage, [(ball, still(2, (0.4, PLANE, 0.3)))])
    np.testing.assert_allclose(low, 0.1, atol=1e-2)  # in the plane itself: nothing is projected
    np.testing.assert_allclose(high, 0.7, atol=1e-2)
    np.testing.assert_allclose(top, 0.6, atol=1e-6)


def test_leak_statistics_know_perfect_and_no_leaks():
    leak = [([0.0, 1.0], [2.0, 3.0])] * 25
    assert leaks.auc(leak) == 1.0
    assert leaks.z_score(leak) > 4
    assert leaks.auc([([1.0, 1.0], [1.0, 1.0])] * 3) == 0.5
    assert leaks.z_score([([1.0, 1.0], [1.0, 1.0])] * 3) == 0.0
    rng = np.random.default_rng(0)
    noise = [(rng.normal(size=2), rng.normal(size=2)) for _ in range(400)]
    assert abs(leaks.z_score(noise)) < 3
    z = [leaks.z_score([(rng.normal(size=2), rng.normal(size=2))] * 1) for _ in range(2000)]
    assert np.std(z) == pytest.approx(1, abs=0.05)


def test_all_cells_and_axes_take_their_turns():
    config = GenerateConfig(preset="base")
    mine = [job for job in jobs(config) if job.kind == "probe" and job.split == "test"]
    assert {(j.principle, j.condition) for j in mine} == {
        (p, c) for p in PRINCIPLES for c in CONDITIONS
    }
    shape = [j for j in mine if j.principle == "shape" and j.condition == "occluded"]
    asks = [ask_of(config, job) for job in shape]
    assert len(asks) == 100
    assert {ask.bridge for ask in asks} == set(BRIDGES)
    assert {ask.distractors for ask in asks} == {0, 1, 2}
    assert {ask.events for ask in asks} == {1, 2}
    assert sum(ask.moving for ask in asks) == 25


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"preset": "smke"}, "did you mean 'smoke'"),
        ({"principles": ("gravty",)}, "gravity"),
        ({"frames": 16}, "frames = 16: must be at least 32"),
        ({"export": "grasp"}, "intphys"),
    ],
)
def test_impossible_configs_are_refused(wrong, words):
    with pytest.raises(ConfigError, match=words):
        GenerateConfig(**wrong)
