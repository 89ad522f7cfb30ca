"""Back ends: chosen by trying, refused with reasons, and one renderer for many environments."""

import os
import subprocess
import sys

import numpy as np
import pytest

from tubelet import envs
from tubelet.core.errors import RenderError
from tubelet.envs import rendering
from tubelet.envs.base import load_model

PROBE = "from tubelet.envs.rendering import probe_gl; print(probe_gl()[0])"


def probe(code=PROBE, **environ):
    """Run ``code`` in a fresh process, with no GL settings but the given ones."""
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("MUJOCO", "PYOPENGL", "TUBE"))
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environ, capture_output=True, text=True
    )


def test_probe_draws_a_frame():
    name, frame = rendering.probe_gl()
    assert name in ("egl", "osmesa", "cgl", "glfw")
    assert frame.dtype == np.uint8
    assert frame.shape == (64, 64, 3)
    red, green, blue = frame[32, 32].astype(int)
    assert green > red
    assert green > blue
    assert frame[0, 0].max() < 30


def test_works_whether_or_not_mujoco_was_imported_first():
    assert probe().stdout.strip() == rendering.gl_backend()
    assert probe("import mujoco\n" + PROBE).stdout.strip() == rendering.gl_backend()


def test_mujocos_own_renderer_works_after_load_mujoco():
    code = (
        "from tubelet.envs.rendering import load_mujoco; mj = load_mujoco();"
        "mj.Renderer(mj.MjModel.from_xml_string('<mujoco/>'), 16, 16).render(); print('drawn')"
    )
    assert probe(code).stdout.strip() == "drawn"


@pytest.mark.parametrize("wanted", ["nonsense", "off"])
def test_an_explicit_choice_never_falls_through(wanted):
    run = probe(MUJOCO_GL=wanted)
    assert run.returncode != 0
    assert "RenderError" in run.stderr
    assert f"MUJOCO_GL={wanted!r}" in run.stderr


def test_failure_lists_every_back_end_and_the_remedy(monkeypatch):
    """With no EGL device, both fail or OSMesa takes over; never a crash without advice."""
    run = probe(__EGL_VENDOR_LIBRARY_FILENAMES="/nonexistent")
    if run.returncode == 0:
        assert run.stdout.strip() == "osmesa"
    else:
        assert "egl: " in run.stderr
        assert "osmesa: " in run.stderr
        assert "apt-get install" in run.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="GLFW draws without a display elsewhere")
def test_a_window_system_without_a_display_is_refused_with_advice():
    run = probe(MUJOCO_GL="glfw", DISPLAY="", WAYLAND_DISPLAY="")
    assert run.returncode != 0
    last = run.stderr[run.stderr.rindex("tubelet.core.errors.RenderError") :]
    assert "glfw: " in last
    assert "Unset MUJOCO_GL=glfw" in last


def test_environments_share_one_renderer_per_size():
    first, second = envs.make("tubelet/Reacher-v0"), envs.make("tubelet/Reacher-v0")
    model = load_model("reacher.xml")
    assert first.model is second.model is model
    renderer = rendering.shared_renderer(model, 64)
    assert renderer is rendering.shared_renderer(model, 64)
    assert renderer is not rendering.shared_renderer(model, 32)


def test_renderers_do_not_disturb_each_other():
    reacher, maze = envs.make("tubelet/Reacher-v0"), envs.make("tubelet/PointMaze-v0")
    states = (
        reacher.sample_state(np.random.default_rng(0)),
        maze.sample_state(np.random.default_rng(0)),
    )
    before = reacher.render_state(states[0]), maze.render_state(states[1])
    big = envs.make("tubelet/Reacher-v0", image_size=224).render_state(states[0])
    assert big.shape == (224, 224, 3)
    assert np.array_equal(reacher.render_state(states[0]), before[0])
    assert np.array_equal(maze.render_state(states[1]), before[1])


def test_scenes_are_drawn_without_shadows_or_multisampling():
    for env_id in envs.ENVIRONMENTS:
        model = envs.make(env_id).model
        assert model.vis.quality.shadowsize == 0
        assert model.vis.quality.offsamples == 0
        assert not model.light_castshadow.any()


def test_closing_twice_and_unknown_cameras():
    model = load_model("reacher.xml")
    with rendering.Renderer(model, 32) as renderer:
        pass
    renderer.close()
    with pytest.raises(RenderError, match="no camera named 'side'"):
        rendering.Renderer(model, 32, camera="side")
