"""Nuisances of generated videos: what they change, what they leave, what cannot be predicted."""

import colorsys
import math

import numpy as np
import pytest

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.decode import open_video
from tubelet.datasets.synthetic.make import MovingShapesConfig, Nuisances, make_moving_shapes
from tubelet.datasets.synthetic.moving_shapes import draw_scene, paint, shapes_cover
from tubelet.datasets.synthetic.nuisances import GRAIN, LEVELS, disturbed, hue, noise_level

BOTH = Nuisances(tint=40, noise=0.25)


def scene(number=0):
    return draw_scene(0, number, height=64, width=64, hold=("occlusion",))


def test_the_tint_colours_the_ground_and_nothing_else():
    one = scene()
    plain = paint(one, 3).astype(float)
    found = disturbed(paint(one, 3), one, Nuisances(tint=40), seed=0, number=0, time=3)
    change = found - plain
    cover = shapes_cover(one, 3)
    assert np.abs(change[cover > 0.99]).max() <= 1
    colour = np.array(colorsys.hsv_to_rgb(hue(0, 0), 1, 1))
    wanted = 40 * (colour - colour.mean()) / np.linalg.norm(colour - colour.mean())
    ground = (cover == 0) & (plain.min(-1) > 45) & (plain.max(-1) < 210)
    np.testing.assert_allclose(change[ground].mean(0), wanted, atol=0.6)


def test_the_noise_is_fresh_in_every_frame_and_in_its_corner():
    one = scene()
    only = Nuisances(noise=0.25)
    frames = [
        disturbed(paint(one, t), one, only, seed=0, number=0, time=t).astype(float)
        for t in range(200)
    ]
    assert np.array_equal(frames[0][:48], paint(one, 0)[:48])
    assert np.array_equal(frames[0][:, :48], paint(one, 0)[:, :48])
    means = np.array([frame[48:, 48:].mean() for frame in frames])
    levels = np.array([noise_level(0, 0, t) for t in range(200)])
    assert np.abs(means - levels).max() < 6 * GRAIN / 16  # the mean of 256 pixels
    assert LEVELS[0] <= levels.min() < levels.max() <= LEVELS[1]
    assert abs(np.corrcoef(levels[1:], levels[:-1])[0, 1]) < 0.25
    assert levels.std() == pytest.approx((LEVELS[1] - LEVELS[0]) / math.sqrt(12), rel=0.2)


def test_the_corpus_says_what_they_are_and_the_scenes_stay(tmp_path):
    config = MovingShapesConfig(count=2, size=32, frames=5, seed=7, crf=0, nuisances=BOTH)
    table = make_moving_shapes(tmp_path / "a", config, processes=0, progress=False)
    plain = MovingShapesConfig(count=2, size=32, frames=5, seed=7, crf=0)
    without = make_moving_shapes(tmp_path / "b", plain, processes=0, progress=False)
    for name, values in without.columns.items():
        assert np.array_equal(values, table.columns[name]), name
    angle = 2 * math.pi * hue(7, 1)
    assert table.columns["tint_cos"][1] == pytest.approx(math.cos(angle))
    assert table.columns["noise_mean"][1] == pytest.approx(
        np.mean([noise_level(7, 1, t) for t in range(5)])
    )
    assert "tint_cos" not in without.columns
    with open_video(table.paths[1]) as video:
        frames = video.get_frames(range(5))
    seen = frames[:, 24:, 24:].astype(float).mean((1, 2, 3))
    np.testing.assert_allclose(seen, [noise_level(7, 1, t) for t in range(5)], atol=25)
    other = MovingShapesConfig(**{**vars(config), "nuisances": Nuisances(tint=1)})
    with pytest.raises(DatasetError, match="holds others"):
        make_moving_shapes(tmp_path / "a", other)


@pytest.mark.parametrize(("change", "word"), [({"tint": -1}, "tint"), ({"noise": 0.6}, "noise")])
def test_impossible_ones_are_named(change, word):
    with pytest.raises(ConfigError, match=f"nuisances.{word}"):
        Nuisances(**change)
