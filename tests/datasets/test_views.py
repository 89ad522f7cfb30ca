from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.datasets.augment import AugmentConfig, crop_boxes
from tubelet.datasets.views import ViewConfig, blur_matrix, colour_map, make_views, resize_matrix

PLAIN = ViewConfig(
    global_views=1,
    local_views=0,
    global_size=24,
    flip=0,
    jitter=0,
    grey=0,
    blur=0,
    solarize=0,
)
LUMA = torch.tensor([0.299, 0.587, 0.114])


def _video(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch_generator(0, "test"))


def _smooth(batch, time, side, seed=0):
    """Clips of soft colours, none near black or white, uint8 [B, T, side, side, 3]."""
    coarse = torch.rand(batch * time, 3, 5, 5, generator=torch_generator(seed, "soft"))
    image = F.interpolate(coarse, (side, side), mode="bilinear") * 100 + 60
    return image.permute(0, 2, 3, 1).unflatten(0, (batch, time)).round().to(torch.uint8)


def _one(video, config, seed=0):
    (view,) = make_views(video, config, torch_generator(seed, "views"))
    return view


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(1, 40), st.data())
def test_the_resize_matrix_is_torchs_antialiased_bilinear(total, size, length, data):
    length = min(length, total)
    start = data.draw(st.integers(0, total - length))
    row = torch.rand(total, generator=torch_generator(0, "row"))
    matrix = resize_matrix(torch.tensor([start]), torch.tensor([length]), total, size)[0]
    part = row[None, None, None, start : start + length]
    expected = F.interpolate(part, (1, size), mode="bilinear", antialias=True)[0, 0, 0]
    torch.testing.assert_close(matrix @ row, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(size))


@pytest.mark.parametrize("size", [24, 64, 100])
def test_a_plain_view_is_a_random_resized_crop(size):
    video = _video(6, 3, 48, 64, 3)
    view = _one(video, replace(PLAIN, global_size=size))
    boxes = crop_boxes(
        6, 48, 64, AugmentConfig(ratio=PLAIN.ratio), torch_generator(0, "views")
    ).tolist()
    assert len({tuple(box) for box in boxes}) == 6
    for clip, result, (top, left, h, w) in zip(video, view, boxes, strict=True):
        crop = clip[:, top : top + h, left : left + w].permute(0, 3, 1, 2).float()
        expected = F.interpolate(crop, (size, size), mode="bilinear", antialias=True)
        assert (result.float() - expected.permute(0, 2, 3, 1)).abs().max() <= 0.51


def test_views_have_their_sizes_and_scales_and_global_ones_come_first():
    config = ViewConfig(global_views=2, local_views=3, global_size=40, local_size=16)
    views = make_views(_video(4, 2, 48, 48, 3), config, torch_generator(0, "v"))
    assert [list(view.shape) for view in views] == [[4, 2, s, s, 3] for s in (40, 40, 16, 16, 16)]
    assert all(view.dtype == torch.uint8 for view in views)
    assert not torch.equal(views[0], views[1])
    # A ramp tells the width of a crop: its values span the share of the frame that was cut out.
    ramp = torch.arange(256, dtype=torch.uint8)[None, None, None, :, None]
    ramp = ramp.expand(300, 1, 256, 256, 3)
    config = replace(PLAIN, local_views=1, local_size=32, global_size=32)
    spans = [
        (view.float().amax((1, 2, 3, 4)) - view.float().amin((1, 2, 3, 4))) / 255
        for view in make_views(ramp, config, torch_generator(0, "v"))
    ]
    low, high = (0.3 * 0.75) ** 0.5, 1.0  # width = sqrt(area * ratio)
    assert low - 0.05 < spans[0].min() < low + 0.15
    assert high - 0.1 < spans[0].max() <= high
    assert (0.05 * 0.75) ** 0.5 - 0.05 < spans[1].min() < 0.3
    assert 0.5 < spans[1].max() <= (0.3 * 4 / 3) ** 0.5


def test_all_frames_of_a_clip_are_treated_alike():
    still = _video(16, 1, 32, 32, 3).expand(-1, 4, -1, -1, -1)
    for view in make_views(still, ViewConfig(), torch_generator(0, "v")):
        assert all(torch.equal(view[:, 0], view[:, t]) for t in range(4))


