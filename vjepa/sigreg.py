"""SIGReg: sliced Epps-Pulley regularisation towards an isotropic Gaussian (arXiv 2511.08544)."""

from __future__ import annotations

import torch
from torch import Tensor


def sigreg(
    x: Tensor,
    *,
    slices: int = 256,
    nodes: int = 17,
    t_max: float = 3.0,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Mean over random directions of the Epps-Pulley statistic against N(0, 1), times N.

    ``T = N * integral |ecf(t) - phi(t)|^2 exp(-t^2 / 2) dt`` over the real line cut to
    ``[-t_max, t_max]``, by the trapezoid rule on the half line. A standard normal sample gives
    1.0525 on average whatever N (17 nodes, t_max 3); full collapse at zero gives 0.40205 N.

    Args:
        x: ``[..., N, D]``: N samples; leading axes are averaged over (time steps, say).
        slices: number of random unit directions.
        generator: draws the directions.

    Returns:
        float32 scalar.
    """
    with torch.autocast(x.device.type, enabled=False):  # low precision would drown the statistic
        x = x.float()
        directions = torch.randn(x.shape[-1], slices, generator=generator).to(x.device)
        projected = x @ (directions / directions.norm(dim=0))  # [..., N, M]
        t = torch.linspace(0, t_max, nodes, device=x.device)
        weight = torch.full_like(t, 2 * t_max / (nodes - 1))
        weight[[0, -1]] = t_max / (nodes - 1)
        phi = torch.exp(-t.square() / 2)
        angle = projected.unsqueeze(-1) * t  # [..., N, M, K]
        real = angle.cos().mean(dim=-3) - phi
        imaginary = angle.sin().mean(dim=-3)
        statistic = (real.square() + imaginary.square()) @ (weight * phi)
        return x.shape[-2] * statistic.mean()
