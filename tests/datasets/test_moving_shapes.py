import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.decode import open_video
from tubelet.datasets.synthetic import make
from tubelet.datasets.synthetic.make import (
    MovingShapesConfig,
    load_factors,
    make_moving_shapes,
)
from tubelet.datasets.synthetic.moving_shapes import (
    BARS,
    CLASSES,
    PAN,
    SPEEDS,
    Look,
    bars_cover,
    draw_scene,
    hidden_share,
    paint,
    shapes_cover,
)

SMALL = MovingShapesConfig(count=4, size=32, frames=6, seed=3)
STILL = ("camera", "occlusion")


def scene(number=0, *, height=64, width=64, seed=0, hold=()):
    return draw_scene(seed, number, height=height, width=width, hold=hold)


def find(hold=(), **labels):
    """The first scene with these labels."""
    for number in range(100_000):
        found = scene(number, hold=hold)
        if all(found.labels[name] == value for name, value in labels.items()):
            return found
    raise AssertionError(labels)


def test_factors_are_uniform_and_independent():
    labels = [scene(number).labels for number in range(1500)]
    drawn = {name: np.array([row[name] for row in labels]) for name in CLASSES}
    for name, classes in CLASSES.items():
        counts = np.bincount(drawn[name], minlength=len(classes))
        expected = len(labels) / len(classes)
        assert ((counts - expected) ** 2 / expected).sum() < 30, name  # chi-squared, 7 degrees
    for a, b in combinations(CLASSES, 2):
        assert abs(np.corrcoef(drawn[a], drawn[b])[0, 1]) < 0.11, (a, b)  # 4 standard errors


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([(64, 64), (48, 80), (240, 320)]))
def test_the_area_is_that_of_the_discs_and_nothing_touches(number, size):
    drawn = scene(number, height=size[0], width=size[1])
    for time in (0, 7.3):
        cover = shapes_cover(drawn, time)
        assert cover.max() <= 1 + 1e-9
        area = math.pi * (drawn.radii**2).sum()
        assert cover.sum() == pytest.approx(area, rel=0.06)


@pytest.mark.parametrize("name", CLASSES["direction"])
def test_shapes_move_as_their_labels_say(name):
    drawn = find(hold=STILL, direction=CLASSES["direction"].index(name), speed=2, count=0)
    y, x = np.mgrid[:64, :64] * 2j * np.pi / 64
    angles = []
    for time in (0, 4):  # the centre on the torus, by the first Fourier mode
        cover = shapes_cover(drawn, time)
        angles.append([np.angle((cover * np.exp(axis)).sum()) for axis in (y, x)])
    moved = np.diff(angles, axis=0)[0]
    moved = (moved + np.pi) % (2 * np.pi) - np.pi
    down, along = moved * 64 / (2 * np.pi) / 4
    assert math.hypot(down, along) == pytest.approx(64 * SPEEDS[2], rel=0.02)
    off = math.degrees(math.atan2(-down, along)) - float(name)
    assert (off + 180) % 360 == pytest.approx(180, abs=2)


def test_a_camera_that_goes_right_moves_everything_left():
    drawn = find(camera=CLASSES["camera"].index("right"), occlusion=0, speed=0)
    assert drawn.camera == pytest.approx([0, PAN * 64], abs=1e-9)
    bare = drawn.__class__(
        **{**drawn.__dict__, "radii": drawn.radii[:0], "places": np.empty((0, 2))}
    )
    whole = 1 / PAN / 64 * 8  # frames in which the view moves by 8 pixels
    np.testing.assert_array_equal(paint(bare, whole), np.roll(paint(bare, 0), -8, axis=1))
    assert (paint(bare, 1) != paint(bare, 0)).any()


def test_everything_comes_round_on_the_torus():
    drawn = find(camera=0, occlusion=0, direction=0, speed=3)
    period = 1 / SPEEDS[3]
    np.testing.assert_allclose(
        paint(drawn, period).astype(int), paint(drawn, 0).astype(int), atol=1
    )


@pytest.mark.parametrize("label", range(3))
def test_bars_hide_their_share(label):
    drawn = find(occlusion=label, direction=0, speed=3)
    assert bars_cover(drawn).mean() == pytest.approx(BARS[label], abs=0.02)
    hidden = hidden_share(drawn, 25)  # once round, so that bars see every part of the shapes
    if drawn.labels["camera"] == 0:
        assert hidden == pytest.approx(BARS[label], abs=0.02)
    assert (hidden == 0) == (label == 0)


def test_kinds_and_colours_look_different():
    images = {
        kind: shapes_cover(find(hold=STILL, shape=kind, count=0), 0).sum()
        / find(hold=STILL, shape=kind, count=0).radii[0] ** 2
        for kind in range(4)
    }
    assert max(images.values()) / min(images.values()) < 1.1  # not by area
    drawn = find(hold=STILL, colour=0, count=3)
    inside = shapes_cover(drawn, 0) == 1
    assert (paint(drawn, 0)[inside] == [242, 24, 24]).all()


