"""Warping, cost volumes and metrics of flow, against what they are by definition."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.vjepa.motion.cost_volume import cost_volume
from tubelet.vjepa.motion.flow_metrics import consistent, end_point_error, inconsistency
from tubelet.vjepa.motion.warp import inside, resize_flow, warp

SHIFTS = st.integers(-3, 3)


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(x, y, height=9, width=11):
    return torch.tensor([x, y], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, height, width)


def test_a_warp_by_nothing_is_the_picture():
    image = noise(2, 3, 9, 11)
    assert torch.allclose(warp(image, torch.zeros(2, 2, 9, 11).double()), image, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(x=SHIFTS, y=SHIFTS)
def test_there_and_back_is_the_picture_inside_the_border(x, y):
    image = noise(1, 2, 9, 11)
    moved = warp(image, constant(x, y))
    back = warp(moved, constant(-x, -y))
    rows, columns = slice(3, 6), slice(3, 8)
    assert torch.allclose(back[..., rows, columns], image[..., rows, columns], atol=1e-12)
    # And by definition: what is at p of the result is what was at p + flow.
    shifted = image[..., 3 + y : 6 + y, 3 + x : 8 + x]
    assert torch.allclose(moved[..., rows, columns], shifted, atol=1e-12)


def test_half_a_pixel_is_the_mean_of_two_neighbours():
    image = noise(1, 1, 9, 11)
    moved = warp(image, constant(0.5, 0.0))
    assert torch.allclose(moved[..., :-1], (image[..., :-1] + image[..., 1:]) / 2)
    assert torch.allclose(moved[..., -1], image[..., -1])  # outside is the nearest pixel inside


def test_inside_says_where_a_flow_ends_in_the_frame():
    ends = inside(constant(2.0, -1.0))[0, 0]
    assert not ends[0].any()  # the first row goes up and out
    assert not ends[:, -2:].any()
    assert ends[1:, :-2].all()


def test_a_flow_of_one_pixel_is_two_pixels_at_twice_the_size():
    big = resize_flow(constant(1.0, -0.5), 18, 33)
    assert torch.allclose(big[0, 0], torch.tensor(3.0).double())
    assert torch.allclose(big[0, 1], torch.tensor(-1.0).double())


def test_the_cost_volume_is_every_product_by_hand():
    first, second, radius = noise(2, 3, 4, 5), noise(2, 3, 4, 5, seed=1), 2
    volume = cost_volume(first, second, radius)
    assert volume.shape == (2, 25, 4, 5)
    for b, y, x in itertools.product(range(2), range(4), range(5)):
        for number, (dy, dx) in enumerate(itertools.product(range(-2, 3), repeat=2)):
            there = 0 <= y + dy < 4 and 0 <= x + dx < 5
            wanted = (first[b, :, y, x] * second[b, :, y + dy, x + dx]).mean() if there else 0.0
            assert float(volume[b, number, y, x]) == pytest.approx(float(wanted))


def test_the_cost_volume_has_the_gradient_of_its_formula():
    first, second = (noise(1, 2, 2, 3, seed=i).requires_grad_() for i in range(2))
    assert torch.autograd.gradcheck(lambda a, b: cost_volume(a, b, 1), (first, second))


def test_the_best_match_is_where_the_feature_went():
    feature = torch.nn.functional.layer_norm(torch.randn(1, 8, 8, 16), (16,)).movedim(-1, 1)
    moved = torch.roll(feature, (1, -2), dims=(2, 3))  # down by 1, left by 2
    best = cost_volume(feature, moved, 2).argmax(1)[0, 2:6, 2:6]
    assert (best == (1 + 2) * 5 + (-2 + 2)).all()


def test_end_point_error_is_a_distance():
    assert torch.allclose(
        end_point_error(constant(3.0, 0.0), constant(0.0, 4.0)), torch.tensor(5.0).double()
    )


def test_opposite_flows_agree_and_equal_ones_do_not():
    there, back = constant(2.0, 1.0), constant(-2.0, -1.0)
    assert inconsistency(there, back).max() == 0
    assert torch.equal(consistent(there, back), inside(there)[:, 0])
    assert torch.allclose(inconsistency(there, there), torch.tensor(20.0).double().sqrt())
    assert not consistent(there, there).any()


def test_what_a_moving_square_hides_is_inconsistent():
    """The ground is still; a square of 4 pixels moves right by 3, over 3 columns of ground."""
    forward, backward = torch.zeros(1, 2, 10, 14), torch.zeros(1, 2, 10, 14)
    forward[:, 0, 3:7, 2:6] = 3.0
    backward[:, 0, 3:7, 5:9] = -3.0
    agree = consistent(forward, backward)[0]
    hidden = torch.zeros(10, 14, dtype=torch.bool)
    hidden[3:7, 6:9] = True  # ground that the square comes to lie on
    assert torch.equal(~agree, hidden)
