"""Moving pictures and features along a flow.

A flow ``[B, 2, H, W]`` is a displacement (x, y), x to the right and y down, in pixels of its own
level: what is at p in the first frame is at p + flow(p) in the second.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Every pixel's own place (x, y): ``[2, H, W]`` of the type and device of ``like``."""
    rows = torch.arange(height, dtype=like.dtype, device=like.device)
    columns = torch.arange(width, dtype=like.dtype, device=like.device)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y])


def warp(image: Tensor, flow: Tensor) -> Tensor:
    """``image(p + flow(p))`` at every pixel p: of the second frame it makes the first.

    Args:
        image: ``[B, C, H, W]``. flow: ``[B, 2, H, W]``.

    Returns:
        ``[B, C, H, W]``, interpolated linearly; what lies outside is the nearest pixel inside.
        Differentiable in both. (On CUDA the gradient of the image is summed in no fixed order.)
    """
    height, width = image.shape[-2:]
    places = pixel_grid(height, width, flow) + flow
    limits = flow.new_tensor([max(width - 1, 1), max(height - 1, 1)])
    around = (2 * places.movedim(1, -1) / limits - 1).to(image.dtype)
    return F.grid_sample(image, around, padding_mode="border", align_corners=True)


def inside(flow: Tensor) -> Tensor:
    """Where the flow ends in the frame: bool ``[B, 1, H, W]``."""
    height, width = flow.shape[-2:]
    x, y = (pixel_grid(height, width, flow) + flow.detach()).unbind(1)
    return ((x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)).unsqueeze(1)


def resize_flow(flow: Tensor, height: int, width: int) -> Tensor:
    """The flow at another size, in pixels of that size: ``[B, 2, height, width]``, linear."""
    factors = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])
    resized = F.interpolate(flow, (height, width), mode="bilinear", align_corners=False)
    return resized * factors[:, None, None]
