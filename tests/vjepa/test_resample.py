"""Pillow's resize in torch against Pillow."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tubelet.vjepa.resample import pillow_bilinear


def noise(height, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (height, width, 3), dtype=torch.uint8, generator=generator)


def pillow(frame, height, width):
    resized = Image.fromarray(frame.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


SIDE = st.integers(1, 60)


@settings(max_examples=150, deadline=None)
@given(SIDE, SIDE, SIDE, SIDE, st.integers(0, 99))
def test_pillows_resize_to_the_bit(height, width, new_height, new_width, seed):
    """Rows first, in two calls: Pillow 13 takes the columns of tall images first."""
    frame = noise(height, width, seed=seed)
    got = pillow_bilinear(frame.permute(2, 0, 1), (new_height, new_width)).permute(1, 2, 0)
    assert torch.equal(got, pillow(pillow(frame, height, new_width), new_height, new_width))


@pytest.mark.parametrize("size", [(72, 128), (96, 128), (128, 96), (128, 72), (300, 100)])
def test_pillows_resize_in_one_call_is_the_same_or_one_step_away(size):
    frame = noise(*size)
    short = [round(64 * side / min(size)) for side in size]
    got = pillow_bilinear(frame.permute(2, 0, 1), (short[0], short[1])).permute(1, 2, 0)
    away = (got.int() - pillow(frame, *short).int()).abs().max()
    assert away <= (1 if size[0] > 2 * size[1] else 0)
