"""Point clouds with classes: generated solids, and the layouts of ModelNet40 and ShapeNet55.

Clouds are centred and scaled into the unit ball. One with too few points, or a coordinate that is
no number, is refused by name; too many of these, and so is the set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

import numpy as np

from ..core.errors import ConfigError, DatasetError
from ..core.rng import numpy_generator
from .labelled import LabelledSet, collect
from .primitives import SOLIDS, mesh
from .robot_logs.hdf5 import open_h5, read

MAX_BAD_SHARE = 0.05
"""Share of a set's clouds that may be bad."""


@dataclass(frozen=True, kw_only=True)
class PrimitivesConfig:
    """Generated clouds: a solid, stretched, cut, turned and noisy."""

    count: int = 2000
    """Clouds; classes take turns."""
    points: int = 1024
    """Points of a cloud."""
    stretch: tuple[float, float] = (0.6, 1.4)
    """Range of the scale along each axis of the solid."""
    rotate: Literal["none", "upright", "any"] = "any"
    """Turned not at all, about the third axis, or any way."""
    keep: tuple[float, float] = (0.6, 1.0)
    """Range of the share of the surface that is seen: what lies beyond a random plane is cut."""
    noise: float = 0.02
    """Standard deviation added to each coordinate, after scaling into the unit ball."""
    seed: int = 0
    """Each cloud is a function of this and its number."""

    def __post_init__(self) -> None:
        for name in ("count", "points"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        if not 0 < self.stretch[0] <= self.stretch[1]:
            raise ConfigError(f"stretch = {self.stretch}: needs 0 < low <= high")
        if not 0 < self.keep[0] <= self.keep[1] <= 1:
            raise ConfigError(f"keep = {self.keep}: needs 0 < low <= high <= 1")
        if self.rotate not in ("none", "upright", "any"):
            raise ConfigError(f"rotate = {self.rotate!r}: choose none, upright or any")
        if self.noise < 0:
            raise ConfigError(f"noise = {self.noise}: must be 0 or more")


def generate_points(config: PrimitivesConfig) -> LabelledSet:
    """``count`` clouds float32 ``[count, points, 3]`` of the solids of :mod:`.primitives`."""
    names = tuple(SOLIDS)
    clouds = np.stack([_cloud(config, number) for number in range(config.count)])
    return LabelledSet(
        samples=clouds,
        labels=np.arange(config.count) % len(names),
        classes=names,
        names=tuple(f"cloud {number}" for number in range(config.count)),
    )


def _cloud(config: PrimitivesConfig, number: int) -> np.ndarray:
    draw = numpy_generator(config.seed, "primitives", number)
    solid = list(SOLIDS.values())[number % len(SOLIDS)]
    share = draw.uniform(*config.keep)
    scale = draw.uniform(*config.stretch, 3)
    x = solid(draw, int(np.ceil(config.points / share))) * scale
    direction = draw.standard_normal(3)
    x = x[np.argsort(x @ direction, kind="stable")[: config.points]]
    x = normalised(draw.permutation(x) @ _rotation(config, draw).T)
    return (x + draw.normal(scale=config.noise, size=x.shape)).astype(np.float32)


def _rotation(config: PrimitivesConfig, draw: np.random.Generator) -> np.ndarray:
    if config.rotate == "none":
        return np.eye(3)
    if config.rotate == "upright":
        angle = draw.uniform(0, 2 * np.pi)
        c, s = np.cos(angle), np.sin(angle)
        return np.array([[c, -s, 0], [s, c, 0], [0, 0, 1.0]])
    q, r = np.linalg.qr(draw.standard_normal((3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def normalised(cloud: np.ndarray) -> np.ndarray:
    """``cloud [P, 3]`` with its mean at the origin and its farthest point at distance 1."""
    centred = cloud - cloud.mean(axis=0)
    return centred / max(float(np.linalg.norm(centred, axis=1).max()), 1e-12)


def fault(cloud: np.ndarray, least: int) -> str | None:
    """What is wrong with a cloud that should be ``[P, 3]`` with P at least ``least``, or None."""
    if cloud.ndim != 2 or cloud.shape[1] != 3:
        return f"shape {list(cloud.shape)}, not [P, 3]"
    bad = ~np.isfinite(cloud).all(axis=1)
    if bad.any():
        return f"{bad.sum()} of {len(cloud)} points are not finite, the first is number " + str(
            int(bad.argmax())
        )
    if len(cloud) < least:
        return f"{len(cloud)} points, fewer than {least}"
    return None


def read_points(
    folder: str | os.PathLike[str],
    *,
    split: Literal["train", "test"] = "train",
    points: int = 1024,
    seed: int = 0,
    max_bad_share: float = MAX_BAD_SHARE,
) -> LabelledSet:
    """A public data set as float32 ``[M, points, 3]``, in whichever of these layouts it is:

    - ModelNet40 as HDF5 (``modelnet40_ply_hdf5_2048``: ``train_files.txt``, ``shape_names.txt``)
    - ModelNet40 as text (``modelnet40_normal_resampled``: ``modelnet40_train.txt``, one folder a
      class of ``x,y,z,…`` lines)
    - ModelNet as meshes (``class/train/*.off``), of which points are drawn
    - ShapeNet55 (``ShapeNet-55/train.txt``, ``shapenet_pc/*.npy``); labels are its synsets

    Args:
        points: of each cloud, drawn at random (from ``seed`` and the cloud's name) of what it has.

    Raises:
        DatasetError: none of these layouts, nothing usable, or more than ``max_bad_share`` bad.
    """
    root = Path(folder)
    for marker, reader in _LAYOUTS.items():
        if list(root.glob(marker.format(split=split))):
            classes, found = reader(root, split)
            return collect(
                _checked(found, points, seed),
                classes=classes,
                source=str(root),
                max_bad_share=max_bad_share,
            )
    known = ", ".join(marker.format(split=split) for marker in _LAYOUTS)
    raise DatasetError(f"{root} is in no known layout of point clouds: it has none of {known}")


Found = Iterator[tuple[str, np.ndarray | str, int]]


def _checked(found: Found, points: int, seed: int) -> Found:
    for name, cloud, label in found:
        reason = cloud if isinstance(cloud, str) else fault(cloud, points)
        if reason is not None or isinstance(cloud, str):
            yield name, str(reason), label
            continue
        rows = numpy_generator(seed, "points", name).permutation(len(cloud))[:points]
        yield name, normalised(cloud[rows].astype(np.float64)), label


def _modelnet_h5(root: Path, split: str) -> tuple[tuple[str, ...], Found]:
    classes = _lines(root / "shape_names.txt")
    files = [root / Path(line).name for line in _lines(root / f"{split}_files.txt")]

    def found() -> Found:
        for path in files:
            with open_h5(path) as file:
                clouds, labels = (read(file, key, path.name) for key in ("data", "label"))
            for number, (cloud, label) in enumerate(zip(clouds, labels.ravel(), strict=True)):
                yield f"{path.name}[{number}]", cloud[:, :3], int(label)

    return classes, found()


def _modelnet_text(root: Path, split: str) -> tuple[tuple[str, ...], Found]:
    ids = _lines(root / f"modelnet40_{split}.txt")
    names = root / "modelnet40_shape_names.txt"
    classes = (
        _lines(names) if names.exists() else tuple(sorted({i.rpartition("_")[0] for i in ids}))
    )

    def found() -> Found:
        for name in ids:
            kind = name.rpartition("_")[0]
            if kind not in classes:
                raise DatasetError(f"{root}: {name} is of no class in {names.name}")
            yield name, _text(root / kind / f"{name}.txt"), classes.index(kind)

    return classes, found()


def _modelnet_off(root: Path, split: str) -> tuple[tuple[str, ...], Found]:
    paths = sorted(root.glob(f"*/{split}/*.off"))
    classes = tuple(sorted({path.parts[-3] for path in paths}))

    def found() -> Found:
        for path in paths:
            yield path.stem, _off(path), classes.index(path.parts[-3])

    return classes, found()


def _shapenet(root: Path, split: str) -> tuple[tuple[str, ...], Found]:
    files = _lines(root / "ShapeNet-55" / f"{split}.txt")
    every = [
        line
        for part in ("train", "test")
        if (root / "ShapeNet-55" / f"{part}.txt").exists()
        for line in _lines(root / "ShapeNet-55" / f"{part}.txt")
    ]
    classes = tuple(sorted({Path(line).name.partition("-")[0] for line in every}))

    def found() -> Found:
        for line in files:
            path = root / "shapenet_pc" / Path(line).name
            yield path.stem, _npy(path), classes.index(path.name.partition("-")[0])

    return classes, found()


_LAYOUTS = {
    "{split}_files.txt": _modelnet_h5,
    "modelnet40_{split}.txt": _modelnet_text,
    "*/{split}/*.off": _modelnet_off,
    "ShapeNet-55/{split}.txt": _shapenet,
}


def _lines(path: Path) -> tuple[str, ...]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from error
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _text(path: Path) -> np.ndarray | str:
    try:
        return np.loadtxt(path, delimiter=",", ndmin=2)[:, :3]
    except (OSError, ValueError, IndexError) as error:
        return f"cannot be read: {error}"


def _npy(path: Path) -> np.ndarray | str:
    try:
        return np.load(path, allow_pickle=False)[:, :3]
    except (OSError, ValueError, IndexError) as error:
        return f"cannot be read: {error}"


def _off(path: Path, count: int = 8192) -> np.ndarray | str:
    """``count`` points of a mesh; the header's numbers may follow OFF without a space, as they do
    in some files of ModelNet40."""
    try:
        words = path.read_text(encoding="utf-8", errors="replace").split()
        if not words or not words[0].startswith("OFF"):
            return "no OFF header"
        words = [words[0][3:], *words[1:]] if len(words[0]) > 3 else words[1:]
        vertices, faces = int(words[0]), int(words[1])
        corners = np.array(words[3 : 3 + 3 * vertices], np.float64).reshape(vertices, 3)
        place, triangles = 3 + 3 * vertices, []
        for _ in range(faces):
            size = int(words[place])
            ring = [int(word) for word in words[place + 1 : place + 1 + size]]
            triangles += [(ring[0], a, b) for a, b in pairwise(ring[1:])]
            place += 1 + size
        if not np.isfinite(corners).all():
            return "a corner is not finite"
        return mesh(corners, triangles)(numpy_generator(0, "off", path.name), count)
    except (OSError, ValueError, IndexError) as error:
        return f"cannot be read: {error}"
