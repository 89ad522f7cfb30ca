"""Point clouds: surfaces against their equations, the public layouts, what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.rng import numpy_generator
from tubelet.datasets.labelled import LabelledSet, shuffled
from tubelet.datasets.points import (
    PrimitivesConfig,
    fault,
    generate_points,
    normalised,
    read_points,
)
from tubelet.datasets.primitives import CAPSULE, SOLIDS, TORUS, mesh


def plane_distance(x, corners):
    """Signed distance of points from the plane through three corners."""
    a, b, c = np.array(corners, float)
    normal = np.cross(b - a, c - a)
    return (x - a) @ normal / np.linalg.norm(normal)


def off_surface(name, x):
    """How far each point is from lying on the solid's surface, from the surface's equation."""
    r, z = np.hypot(x[:, 0], x[:, 1]), x[:, 2]
    if name == "sphere":
        return np.abs(np.linalg.norm(x, axis=1) - 1)
    if name == "box":
        return np.abs(np.abs(x).max(axis=1) - 1)
    if name == "cylinder":
        return np.minimum(np.abs(r - 1) + (np.abs(z) > 1 + 1e-9), np.abs(np.abs(z) - 1) + (r > 1))
    if name == "cone":
        return np.minimum(np.abs(r - (1 - z) / 2), np.abs(z + 1) + (r > 1 + 1e-9))
    if name == "torus":
        return np.abs(np.hypot(r - TORUS[0], z) - TORUS[1])
    if name == "capsule":
        beyond = np.maximum(np.abs(z) - CAPSULE[1], 0)
        return np.abs(np.hypot(r, beyond) - CAPSULE[0])
    tip = (0, 0, 1)
    faces = {
        "pyramid": [
            [(-1, -1, -1), (1, -1, -1), tip],
            [(1, -1, -1), (1, 1, -1), tip],
            [(1, 1, -1), (-1, 1, -1), tip],
            [(-1, 1, -1), (-1, -1, -1), tip],
            [(-1, -1, -1), (1, -1, -1), (1, 1, -1)],
        ],
        "tetrahedron": [
            [(1, 1, 1), (1, -1, -1), (-1, 1, -1)],
            [(1, 1, 1), (1, -1, -1), (-1, -1, 1)],
            [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)],
            [(1, -1, -1), (-1, 1, -1), (-1, -1, 1)],
        ],
    }[name]
    return np.abs(np.stack([plane_distance(x, face) for face in faces])).min(axis=0)


@pytest.mark.parametrize("name", SOLIDS)
def test_points_lie_on_the_surface_and_all_over_it(name):
    x = SOLIDS[name](np.random.default_rng(0), 4000)
    assert x.shape == (4000, 3)
    assert off_surface(name, x).max() < 1e-9
    for axis in range(3):
        assert (x[:, axis] > 0.1).any()
        assert (x[:, axis] < -0.1).any()


def share(name, inside, n=40_000):
    x = SOLIDS[name](np.random.default_rng(1), n)
    return inside(x).mean()


def test_surfaces_are_sampled_by_area():
    """Shares that follow from areas: a sphere's caps (Archimedes), a cylinder's lids, a cone's
    base, a torus's outer half, a box's faces."""
    assert share("sphere", lambda x: x[:, 2] > 0.5) == pytest.approx(0.25, abs=0.01)
    lid = share("cylinder", lambda x: np.abs(x[:, 2]) >= 1 - 1e-12)
    assert lid == pytest.approx(1 / 3, abs=0.01)
    base = share("cone", lambda x: x[:, 2] <= -1 + 1e-12)
    assert base == pytest.approx(1 / (1 + np.sqrt(5)), abs=0.01)
    outer = share("torus", lambda x: np.hypot(x[:, 0], x[:, 1]) > TORUS[0])
    assert outer == pytest.approx(0.5 + TORUS[1] / (np.pi * TORUS[0]), abs=0.01)
    face = share("box", lambda x: x[:, 0] >= 1 - 1e-12)
    assert face == pytest.approx(1 / 6, abs=0.01)
    straight = share("capsule", lambda x: np.abs(x[:, 2]) < CAPSULE[1])
    assert straight == pytest.approx(CAPSULE[1] / (CAPSULE[1] + CAPSULE[0]), abs=0.01)


def test_a_mesh_is_sampled_by_area():
    corners = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 5], [3, 0, 5], [0, 1, 5.0]])
    x = mesh(corners, [(0, 1, 2), (3, 4, 5)])(np.random.default_rng(0), 20_000)
    assert (x[:, 2] > 4).mean() == pytest.approx(0.75, abs=0.01)
    low = x[x[:, 2] < 1]
    np.testing.assert_allclose(low[:, :2].mean(axis=0), [1 / 3, 1 / 3], atol=0.02)


def test_generated_clouds_are_functions_of_seed_and_number():
    made = generate_points(PrimitivesConfig(count=20, points=100, seed=3))
    assert made.samples.shape == (20, 100, 3)
    assert made.samples.dtype == np.float32
    assert made.labels.tolist() == [i % 8 for i in range(20)]
    fewer = generate_points(PrimitivesConfig(count=5, points=100, seed=3))
    np.testing.assert_array_equal(fewer.samples, made.samples[:5])
    other = generate_points(PrimitivesConfig(count=5, points=100, seed=4))
    assert np.abs(other.samples - fewer.samples).max() > 0.1


def test_clean_whole_upright_clouds_are_their_solids():
    """Without stretch, cut and noise: a torus, whatever its size and turn, keeps its ratio."""
    config = PrimitivesConfig(
        count=8, points=3000, stretch=(1, 1), keep=(1, 1), noise=0, rotate="upright"
    )
    made = generate_points(config)
    x = made.samples[made.classes.index("torus")]
    r = np.hypot(x[:, 0], x[:, 1])
    ring = (r.max() + r.min()) / 2
    tube = np.hypot(r - ring, x[:, 2])
    np.testing.assert_allclose(tube / ring, TORUS[1] / TORUS[0], atol=0.05)
    assert np.linalg.norm(made.samples, axis=-1).max(axis=1) == pytest.approx(1, abs=1e-5)


def test_a_cut_leaves_one_side_of_a_plane():
    """Of a sphere with half its area kept, what is left fits in a half space: its mean is half a
    radius from the middle of the sphere."""
    config = PrimitivesConfig(
        count=1, points=4000, stretch=(1, 1), keep=(0.5, 0.5), noise=0, rotate="any"
    )
    x = generate_points(config).samples[0]
    # Solve |x - c|^2 = r^2 for the sphere that was cut.
    a = np.column_stack([2 * x, np.ones(len(x))])
    c = np.linalg.lstsq(a, (x**2).sum(axis=1), rcond=None)[0]
    radius = np.sqrt(c[3] + c[:3] @ c[:3])
    np.testing.assert_allclose(np.linalg.norm(x - c[:3], axis=1), radius, rtol=1e-3)
    assert np.linalg.norm(c[:3]) / radius == pytest.approx(0.5, abs=0.02)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 30), st.integers(1, 40), st.integers(0, 20), st.integers(0, 5))
def test_every_epoch_is_an_order_of_all(count, batch, step, seed):
    rows = np.concatenate([shuffled(count, batch, s, seed) for s in range(step + 1)])
    for start in range(0, len(rows) - count + 1, count):
        assert sorted(rows[start : start + count]) == list(range(count))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": 0}, "count = 0"),
        ({"stretch": (0, 1)}, "stretch"),
        ({"keep": (0.5, 1.1)}, "keep"),
        ({"rotate": "some"}, "rotate"),
        ({"noise": -1}, "noise"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        PrimitivesConfig(**change)


def test_faults_are_named():
    x = np.zeros((10, 3))
    assert fault(x, 10) is None
    assert fault(x, 11) == "10 points, fewer than 11"
    x[4, 1] = np.nan
    assert fault(x, 10) == "1 of 10 points are not finite, the first is number 4"
    assert "not [P, 3]" in str(fault(np.zeros((10, 2)), 1))


# --- the public layouts ------------------------------------------------------------------------


def blob(seed, n=50):
    return np.random.default_rng(seed).normal(size=(n, 3))


def h5(root):
    h5py = pytest.importorskip("h5py")
    (root / "shape_names.txt").write_text("airplane\nbathtub\n")
    (root / "train_files.txt").write_text("data/modelnet40_ply_hdf5_2048/ply_data_train0.h5\n")
    with h5py.File(root / "ply_data_train0.h5", "w") as file:
        file["data"] = np.stack([blob(i) for i in range(3)]).astype(np.float32)
        file["label"] = np.array([[0], [1], [1]], np.uint8)
    return 3, ("airplane", "bathtub"), [0, 1, 1]


def text(root):
    (root / "modelnet40_shape_names.txt").write_text("chair\nnight_stand\n")
    (root / "modelnet40_train.txt").write_text("night_stand_0001\nchair_0002\n")
    for number, name in enumerate(("night_stand_0001", "chair_0002")):
        folder = root / name.rpartition("_")[0]
        folder.mkdir()
        normals = np.tile([0, 0, 1.0], (50, 1))
        np.savetxt(folder / f"{name}.txt", np.hstack([blob(number), normals]), delimiter=",")
    return 2, ("chair", "night_stand"), [1, 0]


OFF = "OFF\n4 2 0\n0 0 0\n1 0 0\n1 1 0\n0 1 0\n4 0 1 2 3\n3 0 1 2\n"


def off(root):
    for kind, header in (("sofa", OFF), ("bed", OFF.replace("OFF\n", "OFF"))):
        (root / kind / "train").mkdir(parents=True)
        (root / kind / "train" / f"{kind}_0001.off").write_text(header)
    return 2, ("bed", "sofa"), [0, 1]


def shapenet(root):
    (root / "ShapeNet-55").mkdir()
    (root / "shapenet_pc").mkdir()
    names = ("02691156-aa.npy", "03001627-bb.npy")
    (root / "ShapeNet-55" / "train.txt").write_text("\n".join(names) + "\n")
    (root / "ShapeNet-55" / "test.txt").write_text("02747177-cc.npy\n")
    for number, name in enumerate(names):
        np.save(root / "shapenet_pc" / name, blob(number))
    return 2, ("02691156", "02747177", "03001627"), [0, 2]


@pytest.mark.parametrize("make", [h5, text, off, shapenet])
def test_public_layouts_are_read(make, tmp_path):
    count, classes, labels = make(tmp_path)
    found = read_points(tmp_path, points=40)
    assert found.samples.shape == (count, 40, 3)
    assert found.classes == classes
    assert found.labels.tolist() == labels
    assert found.refused == ()
    np.testing.assert_allclose(found.samples.mean(axis=1), 0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found.samples, axis=-1).max(axis=1), 1, rtol=1e-5)
    again = read_points(tmp_path, points=40)
    np.testing.assert_array_equal(again.samples, found.samples)


def test_the_points_are_those_of_the_file(tmp_path):
    shapenet(tmp_path)
    found = read_points(tmp_path, points=50)
    rows = numpy_generator(0, "points", "02691156-aa").permutation(50)
    np.testing.assert_allclose(found.samples[0], normalised(blob(0)[rows]), atol=1e-6)


def test_meshes_are_sampled_face_by_face(tmp_path):
    """A unit square (fanned into two triangles) and one of its halves again: flat, as wide as high,
    with two thirds of the points in that half."""
    off(tmp_path)
    cloud = read_points(tmp_path, points=3000).samples[0]
    assert np.abs(cloud[:, 2]).max() == 0
    x, y = ((cloud[:, k] - cloud[:, k].min()) / np.ptp(cloud[:, k]) for k in (0, 1))
    assert np.ptp(cloud[:, 0]) == pytest.approx(np.ptp(cloud[:, 1]), rel=0.03)
    assert (x > y).mean() == pytest.approx(2 / 3, abs=0.03)


def test_bad_clouds_are_left_out_by_name_and_too_many_refuse_the_set(tmp_path):
    shapenet(tmp_path)
    bad = blob(5)
    bad[7, 2] = np.nan
    np.save(tmp_path / "shapenet_pc" / "03001627-bb.npy", bad)
    with pytest.raises(DatasetError, match=r"1 of 2 samples are bad .*03001627-bb: 1 of 50 points"):
        read_points(tmp_path, points=40)
    found = read_points(tmp_path, points=40, max_bad_share=0.5)
    assert found.names == ("02691156-aa",)
    assert found.refused[0][0] == "03001627-bb"
    assert "03001627-bb: 1 of 50 points are not finite" in found.report()
    with pytest.raises(DatasetError, match="50 points, fewer than 60"):
        read_points(tmp_path, points=60, max_bad_share=0.5)


def test_damaged_files_are_named(tmp_path):
    off(tmp_path)
    (tmp_path / "bed" / "train" / "bed_0001.off").write_text("OFF\n4 1 0\n0 0\n")
    (tmp_path / "sofa" / "train" / "sofa_0001.off").write_text("ply\n")
    with pytest.raises(DatasetError, match=r"bed_0001: cannot be read.*sofa_0001: no OFF header"):
        read_points(tmp_path)


def test_unknown_layouts_are_refused(tmp_path):
    with pytest.raises(DatasetError, match=r"no known layout .*modelnet40_train.txt"):
        read_points(tmp_path)


def test_sets_that_contradict_themselves_are_refused():
    whole = {"classes": ("a",), "names": ("x",)}
    with pytest.raises(DatasetError, match="labels from 1 to 1, for 1 classes"):
        LabelledSet(samples=np.zeros((1, 2), np.float32), labels=np.ones(1, int), **whole)
    with pytest.raises(ConfigError, match="2 samples, 1 labels"):
        LabelledSet(samples=np.zeros((2, 2), np.float32), labels=np.ones(1, int), **whole)
    with pytest.raises(ConfigError, match="float64"):
        LabelledSet(samples=np.zeros((1, 2)), labels=np.zeros(1, int), **whole)
