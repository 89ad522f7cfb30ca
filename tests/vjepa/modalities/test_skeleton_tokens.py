"""Skeleton tokens, masks by motion and rigid views against their definitions."""

import math

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.vjepa.modalities.rigid import RigidConfig, random_rigid, turn
from tubelet.vjepa.modalities.skeletons import SkeletonsConfig, motion, motion_masks


def small(**more):
    return SkeletonsConfig(**{"frames": 12, "joints": 5, "segment": 4} | more)


def test_tokens_are_time_major_segments_of_single_joints():
    torch.manual_seed(0)
    tokenizer = small().tokenizer(8)
    x = torch.randn(2, 12, 5, 3)
    content, places = tokenizer(x)
    assert content.shape == (2, 15, 8)
    for segment in range(3):
        for joint in range(5):
            own = tokenizer.embed(x[1, 4 * segment : 4 * segment + 4, joint].reshape(12))
            torch.testing.assert_close(content[1, 5 * segment + joint], own)
            assert places[1, 5 * segment + joint].tolist() == [segment, joint]


def test_motion_of_steady_joints():
    """Joint j moves j units each frame: every token of it but the first has motion j."""
    x = torch.zeros(1, 12, 5, 3)
    x[0, :, :, 0] = torch.arange(12.0).outer(torch.arange(5.0))
    found = motion(x, 4).unflatten(1, (3, 5))[0]
    torch.testing.assert_close(found[1:], torch.arange(5.0).expand(2, -1))
    torch.testing.assert_close(found[0], 0.75 * torch.arange(5.0))  # its first frame is still


def test_masks_are_a_partition_of_the_asked_size():
    config = small()
    selection = config.draw(torch.randn(6, 12, 5, 3), seed=0, step=0, first_sample=0)[0]
    assert selection.targets[0].shape == (6, round(0.9 * 15))
    both = torch.cat([selection.context, selection.targets[0]], dim=1).sort(dim=1).values
    assert torch.equal(both, torch.arange(15).expand(6, -1))


def test_the_first_hidden_token_follows_the_softmax_of_motion():
    """Gumbel's trick, with one hidden token: frequencies are softmax(m / temperature)."""
    intensity, draws = torch.tensor([0.0, 1.0, 2.0, 5.0]), 40_000
    noise = torch.rand(draws, 4, generator=torch.Generator().manual_seed(0))
    hidden, _ = motion_masks(intensity.expand(draws, -1), noise, 1, 0.8)
    expected = (intensity / intensity.mean() / 0.8).softmax(0)
    found = torch.bincount(hidden[:, 0], minlength=4) / draws
    torch.testing.assert_close(found, expected, atol=0.01, rtol=0)


def test_what_moves_is_hidden_more_and_speed_of_the_whole_does_not_matter():
    x = torch.zeros(400, 12, 5, 3)
    x[:, :, 4, 1] = 3 * torch.arange(12.0)
    x[:, :, 3, 1] = torch.arange(12.0)
    config = small(mask_ratio=0.4)
    hidden = config.draw(x, seed=0, step=0, first_sample=0)[0].targets[0]
    share = torch.bincount(hidden.flatten() % 5, minlength=5) / hidden.numel()
    assert share[4] > share[3] > share[:3].max()
    faster = config.draw(10 * x, seed=0, step=0, first_sample=0)[0].targets[0]
    assert torch.equal(faster, hidden)


def test_still_skeletons_are_masked_evenly():
    hidden = small().draw(torch.zeros(2000, 12, 5, 3), seed=0, step=0, first_sample=0)[0].targets[0]
    share = torch.bincount(hidden.flatten(), minlength=15) / 2000
    np.testing.assert_allclose(share, 14 / 15, atol=0.03)  # round(13.5) is even: 14


def test_a_sample_is_masked_by_its_number():
    x = torch.randn(4, 12, 5, 3)
    whole = small().draw(x, seed=1, step=0, first_sample=20)[0]
    part = small().draw(x[2:], seed=1, step=0, first_sample=22)[0]
    assert torch.equal(whole.context[2:], part.context)


def test_rigid_views_keep_all_distances():
    config = small(rigid=RigidConfig(degrees=(180, 180, 180), shift=2.0))
    x = torch.randn(20, 12, 5, 3, dtype=torch.float64)
    y = config.view(x, seed=0, first_sample=0)
    gaps = lambda z: torch.cdist(z.flatten(1, 2), z.flatten(1, 2))  # noqa: E731
    torch.testing.assert_close(gaps(y), gaps(x), atol=1e-5, rtol=1e-5)
    assert (y - x).abs().amax(dim=(1, 2, 3)).min() > 0.1
    assert torch.equal(config.view(x[3:4], seed=0, first_sample=3)[0], y[3])


def test_flips_and_ranges():
    still = RigidConfig(degrees=(0, 0, 0), shift=0.0, flip=0.5)
    drawn = [random_rigid(still, torch.Generator().manual_seed(s))[0] for s in range(400)]
    signs = np.array([m[0, 0].item() for m in drawn])
    assert set(signs) == {-1.0, 1.0}
    assert abs(signs.mean()) < 0.15
    assert all(torch.equal(m[1:, 1:], torch.eye(2)) for m in drawn)
    turned = RigidConfig(degrees=(0, 0, 30), shift=0.3, flip=0)
    for s in range(200):
        matrix, shift = random_rigid(turned, torch.Generator().manual_seed(s))
        assert torch.det(matrix) == pytest.approx(1, abs=1e-5)
        assert abs(math.degrees(math.atan2(matrix[1, 0], matrix[0, 0]))) <= 30.001
        assert shift.abs().max() <= 0.3


def test_turns_are_right_handed():
    quarter = torch.tensor(math.pi / 2)
    for axis in range(3):
        before, after = torch.eye(3)[(axis + 1) % 3], torch.eye(3)[(axis + 2) % 3]
        torch.testing.assert_close(turn(axis, quarter) @ before, after, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"frames": 13}, "skeletons.frames = 13 is no multiple of segment = 4; .*: 12"),
        ({"joints": 0}, "skeletons.joints = 0"),
        ({"mask_ratio": 1.0}, "skeletons.mask_ratio = 1.0 hides 15 of 15"),
        ({"mask_ratio": 0.0}, "skeletons.mask_ratio = 0.0"),
        ({"motion_temperature": 0.0}, "skeletons.motion_temperature"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        small(**change)


def test_bad_shapes_and_views_are_refused():
    with pytest.raises(ConfigError, match=r"skeletons.joints = 5"):
        small().still(torch.zeros(1, 12, 6, 3))
    with pytest.raises(ConfigError, match="the sequences have 8"):
        small().still(torch.zeros(1, 8, 5, 3))
    with pytest.raises(ConfigError, match=r"rigid.degrees"):
        RigidConfig(degrees=(0, 0, 270))
    with pytest.raises(ConfigError, match=r"rigid.flip"):
        RigidConfig(flip=2)