def test_the_generator_decides_and_the_global_one_is_left_alone():
    video = _video(4, 2, 32, 32, 3)
    state = torch.random.get_rng_state()
    one, again, other = (
        make_views(video, ViewConfig(), torch_generator(seed, "v")) for seed in (0, 0, 1)
    )
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))
    assert not any(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    assert torch.equal(state, torch.random.get_rng_state())


def test_flip_mirrors_the_same_crop():
    video = _video(5, 2, 32, 48, 3)
    assert torch.equal(_one(video, replace(PLAIN, flip=1)), _one(video, PLAIN).flip(3))
    some = _one(video.repeat(20, 1, 1, 1, 1), replace(PLAIN, flip=0.5))
    same = (some == _one(video.repeat(20, 1, 1, 1, 1), PLAIN)).flatten(1).all(1)
    assert 25 < same.sum() < 75


def test_grey_leaves_luma_and_no_colour():
    video = _video(3, 2, 32, 32, 3)
    grey, plain = _one(video, replace(PLAIN, grey=1)), _one(video, PLAIN)
    assert torch.equal(grey[..., 0], grey[..., 1])
    assert torch.equal(grey[..., 0], grey[..., 2])
    assert (grey[..., 0].float() - plain.float() @ LUMA).abs().max() <= 1.01


def test_solarize_inverts_the_bright_half():
    video = _video(3, 2, 32, 32, 3)
    plain = _one(video, PLAIN)
    expected = torch.where(plain >= 128, 255 - plain, plain)
    assert ((_one(video, replace(PLAIN, solarize=1)).int() - expected.int()).abs() <= 1).all()


def test_blur_is_a_gaussian_whose_width_grows_with_the_view():
    matrix = blur_matrix(torch.tensor([1e-3, 1.5]), 31)
    torch.testing.assert_close(matrix[0], torch.eye(31))
    place = torch.arange(31.0)
    middle = matrix[1, 15]
    assert (middle @ place).item() == pytest.approx(15, abs=1e-4)
    assert (middle @ (place - 15) ** 2).item() == pytest.approx(1.5**2, rel=1e-3)
    torch.testing.assert_close(matrix.sum(-1), torch.ones(2, 31))
    video = _video(4, 1, 64, 64, 3)
    blurred = replace(PLAIN, global_size=112, blur=1, blur_sigma=(4.0, 4.0))
    plain = _one(video, replace(PLAIN, global_size=112)).float()[:, 0]
    soft = blur_matrix(torch.tensor([2.0]), 112)[0]  # half of 4: the view is half of 224
    expected = torch.einsum("ij,bjkc,lk->bilc", soft, plain, soft)
    assert (_one(video, blurred).float()[:, 0] - expected).abs().max() <= 1.01


def _map(colour, brightness=1.0, contrast=1.0, saturation=1.0, hue=0.0, grey=False, mean=0.0):
    values = (torch.tensor([v]) for v in (brightness, contrast, saturation, hue))
    mix, lift = colour_map(*values, torch.tensor([grey]))
    return mix[0] @ torch.tensor(colour) + lift[0] * mean


def test_each_colour_change_alone():
    red = [0.8, 0.2, 0.1]
    luma = float(LUMA @ torch.tensor(red))
    torch.testing.assert_close(_map(red), torch.tensor(red), atol=1e-5, rtol=0)
    torch.testing.assert_close(_map(red, brightness=1.3), 1.3 * torch.tensor(red))
    torch.testing.assert_close(
        _map(red, contrast=0.6, mean=0.4), 0.6 * torch.tensor(red) + 0.4 * 0.4
    )
    torch.testing.assert_close(
        _map(red, saturation=1.4), luma + 1.4 * (torch.tensor(red) - luma), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(
        _map(red, hue=0.3, grey=True), torch.full((3,), luma), atol=1e-4, rtol=0
    )
    turned = _map(red, hue=1 / 3)
    assert turned.argmax() != 0  # a third of the circle away from red
    assert float(LUMA @ turned) == pytest.approx(luma, abs=1e-3)
    back = _map(turned.tolist(), hue=-1 / 3)
    torch.testing.assert_close(back, torch.tensor(red), atol=1e-4, rtol=0)
    torch.testing.assert_close(_map([0.5] * 3, hue=0.2), torch.full((3,), 0.5), atol=1e-3, rtol=0)


def test_colour_changes_follow_each_other_as_published():
    red, b, c, s, mean = torch.tensor([0.5, 0.3, 0.2]), 1.2, 0.7, 1.15, 0.4
    step = red * b
    step = c * step + (1 - c) * b * mean
    step = s * step + (1 - s) * (LUMA @ step)
    torch.testing.assert_close(_map(red.tolist(), b, c, s, 0.0, mean=mean), step)


def test_jitter_uses_the_mean_grey_of_the_clip():
    video = _smooth(8, 2, 40)
    flat = replace(PLAIN, jitter=1, brightness=0, contrast=1, saturation=0, hue=0, global_size=40)
    configs = (replace(flat, jitter=0), flat)
    plain, jittered = (_one(video, config).float() @ LUMA for config in configs)
    centre = plain.mean((1, 2, 3), keepdim=True)
    # contrast only: luma lies on a line through the mean, which stays
    torch.testing.assert_close(jittered.mean((1, 2, 3)), plain.mean((1, 2, 3)), atol=1.0, rtol=0)
    slope = ((jittered - centre) * (plain - centre)).sum((1, 2, 3)) / ((plain - centre) ** 2).sum(
        (1, 2, 3)
    )
    left = (jittered - centre) - slope[:, None, None, None] * (plain - centre)
    assert left.abs().max() < 2
    assert 0 <= slope.min() < 0.7
    assert 1.2 < slope.max() <= 2.01


def test_impossible_configs_and_inputs_are_refused_by_name():
    for wrong in (
        {"global_views": 0},
        {"local_views": -1},
        {"local_size": 0},
        {"local_scale": (0.0, 0.3)},
        {"ratio": (2.0, 1.0)},
        {"flip": 1.5},
        {"brightness": -0.1},
        {"hue": 0.6},
        {"blur_sigma": (0.0, 1.0)},
    ):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            ViewConfig(**wrong)
    for video in (_video(2, 32, 32, 3), _video(2, 1, 32, 32, 3).float(), _video(2, 1, 32, 32, 4)):
        with pytest.raises(ConfigError, match="uint8"):
            make_views(video, ViewConfig(), torch_generator(0, "v"))
