"""Each of the flow's losses against its closed form."""

import math

import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.motion.losses import (
    C1,
    FlowLossConfig,
    cycle,
    flow_losses,
    masked_mean,
    reconstruction,
    regression,
    smoothness,
    ssim,
    variance_covariance,
)

H, W = 12, 14


def noise(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def constant(x, y, height=H, width=W):
    return torch.tensor([x, y], dtype=torch.float64).view(1, 2, 1, 1).expand(1, 2, height, width)


def pair(x, y, channels=3):
    """Two cuts of one picture: what is at p in the first is at p + (x, y) in the second."""
    whole = noise(1, channels, H + 10, W + 10)
    return whole[..., 5 : 5 + H, 5 : 5 + W], whole[..., 5 - y : 5 - y + H, 5 - x : 5 - x + W]


def test_ssim_of_a_picture_with_itself_is_one():
    image = noise(2, 3, H, W)
    assert torch.allclose(ssim(image, image), torch.ones_like(image))


def test_ssim_of_flat_pictures_is_the_luminance_term():
    a, b = (torch.full((1, 1, 6, 6), v, dtype=torch.float64) for v in (0.2, 0.8))
    wanted = (2 * 0.2 * 0.8 + C1) / (0.2**2 + 0.8**2 + C1)
    assert torch.allclose(ssim(a, b), torch.tensor(wanted).double())


def test_ssim_is_symmetric_and_at_most_one():
    a, b = noise(1, 3, H, W), noise(1, 3, H, W, seed=1)
    assert torch.allclose(ssim(a, b), ssim(b, a))
    assert ssim(a, b).max() < 1
    assert ssim(a, 1 - a).mean() < 0  # an inverted picture is negatively correlated


@pytest.mark.parametrize(("x", "y"), [(0, 0), (2, -1), (-3, 2)])
def test_exact_flow_reconstructs_and_regresses(x, y):
    first, second = pair(x, y)
    flow, config = constant(float(x), float(y)), FlowLossConfig(ssim=0.0)
    assert reconstruction(first, second, flow, config) < 1e-14
    assert regression(first, second, flow) < 1e-28
    if x or y:
        assert reconstruction(first, second, torch.zeros_like(flow), config) > 0.1
        assert regression(first, second, torch.zeros_like(flow)) > 0.01


def test_reconstruction_of_flat_pictures_by_hand():
    a, b = (torch.full((1, 3, H, W), v, dtype=torch.float64) for v in (0.3, 0.5))
    config = FlowLossConfig(l2=2.0, l1=3.0, ssim=0.5)
    alike = (2 * 0.3 * 0.5 + C1) / (0.3**2 + 0.5**2 + C1)
    wanted = 2 * 0.04 + 3 * 0.2 + 0.5 * (1 - alike) / 2
    assert float(reconstruction(a, b, constant(0, 0), config)) == pytest.approx(wanted)


def test_pixels_that_leave_the_frame_do_not_count():
    first, second = pair(3, 0)
    second = second.clone()
    flow = constant(3.0, 0.0)
    before = regression(first, second, flow)
    first = first.clone()
    first[..., -3:] += 100  # exactly the columns whose flow ends outside
    assert torch.allclose(regression(first, second, flow), before)


def test_a_masked_mean_weighs_samples_alike():
    error = torch.stack([torch.full((2, 4, 4), 1.0), torch.full((2, 4, 4), 3.0)])
    mask = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    mask[0, :, 0, 0] = True
    mask[1] = True
    assert masked_mean(error, mask) == 2.0
    assert masked_mean(error, torch.zeros_like(mask)) == 0.0


def test_the_smoothness_of_a_linear_flow_by_hand():
    """f_x = 0.5 x: the slope along x is 0.5 in one of two channels, and none along y."""
    x = torch.arange(W, dtype=torch.float64).expand(H, W)
    flow = torch.stack([0.5 * x, torch.zeros(H, W).double()]).unsqueeze(0)
    flat = torch.full((1, 3, H, W), 0.5, dtype=torch.float64)
    assert float(smoothness(flow, flat, 10.0)) == pytest.approx(0.25)
    ramp = (0.02 * x).expand(1, 3, H, W)  # a picture that brightens by 0.02 per pixel
    assert float(smoothness(flow, ramp, 10.0)) == pytest.approx(0.25 * math.exp(-0.2))
    assert smoothness(constant(4.0, 2.0), flat, 10.0) == 0


@pytest.mark.parametrize(("x", "y"), [(0, 0), (2, -1), (-3, 2)])
def test_the_cycle_of_exact_flow_is_zero(x, y):
    features = noise(1, 5, H, W)
    there, back = constant(float(x), float(y)), constant(float(-x), float(-y))
    assert cycle(features, there, back) < 1e-20
    if x or y:
        assert cycle(features, there, there) > 1e-3


def test_variance_and_covariance_of_collapsed_and_of_copied_channels():
    std, cov = variance_covariance(torch.ones(2, 4, 3, 3, dtype=torch.float64), 1.0)
    assert float(std) == pytest.approx(0.99)  # 1 - sqrt(1e-4)
    assert float(cov) == 0
    x = torch.randn(50, 1, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    std, cov = variance_covariance(x.repeat(1, 2, 1, 1), 1.0)
    assert float(cov) == pytest.approx(float(x.var()) ** 2, rel=1e-6)  # 2 of 4 entries, over D = 2


def levels_and_flows(seed=0):
    sizes = [(4, 8), (6, 4)]  # channels, side
    levels = [[noise(2, c, s, s, seed=seed + k) for c, s in sizes] for k in (0, 7)]
    flows = [[noise(2, 2, s, s, seed=seed + k) - 0.5 for _, s in sizes] for k in (3, 5)]
    images = (noise(2, 3, 16, 16, seed=seed + 1), noise(2, 3, 16, 16, seed=seed + 2))
    return images, (levels[0], levels[1]), (flows[0], flows[1])


def test_the_total_is_the_weighted_sum_of_the_terms():
    config = FlowLossConfig(regress=0.3, smooth=0.7, cycle=0.9, std=1.1, cov=1.3)
    terms = flow_losses(*levels_and_flows(), config)
    names = ("regress", "smooth", "cycle", "std", "cov")
    wanted = terms["reconstruct"] + sum(getattr(config, n) * terms[n] for n in names)
    assert torch.allclose(terms["flow"], wanted)


def test_both_directions_count_alike():
    images, levels, flows = levels_and_flows()
    config = FlowLossConfig()
    swapped = flow_losses(images[::-1], levels[::-1], flows[::-1], config)
    plain = flow_losses(images, levels, flows, config)
    assert all(torch.allclose(plain[name], swapped[name]) for name in plain)


def test_a_term_of_weight_zero_is_left_out():
    config = FlowLossConfig(regress=0, smooth=0, cycle=0, std=0, cov=0)
    terms = flow_losses(*levels_and_flows(), config)
    assert set(terms) == {"reconstruct", "flow"}
    assert torch.equal(terms["flow"], terms["reconstruct"])


def test_levels_have_weights_of_their_own():
    images, levels, flows = levels_and_flows()
    fine, coarse, both = (
        flow_losses(images, levels, flows, FlowLossConfig(levels=w))["regress"]
        for w in ((1.0, 0.0), (0.0, 1.0), (3.0, 1.0))
    )
    assert torch.allclose(both, 0.75 * fine + 0.25 * coarse)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"smooth": -1.0}, "smooth = -1.0"),
        ({"cov": math.inf}, "cov = inf"),
        ({"l1": 0.0, "l2": 0.0, "ssim": 0.0}, "l2, l1 and ssim are all 0"),
        ({"levels": (0.0, 0.0)}, "levels = "),
    ],
)
def test_impossible_weights_are_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        FlowLossConfig(**changes)
