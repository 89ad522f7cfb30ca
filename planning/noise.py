"""Search noise: per-problem random streams, and correlation over time."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..core.errors import PlanningError
from .protocol import Generators


def standard_normal(
    generator: Generators, problems: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Unit Gaussian noise float32 ``[problems, *shape]`` on ``device``; see :func:`uniform`."""
    return _filled(Tensor.normal_, generator, problems, shape, device)


def uniform(
    generator: Generators, problems: int, shape: tuple[int, ...], device: torch.device
) -> Tensor:
    """Numbers uniform in [0, 1), float32 ``[problems, *shape]`` on ``device``.

    With one generator per problem, problem b's noise depends on generator b alone, so a problem
    gets the same noise in any batch. Drawn where the generators live, so a CPU generator gives the
    same numbers to a model on any device.

    Raises :class:`PlanningError` if the list has another length than ``problems``.
    """
    return _filled(Tensor.uniform_, generator, problems, shape, device)


def _filled(
    fill: Callable[..., Tensor],
    generator: Generators,
    problems: int,
    shape: tuple[int, ...],
    device: torch.device,
) -> Tensor:
    if isinstance(generator, torch.Generator):
        noise = torch.empty(problems, *shape, device=generator.device)
        return fill(noise, generator=generator).to(device)
    if len(generator) != problems:
        raise PlanningError(f"{len(generator)} generators for {problems} problems: give one each")
    noise = torch.empty(problems, *shape, device=generator[0].device)
    for row, one in zip(noise.unbind(), generator, strict=True):
        fill(row, generator=one)
    return noise.to(device)


def colouring(horizon: int, beta: float) -> Tensor:
    """Matrix float32 ``[H, H]`` that turns white noise over time into coloured noise.

    The result has unit variance at every step and a power spectrum ~ 1 / f**beta (0 white, 1 pink,
    2 red), as in iCEM (arXiv:2008.06389). It is the Cholesky factor of the autocovariance of a
    stationary process of period 2 H, so the first and the last step are not tied together as they
    are by an inverse Fourier transform of length H.
    """
    frequency = torch.fft.fftfreq(2 * horizon, dtype=torch.float64).abs()
    power = frequency.clamp(min=1 / (2 * horizon)) ** -beta
    covariance = torch.fft.ifft(power / power.mean()).real[:horizon]
    step = torch.arange(horizon)
    return torch.linalg.cholesky(covariance[(step[:, None] - step).abs()]).float()
