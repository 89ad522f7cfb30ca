"""Modules made from weights: not initialised first, and every number accounted for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError
from ..encoder import EncoderConfig, TubeletEncoder
from ..positions import Grid, PositionConfig, sincos_table
from .files import check_tensors
from .keys import Entry, Report, check_fit, plain, read, shapes_of

M = TypeVar("M", bound=nn.Module)


def blank(build: Callable[[], M]) -> M:
    """The module that ``build`` makes, without memory and without the cost of initialising it."""
    with torch.device("meta"):
        return build()


def complete(module: M, weights: Mapping[str, Tensor]) -> M:
    """Make ``weights``, as :func:`keys.read` gives them, those of a blank module, in eval mode."""
    module.load_state_dict(weights, assign=True)
    if isinstance(module, TubeletEncoder):  # the rest follows from the config
        mean, std = module.config.pixel_mean, module.config.pixel_std
        pixels = EncoderConfig(width=6, depth=1, heads=1, patch=1, pixel_mean=mean, pixel_std=std)
        with torch.random.fork_rng(devices=[]):
            buffers = dict(TubeletEncoder(pixels).named_buffers())
        for name, buffer in buffers.items():
            setattr(module, name, buffer)
    return module.eval()


def load_part(
    module: M,
    entries: Iterable[Entry],
    tensors: Mapping[str, Tensor],
    *,
    source: str,
    report: Report,
    table_key: str = "",
    of: str = "this architecture",
) -> M:
    """Complete a blank module from its weights under foreign names.

    Args:
        module: as :func:`blank` makes it.
        entries: what its weights are called there.
        tensors: those weights, all of one floating type; read into float32.
        source: names them in errors and in the report.
        report: told of every key.
        table_key: name of the position table there, which must be there and equal to ours with
            sin-cos positions, and is left behind with rotary ones.
        of: the architecture, in words.

    Raises:
        CheckpointError: any missing, unexpected or mis-shaped key, other types of weights, or
            another position table.
    """
    tensors, entries = dict(tensors), list(entries)
    table = position_table(module)
    expected = []
    if table is not None:
        expected = [plain("", table_key, (1, *table.shape))]
    elif table_key in tensors:
        report.dropped[f"{source}: {table_key}"] = "positions are rotary"
        del tensors[table_key]
    dtype = check_tensors(tensors, source)
    check_fit([*entries, *expected], shapes_of(tensors), source=source, of=of)
    if table is not None:
        worst = (tensors.pop(table_key)[0].float() - table).abs().max().item()
        said = table_name(module)
        if not worst <= (1e-5 if dtype == torch.float32 else 8e-3):
            raise CheckpointError(
                f"{source}: {table_key} is not {said}: they differ by up to {worst:.2g}; these "
                "weights were trained with other positions"
            )
        report.regenerated[f"{source}: {table_key}"] = f"{said}, to {worst:.1g}"
    if dtype != torch.float32:
        report.notes.append(f"{source}: {dtype} weights are held as float32, exactly")
    report.mapped += [f"{source}: {key}" for key in tensors]
    return complete(module, read(entries, tensors, source=source))


def position_table(module: nn.Module) -> Tensor | None:
    """The sin-cos table ``[N, D]`` that others keep among a module's weights; None with rope.

    Raises:
        CheckpointError: the module computes it for any grid, and has no native one.
    """
    config: Any = module.config
    position: PositionConfig | None = getattr(config, "position", None)
    if position is None or position.kind == "rope":
        return None
    if not position.native:
        raise CheckpointError(
            "this model computes its sin-cos positions for any grid, and other formats hold those "
            "of one: set position.native to the grid (t, h, w) that it was trained on"
        )
    return sincos_table(Grid(*position.native), config.width, "cpu", position.axes)


def table_name(module: nn.Module) -> str:
    """What :func:`position_table` is, in words."""
    position: Any = module.config
    return f"the {position.position.axes} sin-cos table of the grid {position.position.native}"
