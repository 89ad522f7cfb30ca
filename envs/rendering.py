"""Off-screen rendering on whatever OpenGL the machine has: a GPU or software, never a window.

Importing this module touches nothing. The first :class:`Renderer` of a process picks the back end
by trying: EGL, then OSMesa on Linux (``MUJOCO_GL=egl|osmesa|glfw`` forces one); CGL on macOS, GLFW
on Windows. Speed comes from the scenes, not from here: with a 4096² shadow map and 4x multisampling
(MuJoCo's defaults) software OpenGL spends 99 % of its time on both, so every scene of this package
says ``<quality shadowsize="0" offsamples="0"/>`` and ``castshadow="false"``.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib
import os
import platform
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from ..core.errors import RenderError

MjModel = Any  # MuJoCo ships no type stubs for its compiled classes
MjData = Any

_BACKENDS = ("egl", "osmesa", "glfw", "cgl")
_LIBRARIES = {"egl": "libEGL.so.1", "osmesa": "libOSMesa.so.8"}
_INSTALL = {
    "Linux": "sudo apt-get update && sudo apt-get install -y --no-install-recommends libegl1 "
    "libgl1 libosmesa6   (Fedora: sudo dnf install -y mesa-libEGL mesa-libOSMesa)",
    "Darwin": "pip install --force-reinstall mujoco pyopengl",
    "Windows": "pip install --force-reinstall mujoco glfw",
}


def load_mujoco() -> ModuleType:
    """Import ``mujoco`` with the environment it needs to draw without a display.

    Only unset variables are filled in: ``LP_NUM_THREADS=0`` (no thread pool in Mesa's software
    rasteriser: tiny images are faster without, and collection already runs one process per core)
    and, before the first import, ``MUJOCO_GL`` (so that ``mujoco.Renderer`` works as well).

    Raises:
        RenderError: ``MUJOCO_GL`` names a back end whose library is missing (MuJoCo then refuses to
            be imported at all).
    """
    if "mujoco" in sys.modules:
        return sys.modules["mujoco"]
    os.environ.setdefault("LP_NUM_THREADS", "0")
    if "MUJOCO_GL" not in os.environ and platform.system() == "Linux":
        present = [name for name, library in _LIBRARIES.items() if _loads(library)]
        if present:
            os.environ.update(MUJOCO_GL=present[0], TUBELET_GL_AUTO="1")
    try:
        return importlib.import_module("mujoco")
    except (AttributeError, RuntimeError) as error:  # how PyOpenGL and MuJoCo say it
        wanted = os.environ.get("MUJOCO_GL")
        raise RenderError(
            f"MUJOCO_GL={wanted!r} keeps MuJoCo from being imported ({error}). Unset it, or "
            f"use one of {', '.join(_BACKENDS)}. {_advice()}"
        ) from error


@dataclass(frozen=True, kw_only=True)
class FreeCamera:
    """A view that is no camera of the scene.

    Attributes:
        lookat: the point in the middle of the picture, metres. distance: from it, metres.
        azimuth, elevation: where the camera looks, degrees.
    """

    lookat: tuple[float, ...]
    distance: float
    azimuth: float = 90.0
    elevation: float = -45.0


class Renderer:
    """Draws one model's scenes from one camera into uint8 arrays.

    Belongs to the thread that made it. Frames are deterministic: equal positions give equal pixels.

    Args:
        model: the compiled model. height, width: the frame in pixels. camera: its name, or a view
            of its own.

    Raises:
        RenderError: no OpenGL back end works (the message lists each and what to install), or the
            model has no such camera.
    """

    def __init__(
        self,
        model: MjModel,
        height: int,
        width: int | None = None,
        camera: str | FreeCamera = "top",
    ):
        mj = load_mujoco()
        self.height, self.width = height, height if width is None else width
        self._context: Any = _gl_context(self.width, self.height)
        self._context.make_current()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        self._gpu = mj.MjrContext(model, int(mj.mjtFontScale.mjFONTSCALE_100))
        mj.mjr_setBuffer(int(mj.mjtFramebuffer.mjFB_OFFSCREEN), self._gpu)
        self._scene = mj.MjvScene(model, maxgeom=model.ngeom + model.nsite + 16)
        self._option = mj.MjvOption()
        self._option.sitegroup[:] = 0
        self._camera = _mjv_camera(model, camera)
        self._everything = int(mj.mjtCatBit.mjCAT_ALL)
        self._rect = mj.MjrRect(0, 0, self.width, self.height)
        self._flipped = np.empty((self.height, self.width, 3), np.uint8)

    def render(self, model: MjModel, data: MjData) -> np.ndarray:
        """The camera's view of ``data`` as a new uint8 ``[height, width, 3]``, top row first.

        Body, camera and light positions must be current (``mj_kinematics`` and ``mj_camlight``).
        """
        mj = sys.modules["mujoco"]
        self._context.make_current()
        mj.mjv_updateScene(
            model, data, self._option, None, self._camera, self._everything, self._scene
        )
        mj.mjr_render(self._rect, self._scene, self._gpu)
        mj.mjr_readPixels(self._flipped, None, self._rect, self._gpu)
        return self._flipped[::-1].copy()

    def close(self) -> None:
        """Free the OpenGL objects. Closing twice is harmless."""
        if self._context is not None:
            self._context.make_current()
            self._gpu.free()
            self._context.free()
            self._context = None

    def __enter__(self) -> Renderer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def shared_renderer(model: MjModel, size: int, camera: str | FreeCamera = "top") -> Renderer:
    """This process's one square renderer of ``size`` pixels for ``model``, made on first use.

    Many environments of one kind share it, so a batch of a hundred costs one OpenGL context.
    Closed when the process exits.
    """
    key = (os.getpid(), id(model), size, camera)
    if key not in _shared:
        renderer = Renderer(model, size, size, camera)
        atexit.register(renderer.close)
        _shared[key] = (renderer, model)  # holds the model, so its id stays its own
    return _shared[key][0]


def gl_backend() -> str:
    """The name of the OpenGL back end in use; tries them if none is chosen yet.

    Raises:
        RenderError: none works.
    """
    return _choose_backend()[0]


def probe_gl(size: int = 64) -> tuple[str, np.ndarray]:
    """Render a small test scene: (back end, uint8 frame ``[size, size, 3]``).

    Raises:
        RenderError: no back end works, or it draws nothing.
    """
    mj = load_mujoco()
    name = gl_backend()
    model = mj.MjModel.from_xml_string(_PROBE_SCENE)
    data = mj.MjData(model)
    mj.mj_forward(model, data)
    with Renderer(model, size) as renderer:
        frame = renderer.render(model, data)
    if not frame[size // 2, size // 2].any():
        raise RenderError(f"the {name} back end opens but draws only black. {_advice()}")
    return name, frame


_shared: dict[tuple[int, int, int, str | FreeCamera], tuple[Renderer, Any]] = {}

_PROBE_SCENE = """
<mujoco>
  <visual><quality shadowsize="0" offsamples="0"/></visual>
  <worldbody>
    <light directional="true" pos="0 0 1" dir="0 0 -1" castshadow="false"/>
    <camera name="top" pos="0 0 1" fovy="45"/>
    <geom type="sphere" size="0.2" rgba="0.2 0.7 0.3 1"/>
  </worldbody>