def test_too_narrow_a_frame_is_refused():
    crowded = next(i for i in range(100) if scene(i).labels["count"] == 3)
    with pytest.raises(DatasetError, match="do not fit into 64x16"):
        scene(crowded, width=16)


def test_files_and_table_agree(tmp_path):
    factors = make_moving_shapes(tmp_path, SMALL, progress=False)
    index = index_corpus(tmp_path / "videos", progress=False)
    assert [entry.path for entry in index.entries] == list(factors.paths)
    assert {entry.num_frames for entry in index.entries} == {6}
    assert {entry.fps for entry in index.entries} == {16}
    assert factors.classes == CLASSES
    for number, path in enumerate(factors.paths):
        drawn = scene(number, height=32, width=32, seed=3)
        assert {name: factors.columns[name][number] for name in CLASSES} == drawn.labels
        assert factors.columns["velocity_x"][number] == pytest.approx(drawn.velocity[1])
        with open_video(path) as video:
            frames = video.get_frames(range(6))
        truth = np.stack([paint(drawn, time) for time in range(6)])
        assert abs(frames.astype(int) - truth).mean() < 8  # half the colour, and compression


def test_processes_and_interruptions_change_no_byte(tmp_path):
    make_moving_shapes(tmp_path / "a", SMALL, progress=False)
    make_moving_shapes(tmp_path / "b", SMALL, progress=False, processes=2)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    (tmp_path / "b/videos/000002.mp4").unlink()
    (tmp_path / "b/factors.parquet").unlink()
    kept = (tmp_path / "b/videos/000001.mp4").stat().st_mtime_ns
    make_moving_shapes(tmp_path / "b", SMALL, progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert (tmp_path / "b/videos/000001.mp4").stat().st_mtime_ns == kept


def test_a_larger_count_adds(tmp_path):
    two = MovingShapesConfig(count=2, size=32, frames=6, seed=3)
    make_moving_shapes(tmp_path / "a", two, progress=False)
    more = make_moving_shapes(tmp_path / "a", SMALL, progress=False)
    make_moving_shapes(tmp_path / "b", SMALL, progress=False)
    assert len(more.paths) == 4
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_a_failed_write_leaves_no_half_file(tmp_path, monkeypatch):
    calls = iter([paint, paint])

    def fails(scene, time):
        return next(calls)(scene, time)

    monkeypatch.setattr(make, "paint", fails)
    with pytest.raises(RuntimeError, match="StopIteration"):
        make_moving_shapes(tmp_path, SMALL, progress=False, processes=1)
    assert list((tmp_path / "videos").iterdir()) == []


def test_a_folder_of_other_videos_is_refused(tmp_path):
    make_moving_shapes(tmp_path / "a", SMALL, progress=False)
    other = MovingShapesConfig(count=4, size=32, frames=6, seed=4)
    with pytest.raises(DatasetError, match=r"seed is 3 there and 4 here"):
        make_moving_shapes(tmp_path / "a", other, progress=False)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").write_text("")
    with pytest.raises(DatasetError, match="not empty"):
        make_moving_shapes(tmp_path / "b", SMALL, progress=False)
    with pytest.raises(DatasetError, match="no readable table"):
        load_factors(tmp_path / "b")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"count": 0}, "count=0 must be at least 1"),
        ({"size": 33}, "both must be even"),
        ({"size": 64, "width": 32}, "above half the size"),
        ({"crf": 60}, "crf=60 must lie"),
        ({"hold": ("colr",)}, "hold=colr: the factors are direction"),
    ],
)
def test_impossible_settings_are_refused(changes, says):
    with pytest.raises(ConfigError, match=says):
        MovingShapesConfig(**changes)


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_look_changes_size_pace_and_ground_and_nothing_else():
    plain = draw_scene(0, 7, height=64, width=64, hold=STILL)
    look = Look(radius=(0.05, 0.05), pace=3.0, texture=0.0)
    other = draw_scene(0, 7, height=64, width=64, hold=STILL, look=look)
    assert other.labels == plain.labels
    np.testing.assert_allclose(other.velocity, 3 * plain.velocity)
    np.testing.assert_allclose(other.radii, 0.05 * 64)
    ground = paint(other, 0.0)[shapes_cover(other, 0.0) == 0]
    assert (ground == 110).all()  # no texture at all
    assert paint(plain, 0.0)[shapes_cover(plain, 0.0) == 0].std() > 5


@pytest.mark.parametrize(
    ("key", "value"),
    [("radius", (0.2, 0.1)), ("radius", (0.1, 0.3)), ("pace", 0.0), ("texture", -1.0)],
)
def test_an_impossible_look_is_refused_by_name(key, value):
    with pytest.raises(ConfigError, match=f"look.{key}"):
        Look(**{key: value})
