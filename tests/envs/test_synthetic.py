"""Generated MuJoCo corpora: what the labels say is what happens, whoever makes the videos."""

import math
from pathlib import Path

import numpy as np
import pytest

from tubelet.core.errors import ConfigError, DatasetError, RenderError
from tubelet.datasets.corpus import index_corpus
from tubelet.datasets.decode import open_video
from tubelet.envs.rendering import probe_gl
from tubelet.envs.synthetic import manipulation, physics
from tubelet.envs.synthetic.manipulation import make_manipulation
from tubelet.envs.synthetic.physics import make_physics
from tubelet.envs.synthetic.scenes import SceneConfig

SMALL = SceneConfig(count=3, size=32, frames=16, seed=1)


@pytest.fixture(scope="module", autouse=True)
def _graphics():
    try:
        probe_gl()
    except RenderError as error:
        pytest.skip(str(error))


def _run(module, number, path, **config):
    """The row of a scene without drawing it: its video counts as being there."""
    path.touch()
    return module._make_one(number, path, config=SceneConfig(frames=48, **config))


def _find(module, **labels):
    """Numbers of scenes with these labels."""
    for number in range(100_000):
        drawn = module.draw(0, number)[0]
        if all(module.CLASSES[name][drawn[name]] == value for name, value in labels.items()):
            yield number


@pytest.mark.parametrize(("make", "kind"), [(make_physics, "ph"), (make_manipulation, "ma")])
def test_several_processes_write_the_same_and_runs_go_on(tmp_path, make, kind):
    whole = make(tmp_path / "a", SMALL, processes=1, progress=False)
    index = index_corpus(tmp_path / "a", progress=False)
    assert [(e.num_frames, e.height, e.fps) for e in index.entries] == [(16, 32, 16.0)] * 3
    make(tmp_path / "b", SceneConfig(count=1, size=32, frames=16, seed=1), progress=False)
    more = make(tmp_path / "b", SMALL, processes=2, progress=False)
    for name in whole.columns:
        np.testing.assert_array_equal(whole.columns[name], more.columns[name])
    for one, other in zip(whole.paths, more.paths, strict=True):
        assert Path(one).read_bytes() == Path(other).read_bytes()
    with open_video(whole.paths[0]) as video:
        assert np.ptp(video.get_frames(range(16)).astype(int), axis=0).max() > 40  # it moves
    with pytest.raises(DatasetError, match="holds others"):
        make(tmp_path / "a", SceneConfig(count=3, size=64, frames=16, seed=1), progress=False)


@pytest.mark.parametrize("module", [physics, manipulation])
def test_factors_are_uniform(module):
    drawn = [module.draw(0, number)[0] for number in range(600)]
    for name in drawn[0]:
        counts = np.bincount([row[name] for row in drawn], minlength=len(module.CLASSES[name]))
        expected = len(drawn) / len(module.CLASSES[name])
        assert ((counts - expected) ** 2 / expected).sum() < 30, name  # chi², 7 degrees at most


def test_a_free_fall_is_galileis(tmp_path):
    for gravity, g in (("low", 3.0), ("normal", 9.81)):
        wanted = {"ramp": "none", "start": "at rest", "count": "1", "gravity": gravity}
        number = next(_find(physics, **wanted))
        (tmp_path / "x").touch()
        config = SceneConfig(frames=5, fps=16)  # it ends before anything is touched
        row = physics._make_one(number, tmp_path / "x", config=config)
        assert row["fall"] == pytest.approx(g / 2 * (4 / 16) ** 2, rel=0.02)
        assert row["way"] == pytest.approx(0, abs=1e-6)
        assert row["collision"] == 0


def test_one_thing_alone_collides_with_nothing_and_throws_go_where_they_say(tmp_path):
    for start, sign in (("thrown left", -1), ("thrown right", 1)):
        number = next(_find(physics, ramp="none", count="1", start=start))
        config = SceneConfig(frames=4, fps=16)
        (tmp_path / "x").touch()
        row = physics._make_one(number, tmp_path / "x", config=config)
        assert row["collision"] == 0
        assert 0.7 * 1.2 * 3 / 16 < sign * row["way"] < 1.3 * 1.2 * 3 / 16


def test_collisions_happen_and_do_not_happen(tmp_path):
    seen = [_run(physics, number, tmp_path / "x")["collision"] for number in range(16)]
    assert 1 < sum(seen) < 15


@pytest.mark.parametrize("direction", ["0", "90", "225"])
@pytest.mark.parametrize("action", ["push", "carry", "miss"])
def test_the_chosen_block_goes_where_the_label_says(tmp_path, action, direction):
    number = next(_find(manipulation, action=action, direction=direction))
    row = _run(manipulation, number, tmp_path / "x")
    moved = np.array([row["block_x"], row["block_y"]])
    if action == "miss":
        assert row["touched"] == 0
        assert np.abs(moved).max() < 1e-3
        return
    assert row["touched"] == 1
    assert np.linalg.norm(moved) > 0.2
    angle = math.degrees(math.atan2(moved[1], moved[0])) - float(direction)
    assert abs((angle + 180) % 360 - 180) < 12


def test_fast_goes_farther_than_slow(tmp_path):
    way = {}
    for speed in ("slow", "fast"):
        number = next(_find(manipulation, action="carry", speed=speed))
        row = _run(manipulation, number, tmp_path / "x")
        way[speed] = math.hypot(row["block_x"], row["block_y"])
    assert way["fast"] > 1.3 * way["slow"]


@pytest.mark.parametrize("wrong", [{"count": 0}, {"size": 33}, {"fps": 0}, {"crf": 99}])
def test_impossible_settings_are_refused(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SceneConfig(**wrong)
