from dataclasses import replace

import numpy as np
import pytest

from tubelet.benchmarks.factor_scenes import (
    GROUPS,
    REACH,
    SHAPES,
    TOP_SPEED,
    Painter,
    draw_scene,
    factor_names,
)
from tubelet.benchmarks.factors import FactorConfig, generate, open_factors
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.rng import numpy_generator


def scenes(count, frames=8):
    return [draw_scene(numpy_generator(0, "test", i), frames) for i in range(count)]


@pytest.fixture(scope="module")
def painter():
    with Painter(64) as painter:
        yield painter


PLAIN = draw_scene(numpy_generator(0, "plain"), 1) | {
    **dict.fromkeys(("ball_x", "ball_y", "block_x", "block_y"), 0.0),
    **dict.fromkeys(("ball_vx", "ball_vy", "block_vx", "block_vy"), 0.0),
    **{"ball_x": -0.6, "ball_size": 0.3, "ball_hue_cos": 1.0, "ball_hue_sin": 0.0},  # red
    **{"block_x": 0.6, "block_size": 0.3, "block_hue_cos": -0.5, "block_hue_sin": 0.866},  # green
    **{"floor_hue_cos": -0.5, "floor_hue_sin": -0.866, "floor_squares": 1.0},  # blue
    **{"camera": 0.0, "light_x": 0.0, "light_y": 0.0, "light_level": 1.0},
    **{"block_is_box": 1.0, "block_is_cylinder": 0.0, "block_is_ellipsoid": 0.0},
}


def seen(frame, channel):
    """Rows and columns of the pixels where one colour stands out."""
    frame = frame.astype(int)
    others = frame[..., [c for c in range(3) if c != channel]].max(-1)
    return np.nonzero(frame[..., channel] > others + 60)


def place(frame, channel):
    """(x, y, pixels): middle of that colour's pixels, x to the right and y upwards, in pixels."""
    rows, columns = seen(frame, channel)
    return columns.mean() - 31.5, 31.5 - rows.mean(), len(rows)


def test_places_and_colours_are_what_the_factors_say(painter):
    (frame,) = painter.film(PLAIN, 1)
    ball, block = place(frame, 0), place(frame, 1)
    assert ball[0] == pytest.approx(-block[0], abs=1.5)
    assert block[0] > 8
    for axis, sign in (("x", 1), ("y", 1)):
        moved = place(painter.film(PLAIN | {f"ball_{axis}": PLAIN[f"ball_{axis}"] + 0.3}, 1)[0], 0)
        assert sign * (moved["xy".index(axis)] - ball["xy".index(axis)]) > 2
    (swapped,) = painter.film(
        PLAIN
        | {"ball_hue_cos": -0.5, "ball_hue_sin": 0.866, "block_hue_cos": 1.0}
        | {"block_hue_sin": 0.0},
        1,
    )
    assert place(swapped, 1)[0] == pytest.approx(ball[0], abs=1.5)


def test_every_factor_changes_the_picture_and_nothing_else_stays_behind(painter):
    (before,) = painter.film(PLAIN, 1)
    larger = place(painter.film(PLAIN | {"ball_size": 0.36}, 1)[0], 0)
    assert larger[2] / place(before, 0)[2] == pytest.approx(1.44, rel=0.15)
    changes = [{"camera": 0.3}, {"light_x": 0.8}, {"light_y": -0.8}, {"light_level": 0.6}]
    changes += [{"floor_hue_cos": 1.0}, {"floor_squares": 1.7}, {"block_size": 0.2}]
    changes += [{"block_is_box": 0.0, f"block_is_{name}": 1.0} for name in list(SHAPES)[1:]]
    for change in changes:
        assert np.abs(painter.film(PLAIN | change, 1)[0].astype(int) - before).max() > 20, change
    assert np.array_equal(painter.film(PLAIN, 1)[0], before)


def test_shapes_move_at_their_speed_and_are_in_place_in_the_middle(painter):
    moving = PLAIN | {"ball_vx": 0.1, "block_vy": -0.1}
    film = painter.film(moving, 5)
    xs = [place(frame, 0)[0] for frame in film]
    ys = [place(frame, 1)[1] for frame in film]
    assert (np.diff(xs) > 0.5).all()
    assert (np.diff(ys) < -0.5).all()
    assert np.array_equal(film[2], painter.film(PLAIN, 1)[0])
    shifted = painter.film(PLAIN | {"ball_x": -0.6 + 2 * 0.1, "block_y": -0.2}, 1)[0]
    assert np.array_equal(film[4], shifted)


