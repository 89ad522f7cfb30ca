"""The judge of true states: legal tracks are legal, and every kind of impossible one is found."""

import numpy as np
import pytest

from tubelet.core.rng import numpy_generator
from tubelet.envs.physics import CONDITIONS, PRINCIPLES
from tubelet.envs.physics.assets import Rejected, Thing
from tubelet.envs.physics.jobs import GenerateConfig, Job, ask_of, plan_of
from tubelet.envs.physics.laws import violations
from tubelet.envs.physics.quadruplet import TWINS
from tubelet.envs.physics.simulate import Body, Fixed, simulate
from tubelet.envs.physics.stage import drawing_xml, sample_stage

FRAMES = 32


def judged(things, poses, present=None):
    """Violations of handmade tracks: ``poses`` by name."""
    stage = sample_stage(np.random.default_rng(0))
    pose = np.stack([poses[thing.name] for thing in things], axis=1)
    present = np.ones(pose.shape[:2], bool) if present is None else present
    named = [(thing.name, thing.kind) for thing in things]
    return violations(drawing_xml(stage, tuple(things)), named, pose, present, 16)


def ball(name="ball"):
    return Thing(name=name, kind="object", shape="sphere", size=(0.3, 0.3, 0.3), rgb=(1, 0, 0))


def wall():
    return Thing(name="wall", kind="support", shape="box", size=(0.1, 0.5, 0.5), rgb=(0, 0, 1))


def falling():
    body = Body(thing=ball(), position=(0, 0, 2.5), settles=False)
    return simulate([body], [], frames=FRAMES, fps=16).poses


def bouncing():
    body = Body(thing=ball(), position=(-1.5, 0, 0.3), velocity=(2, 0, 0))
    fixed = [Fixed(thing=wall(), position=(0.5, 0, 0.5))]
    return simulate([body], fixed, frames=FRAMES, fps=16).poses


def test_falling_landing_and_bouncing_are_legal():
    assert judged([ball()], falling()).sum() < 0.2
    assert judged([ball(), wall()], bouncing()).sum() < 0.2


def test_sliding_in_a_pulled_container_until_its_walls_push_is_legal():
    """The floor of the container is nearer than the wall that stops the ball."""
    box = Thing(
        name="box", kind="container", shape="open_box", size=(0.5, 0.42, 0.5), rgb=(0, 0, 1)
    )

    def path(time):
        return -1 + 1.6 * np.clip((time - 0.3) * 2, 0, 1) ** 2 * (
            3 - 2 * np.clip((time - 0.3) * 2, 0, 1)
        )

    fixed = [Fixed(thing=box, position=(-1, 0, 0.5), damped=True, path=path)]
    start = Body(thing=ball(), position=(-1, 0, 0.34), settles=False)
    poses = simulate([start], fixed, frames=FRAMES, fps=16).poses
    relative = poses["ball"][:, 0] - poses["box"][:, 0]
    assert relative.min() < -0.1  # pushed by the left wall …
    assert relative.max() > 0.1  # … and stopped by the right one
    assert judged([ball(), box], poses).sum() < 0.2
    alone = judged([ball()], {"ball": poses["ball"]})
    assert alone.sum() > 2


def test_landing_askew_with_friction_is_legal():
    brick = Thing(name="brick", kind="object", shape="box", size=(0.2, 0.2, 0.35), rgb=(1, 0, 0))
    body = Body(thing=brick, position=(0, 0, 1.5), velocity=(2.0, 0, -1), settles=False)
    poses = simulate([body], [], frames=FRAMES, fps=16, grip=0.5, bounce=0.2).poses
    speed = np.diff(poses["brick"][:, 0])
    assert speed.min() < 0.5 * speed.max()  # the floor's friction slowed it
    assert judged([brick], poses).sum() < 0.2


def test_hanging_in_the_air_is_found_in_every_frame():
    pose = np.tile(np.array([0, 0, 1.5, 1, 0, 0, 0.0]), (FRAMES, 1))
    found = judged([ball()], {"ball": pose})
    assert (found[2:] > 0.5).all()


def test_bouncing_off_nothing_passing_a_wall_and_jumping_are_found_when_they_happen():
    poses = bouncing()
    x = poses["ball"][:, 0]
    turn = int(np.argmax(x))
    found = judged([ball()], {"ball": poses["ball"]})  # the wall is not there
    assert abs(int(np.argmax(found)) - turn) <= 1
    assert found.max() > 2
    through = poses["ball"].copy()
    through[:, 0] = -1.5 + 2 / 16 * np.arange(FRAMES)
    inside = np.abs(through[:, 0] - 0.5) < 0.25
    found = judged([ball(), wall()], {"ball": through, "wall": poses["wall"]})
    assert (found[inside] > 0.5).all()
    away = through[:, 0] < -0.6
    assert found[away].sum() == 0
    jump = through.copy()
    jump[10:, 1] += 0.8
    found = judged([ball()], {"ball": jump})
    assert int(np.argmax(found)) in (10, 11)
    assert found[:9].sum() == 0


def test_appearing_counts_once_and_screens_may_come_and_go():
    pose = np.tile(np.array([0, 0, 0.3, 1, 0, 0, 0.0]), (FRAMES, 1))
    present = np.ones((FRAMES, 1), bool)
    present[:12] = False
    found = judged([ball()], {"ball": pose}, present)
    assert found[12] == 1
    assert found.sum() == 1
    panel = Thing(
        name="screen", kind="occluder", shape="plain", size=(0.5, 0.04, 0.5), rgb=(0, 0, 1)
    )
    path = pose.copy()
    path[:, 0] = np.linspace(-3, 3, FRAMES)  # through the ball
    both = {"ball": pose, "screen": path}
    assert judged([ball(), panel], both, np.ones((FRAMES, 2), bool)).sum() == 0


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("principle", PRINCIPLES)
def test_legal_videos_count_nothing_and_impossible_ones_do_in_every_principle(principle, condition):
    config = GenerateConfig(frames=FRAMES)
    for number in range(4):
        job = Job("probe", "test", "probe", principle, condition, number)
        plan = next(filter(None, (_plan(config, job, attempt) for attempt in range(40))))
        named = [(thing.name, thing.kind) for thing in plan.things]
        total = {
            name: violations(plan.xml(), named, track.pose, track.present, 16).sum()
            for name, track in plan.all_tracks().items()
        }
        for name in ("AB", "BA") if plan.design == "splice" else ("12", "21"):
            for twin in TWINS[name]:
                assert total[twin] < 0.2, (plan.variant, total)
                assert total[name] > total[twin] + 0.1, (plan.variant, total)


def _plan(config, job, attempt):
    try:
        return plan_of(job, ask_of(config, job), numpy_generator(0, *job.names, attempt))
    except Rejected:
        return None
