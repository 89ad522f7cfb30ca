"""Generated pairs: the flow that they name is the one that happened."""

import numpy as np
import pytest
import torch

from tubelet.core.errors import ConfigError
from tubelet.datasets.synthetic.flow_pairs import (
    LABELS,
    FlowPairConfig,
    draw_flow_pair,
    draw_flow_set,
)
from tubelet.datasets.synthetic.moving_shapes import CLASSES


def moved_back(pair):
    """The second frame, sampled linearly where the flow says that each pixel went: [H, W, 3]."""
    size = len(pair.first)
    y, x = np.mgrid[0:size, 0:size]
    ends = np.stack([x, y], -1) + pair.flow
    around = torch.from_numpy((2 * ends / (size - 1) - 1).astype(np.float32))[None]
    image = torch.from_numpy(pair.second).movedim(-1, 0)[None].float()
    sampled = torch.nn.functional.grid_sample(image, around, align_corners=True)
    return sampled[0].movedim(0, -1).numpy()


@pytest.mark.parametrize("kind", ["textures", "sprites"])
@pytest.mark.parametrize("number", range(4))
def test_the_flow_leads_to_the_same_colour(kind, number):
    pair = draw_flow_pair(FlowPairConfig(kind=kind, size=48), number)
    error = np.abs(moved_back(pair) - pair.first).mean(-1)
    still = np.abs(pair.second.astype(float) - pair.first).mean(-1)
    # Away from shapes' edges, between whose pixels nothing can be interpolated.
    smooth = np.median(error[pair.visible])
    assert smooth < 3
    assert smooth < 0.5 * np.median(still[pair.visible]) + 1
    assert (np.linalg.norm(pair.flow, axis=-1) <= 4.0 + 1e-6).all()


def test_what_is_hidden_shows_another_colour():
    """Over many pairs: hidden pixels inside the frame do not lead to their own colour."""
    hidden, seen = [], []
    for number in range(12):
        pair = draw_flow_pair(FlowPairConfig(kind="sprites", size=48, seed=3), number)
        y, x = np.mgrid[0:48, 0:48]
        ends = np.stack([x, y], -1) + pair.flow
        within = ((ends >= 0) & (ends <= 47)).all(-1)
        error = np.abs(moved_back(pair) - pair.first).mean(-1)
        hidden.append(error[within & ~pair.visible])
        seen.append(error[within & pair.visible])
        assert not pair.visible[~within].any()
    assert np.median(np.concatenate(hidden)) > 10 * np.median(np.concatenate(seen))


def test_a_pair_depends_on_its_seed_and_number_alone():
    config = FlowPairConfig(kind="sprites", size=32)
    a, b = draw_flow_pair(config, 5), draw_flow_set(config, 3, start=4)
    assert np.array_equal(a.first, b.first[1])
    assert np.array_equal(a.flow, b.flow[1])
    assert not np.array_equal(a.first, draw_flow_pair(config, 6).first)
    other = draw_flow_pair(FlowPairConfig(kind="sprites", size=32, seed=1), 5)
    assert not np.array_equal(a.first, other.first)


def test_shifted_textures_have_one_flow_and_affine_ones_have_a_linear_one():
    flat = draw_flow_pair(FlowPairConfig(affine=0.0, size=32), 0).flow
    assert np.ptp(flat, axis=(0, 1)).max() < 1e-5
    bent = draw_flow_pair(FlowPairConfig(affine=1.0, size=32), 0).flow
    assert np.ptp(bent, axis=(0, 1)).max() > 0.01
    assert np.abs(np.diff(bent, 2, axis=0)).max() < 1e-4
    assert np.abs(np.diff(bent, 2, axis=1)).max() < 1e-4


def test_sprites_are_counted_and_move_on_their_own():
    found = {name: set() for name in LABELS}
    for number in range(40):
        pair = draw_flow_pair(FlowPairConfig(kind="sprites", size=64), number)
        flows = np.unique(pair.flow.reshape(-1, 2).round(4), axis=0)
        assert len(flows) == pair.labels["count"] + 2  # as many sprites, and the ground
        for name in LABELS:
            found[name].add(pair.labels[name])
    assert all(len(found[name]) == len(CLASSES[name]) for name in LABELS)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"size": 8}, "size=8"),
        ({"longest": 0.0}, "longest=0.0"),
        ({"longest": 40.0}, "longest=40.0"),
        ({"affine": 2.0}, "affine=2.0"),
        ({"kind": "films"}, "kind='films'"),
    ],
)
def test_impossible_pairs_are_refused(changes, named):
    with pytest.raises(ConfigError, match=named):
        FlowPairConfig(**changes)
    with pytest.raises(ConfigError, match="count=0"):
        draw_flow_set(FlowPairConfig(), 0)
