import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tubelet.core.errors import ConfigError
from tubelet.core.rng import torch_generator
from tubelet.datasets.augment import AugmentConfig, augment, crop_boxes


def _video(*shape):
    return torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch_generator(0, "test"))


def test_equals_cropping_scaling_and_flipping_each_clip():
    video, config = _video(6, 4, 48, 64, 3), AugmentConfig(size=32)
    out = augment(video, config, torch_generator(0, "a"))
    assert (out.shape, out.dtype) == ((6, 4, 32, 32, 3), torch.uint8)
    generator = torch_generator(0, "a")
    boxes = crop_boxes(6, 48, 64, config, generator).tolist()
    flips = torch.rand(6, generator=generator) < config.flip
    assert flips.any()
    assert not flips.all()
    for clip, result, (top, left, h, w), flip in zip(video, out, boxes, flips, strict=True):
        crop = clip[:, top : top + h, left : left + w].permute(0, 3, 1, 2).float()
        expected = F.interpolate(crop, (32, 32), mode="bilinear").permute(0, 2, 3, 1)
        expected = expected.flip(2) if flip else expected
        assert (result.float() - expected).abs().max() <= 1


def test_all_frames_of_a_clip_share_one_box():
    still = _video(8, 1, 40, 40, 3).expand(-1, 5, -1, -1, -1)
    out = augment(still, AugmentConfig(), torch_generator(0, "a"))
    assert all(torch.equal(out[:, 0], out[:, t]) for t in range(5))


def test_the_generator_decides():
    video = _video(4, 2, 32, 32, 3)
    one = augment(video, AugmentConfig(), torch_generator(0, "a"))
    assert torch.equal(one, augment(video, AugmentConfig(), torch_generator(0, "a")))
    assert not torch.equal(one, augment(video, AugmentConfig(), torch_generator(1, "a")))


def test_whole_frames_pass_unchanged():
    video = _video(3, 2, 32, 32, 3)
    off = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=0)
    assert torch.equal(augment(video, off, torch_generator(0, "a")), video)
    mirror = AugmentConfig(scale=(1, 1), ratio=(1, 1), flip=1)
    assert torch.equal(augment(video, mirror, torch_generator(0, "a")), video.flip(3))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (48, 96), (200, 50)])
def test_boxes_lie_inside_and_follow_the_config(height, width):
    config = AugmentConfig(scale=(0.3, 1.0), ratio=(0.75, 1.35))
    top, left, h, w = crop_boxes(4000, height, width, config, torch_generator(0, "a")).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    ratio = w / h
    assert ratio.min() > 0.75 * 0.95
    assert ratio.max() < 1.35 * 1.05
    area = (h * w) / (height * width)
    assert area.max() <= 1
    if height == width:
        assert area.min() > 0.28
        drawn = torch.log(ratio).double().numpy()
        assert abs(np.median(drawn)) < 0.1
        assert (top == 0).any()
        assert (top + h == height).any()


def test_impossible_configs_are_refused_by_name():
    for wrong in ({"scale": (0, 1)}, {"ratio": (2, 1)}, {"flip": 1.5}, {"size": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            AugmentConfig(**wrong)
