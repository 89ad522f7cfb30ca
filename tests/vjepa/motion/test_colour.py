"""The colour code of flow: the wheel's definition, directions, lengths."""

import numpy as np
import pytest

from tubelet.vjepa.motion.colour import colour_wheel, flow_picture


def one(x, y, **options):
    return tuple(flow_picture(np.array([[[x, y]]], np.float32), **options)[0, 0].tolist())


def test_the_wheel_has_55_hues_with_the_six_pure_ones_in_their_places():
    wheel = colour_wheel()
    assert wheel.shape == (55, 3)
    pure = {0: "red", 15: "yellow", 21: "green", 25: "cyan", 36: "blue", 49: "magenta"}
    named = {
        "red": (1, 0, 0),
        "yellow": (1, 1, 0),
        "green": (0, 1, 0),
        "cyan": (0, 1, 1),
        "blue": (0, 0, 1),
        "magenta": (1, 0, 1),
    }
    for place, name in pure.items():
        assert tuple(wheel[place]) == named[name]
    assert (wheel.max(1) == 1).all()
    assert (wheel.min(1) == 0).all()


def test_right_is_red_and_nothing_is_white():
    assert one(2.0, 0.0) == (255, 0, 0)
    assert one(0.0, 0.0) == (255, 255, 255)


def test_a_turn_goes_through_the_wheel_and_closes():
    angles = 2 * np.pi * np.arange(55) / 55
    flow = np.stack([np.cos(angles), np.sin(angles)], axis=-1)[None]
    assert np.abs(flow_picture(flow)[0] - 255 * colour_wheel()).max() <= 0.5 + 1e-6
    just_below = flow_picture(np.array([[[1.0, -1e-9]]]))[0, 0]
    assert np.abs(just_below.astype(int) - [255, 0, 0]).max() <= 1


def test_shorter_is_paler_and_beyond_the_scale_is_darker():
    assert one(1.0, 0.0, scale=2.0) == (255, 128, 128)
    assert one(5.0, 0.0, scale=2.0) == (191, 0, 0)


def test_unknown_flow_is_black():
    assert one(np.nan, 1.0) == (0, 0, 0)
    both = flow_picture(np.array([[[np.inf, 0.0], [3.0, 0.0]]]))
    assert both[0, 1].tolist() == [255, 0, 0]  # and does not set the scale


@pytest.mark.parametrize("factor", [0.1, 7.0])
def test_by_default_the_longest_has_the_full_colour(factor):
    flow = factor * np.array([[[1.0, 0.0], [0.0, 0.5]]])
    assert np.array_equal(flow_picture(flow), flow_picture(flow / factor))