</mujoco>
"""


def _mjv_camera(model: MjModel, camera: str | FreeCamera) -> Any:
    mj = load_mujoco()
    view = mj.MjvCamera()
    if isinstance(camera, str):
        view.type = int(mj.mjtCamera.mjCAMERA_FIXED)
        view.fixedcamid = mj.mj_name2id(model, int(mj.mjtObj.mjOBJ_CAMERA), camera)
        if view.fixedcamid < 0:
            raise RenderError(f"the model has no camera named {camera!r}")
        return view
    view.type = int(mj.mjtCamera.mjCAMERA_FREE)
    view.lookat[:] = camera.lookat
    view.distance, view.azimuth, view.elevation = camera.distance, camera.azimuth, camera.elevation
    return view


def _gl_context(width: int, height: int) -> Any:
    return _choose_backend()[1](width, height)


@functools.cache
def _choose_backend() -> tuple[str, Any]:
    """The first back end that opens a context, and its context class."""
    load_mujoco()
    reasons: dict[str, str] = {}
    for name in _candidates(os.environ):
        try:
            context_class = importlib.import_module(f"mujoco.{name}").GLContext
            context = context_class(16, 16)
            context.make_current()
            _check_context()
            context.free()
        except Exception as error:  # PyOpenGL fails in many ways; each is a reason to report
            reasons[name] = f"{type(error).__name__}: {error}"
            _forget_opengl(name)
            continue
        if os.environ.get("TUBELET_GL_AUTO"):
            os.environ["MUJOCO_GL"] = name
        return name, context_class
    tried = "\n".join(f"  {name}: {reason}" for name, reason in reasons.items())
    forced = os.environ.get("MUJOCO_GL") if not os.environ.get("TUBELET_GL_AUTO") else None
    choice = f"Unset MUJOCO_GL={forced} to let others be tried. " if forced else ""
    raise RenderError(f"no headless OpenGL works here. Tried:\n{tried}\n{choice}{_advice()}")


def _check_context() -> None:
    """Raise unless MuJoCo can draw with the current context: GLFW without a display only warns."""
    mj = load_mujoco()
    model = mj.MjModel.from_xml_string(_PROBE_SCENE)
    mj.MjrContext(model, int(mj.mjtFontScale.mjFONTSCALE_50)).free()


def _candidates(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Back ends to try in order: the user's explicit choice alone, else the platform's."""
    wanted = environ.get("MUJOCO_GL", "").lower().strip()
    if wanted and not environ.get("TUBELET_GL_AUTO"):
        if wanted not in _BACKENDS:
            raise RenderError(
                f"MUJOCO_GL={wanted!r} cannot render off screen: unset it, or set it to one of "
                f"{', '.join(_BACKENDS)}"
            )
        return (wanted,)
    return {"Darwin": ("cgl",), "Windows": ("glfw",)}.get(platform.system(), ("egl", "osmesa"))


def _forget_opengl(name: str) -> None:
    """Unload a failed back end: PyOpenGL binds to one platform when first imported."""
    for module in list(sys.modules):
        if module == "OpenGL" or module.startswith(("OpenGL.", f"mujoco.{name}")):
            del sys.modules[module]
    if os.environ.get("PYOPENGL_PLATFORM") == name:
        del os.environ["PYOPENGL_PLATFORM"]


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _advice() -> str:
    command = _INSTALL.get(platform.system(), _INSTALL["Linux"])
    return f"Install a software renderer with: {command}"
