"""Pictures of tracks: frames and segmentations, equal states drawn once."""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ..rendering import Renderer, load_mujoco
from .stage import CAMERA
from .track import Track

AWAY = np.array([0.0, -60.0, -60.0, 1.0, 0.0, 0.0, 0.0])
"""Where absent things are parked: behind the camera and below the floor."""


class Painter:
    """Draws the tracks of one scene, from the MJCF of :func:`.stage.drawing_xml`.

    Args:
        xml: the MJCF. things: names in the order of the tracks. size: of the frames, in pixels.
    """

    def __init__(self, xml: str, things: Sequence[str], size: int):
        mj = load_mujoco()
        self._mj, self.things, self.size = mj, tuple(things), size
        self._model = mj.MjModel.from_xml_string(xml)
        self._data = mj.MjData(self._model)
        mj.mj_forward(self._model, self._data)
        body = int(mj.mjtObj.mjOBJ_BODY)
        ids = [mj.mj_name2id(self._model, body, name) for name in (CAMERA, *self.things)]
        self._mocap = self._model.body_mocapid[ids]
        self._diffuse = self._model.light_diffuse.copy()
        self._ambient = self._model.light_ambient.copy()
        self._owner = np.full(self._model.ngeom + 1, -1, np.int32)  # the last entry: no geom
        for number, name in enumerate(self.things):
            geoms = self._model.geom_bodyid == mj.mj_name2id(self._model, body, name)
            self._owner[:-1][geoms] = number

    def frames(self, tracks: Sequence[Track]) -> list[np.ndarray]:
        """Each track as uint8 [T, H, W, 3]. Equal states, also in two tracks, are drawn once."""
        return self._each(tracks, lambda canvas: canvas.render(self._model, self._data))

    def owners(self, tracks: Sequence[Track]) -> list[np.ndarray]:
        """Each track as int8 [T, H, W]: the number of the thing that shows, -1 for none."""
        return self._each(tracks, lambda canvas: self._owner_of(canvas))

    def depth(self, track: Track) -> np.ndarray:
        """Distance along the camera's axis in metres: float32 [T, H, W]."""
        return self._each([track], lambda canvas: canvas.depth(self._model, self._data))[0]

    def _each(
        self, tracks: Sequence[Track], draw: Callable[[_Canvas], np.ndarray]
    ) -> list[np.ndarray]:
        canvas = _canvas(self.size, self._model)
        rows = np.concatenate([track.rows() for track in tracks])
        states, index = np.unique(rows, axis=0, return_inverse=True)
        pictures = []
        for row in states:
            self._set(row)
            pictures.append(draw(canvas))
        stacked = np.stack(pictures)[index.reshape(-1)]
        ends = np.cumsum([track.frames for track in tracks])[:-1]
        return [np.ascontiguousarray(part) for part in np.split(stacked, ends)]

    def _set(self, row: np.ndarray) -> None:
        mj, things = self._mj, row[8:].reshape(-1, 8)
        poses = np.where(things[:, 7:] > 0, things[:, :7], AWAY)
        poses = np.concatenate([row[None, :7], poses])
        self._data.mocap_pos[self._mocap] = poses[:, :3]
        self._data.mocap_quat[self._mocap] = poses[:, 3:]
        self._model.light_diffuse[:] = self._diffuse * row[7]
        self._model.light_ambient[:] = self._ambient * row[7]
        mj.mj_kinematics(self._model, self._data)
        mj.mj_camlight(self._model, self._data)

    def _owner_of(self, canvas: _Canvas) -> np.ndarray:
        return self._owner[canvas.segment(self._model, self._data)].astype(np.int8)


class _Canvas(Renderer):
    """A renderer that takes one model after another, and can also say which geom each pixel shows
    and how far it is. A new OpenGL context would cost forty times as much as a new model."""

    def take(self, model) -> None:
        """Draw ``model`` from now on."""
        mj = sys.modules["mujoco"]
        self._context.make_current()
        self._gpu.free()
        model.vis.global_.offwidth = max(model.vis.global_.offwidth, self.width)
        model.vis.global_.offheight = max(model.vis.global_.offheight, self.height)
        self._gpu = mj.MjrContext(model, int(mj.mjtFontScale.mjFONTSCALE_100))
        mj.mjr_setBuffer(int(mj.mjtFramebuffer.mjFB_OFFSCREEN), self._gpu)
        self._scene = mj.MjvScene(model, maxgeom=model.ngeom + model.nsite + 16)
        self._camera.fixedcamid = model.camera(CAMERA).id

    def segment(self, model, data) -> np.ndarray:
        """Geom ids int32 [H, W], -1 where there is none."""
        mj = sys.modules["mujoco"]
        with self._flags(int(mj.mjtRndFlag.mjRND_SEGMENT), int(mj.mjtRndFlag.mjRND_IDCOLOR)):
            colour = self.render(model, data).astype(np.int32)
        label = colour[..., 0] + (colour[..., 1] << 8) + (colour[..., 2] << 16)
        table = np.full(self._scene.ngeom + 1, -1, np.int32)
        for geom in self._scene.geoms[: self._scene.ngeom]:
            if geom.objtype == mj.mjtObj.mjOBJ_GEOM and geom.segid >= 0:
                table[geom.segid + 1] = geom.objid
        return table[label]

    def depth(self, model, data) -> np.ndarray:
        """Metres along the camera's axis, float32 [H, W]."""
        mj = sys.modules["mujoco"]
        self.render(model, data)
        buffer = np.empty((self.height, self.width), np.float32)
        mj.mjr_readPixels(None, buffer, self._rect, self._gpu)
        extent = model.stat.extent
        near, far = model.vis.map.znear * extent, model.vis.map.zfar * extent
        if getattr(self._gpu, "readDepthMap", 0) == int(mj.mjtDepthMap.mjDEPTH_ZERONEAR):
            return (near / (1.0 - buffer * (1.0 - near / far)))[::-1].copy()
        return (near / (1.0 - (1.0 - buffer) * (1.0 - near / far)))[::-1].copy()

    @contextmanager
    def _flags(self, *flags: int) -> Iterator[None]:
        before = [self._scene.flags[flag] for flag in flags]
        for flag in flags:
            self._scene.flags[flag] = 1
        try:
            yield
        finally:
            for flag, value in zip(flags, before, strict=True):
                self._scene.flags[flag] = value


_canvases: dict[tuple[int, int], tuple[_Canvas, Any]] = {}


def _canvas(size: int, model: Any) -> _Canvas:
    """This process's one canvas of ``size`` pixels, set to draw ``model``."""
    key = (os.getpid(), size)
    canvas, holds = _canvases.get(key, (None, None))
    if canvas is None:
        canvas = _Canvas(model, size, camera=CAMERA)
        atexit.register(canvas.close)
    elif holds is not model:
        canvas.take(model)
    _canvases[key] = (canvas, model)
    return canvas