def test_scenes_stay_on_the_floor_and_apart_and_cover_their_ranges():
    drawn = scenes(800)
    table = {name: np.array([scene[name] for scene in drawn]) for name in drawn[0]}
    for thing in ("ball", "block"):
        for axis in "xy":
            reach = np.abs(table[f"{thing}_{axis}"]) + 3.5 * np.abs(table[f"{thing}_v{axis}"])
            assert reach.max() <= REACH
        speed = np.hypot(table[f"{thing}_vx"], table[f"{thing}_vy"])
        np.testing.assert_allclose(speed, table[f"{thing}_speed"])
        assert 0.8 * TOP_SPEED < speed.max() <= TOP_SPEED
    apart = [
        np.hypot(
            *(
                table[f"ball_{a}"]
                - table[f"block_{a}"]
                + t * (table[f"ball_v{a}"] - table[f"block_v{a}"])
                for a in "xy"
            )
        )
        for t in np.arange(8) - 3.5
    ]
    assert np.min(apart) >= 0.73
    assert {name: table[f"block_is_{name}"].mean() for name in SHAPES} == pytest.approx(
        dict.fromkeys(SHAPES, 1 / 3), abs=0.06
    )
    assert all(table[name].std() > 0 for name in factor_names("videos")[0])


def test_factors_tell_nothing_about_each_other():
    names, _ = factor_names("videos")
    table = np.array([[scene[name] for name in names] for scene in scenes(1500)])
    related = np.abs(np.corrcoef(table.T) - np.eye(len(names)))
    expected = {("block_is_box", "block_is_cylinder")}  # one excludes the other
    # They avoid each other.
    expected |= {(f"ball_{a}", f"block_{a}") for a in ("x", "y", "vx", "vy")}
    for i, j in zip(*np.nonzero(np.triu(related) > 0.12), strict=True):
        assert (names[i], names[j]) in expected


def test_still_scenes_have_no_motion():
    assert all(
        scene[f"{thing}_v{a}"] == 0
        for scene in scenes(20, 1)
        for thing in ("ball", "block")
        for a in "xy"
    )
    names, groups = factor_names("images")
    assert set(groups) == {"semantic", "nuisance"}
    assert set(factor_names("videos")[1]) == set(GROUPS)
    assert len(names) == len(set(names)) == 19


@pytest.mark.parametrize("kind", ["images", "videos"])
def test_files_hold_the_scenes_that_the_table_lists(tmp_path, kind, painter):
    config = FactorConfig(kind=kind, train=3, test=4)
    data = generate(tmp_path / "a", config)
    suffix = "png" if kind == "images" else "mp4"
    assert data.files == tuple(
        f"{split}/{i:06d}.{suffix}" for split, n in (("train", 3), ("test", 4)) for i in range(n)
    )
    assert all((tmp_path / "a" / file).is_file() for file in data.files)
    clips = data.clips("test")
    assert (clips.dtype, clips.shape) == (np.uint8, (4, config.length, 64, 64, 3))
    for i, clip in enumerate(clips):
        scene = draw_scene(numpy_generator(0, "factors", "test", i), config.length)
        np.testing.assert_allclose(data.values[3 + i], [scene[n] for n in data.names], rtol=1e-6)
        film = painter.film(scene, config.length)
        error = np.abs(clip.astype(int) - film).mean()
        assert error == 0 if kind == "images" else error < 6
    values, names = data.group("nuisance")
    assert values.shape == (4, len(names))
    assert "camera" in names
    np.testing.assert_array_equal(values[:, 0], data.values[3:, data.names.index("camera")])


def test_scenes_do_not_depend_on_how_many_there_are_and_splits_share_none(tmp_path):
    few = generate(tmp_path / "few", FactorConfig(train=2, test=2))
    many = generate(tmp_path / "many", FactorConfig(train=4, test=3))
    assert np.array_equal(few.values, many.values[[0, 1, 4, 5]])
    for file in few.files:
        assert (few.folder / file).read_bytes() == (many.folder / file).read_bytes()
    assert len(np.unique(many.values, axis=0)) == 7
    other = generate(tmp_path / "seed", FactorConfig(train=2, test=2, seed=1))
    assert not np.array_equal(few.values, other.values)


def test_finished_data_is_used_again_and_other_data_is_never_overwritten(tmp_path):
    config = FactorConfig(train=2, test=2, suffix="jpg")
    data = generate(tmp_path, config)
    assert data.clips().shape == (2, 1, 64, 64, 3)
    (tmp_path / "train" / "000000.jpg").unlink()
    assert generate(tmp_path, config).files == data.files  # not made again
    assert not (tmp_path / "train" / "000000.jpg").exists()
    with pytest.raises(DatasetError, match=r"train=2.*train=9.*another folder"):
        generate(tmp_path, replace(config, train=9))
    (tmp_path / "factors.npz").write_bytes(b"")
    with pytest.raises(DatasetError, match="damaged"):
        open_factors(tmp_path)
    with pytest.raises(DatasetError, match="no generated factors"):
        open_factors(tmp_path / "nowhere")


def test_impossible_configs_are_refused_by_name():
    for wrong in ({"train": 0}, {"test": 0}, {"size": 0}, {"frames": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            FactorConfig(**wrong)
    with pytest.raises(ConfigError, match="size=63"):
        FactorConfig(kind="videos", size=63)
