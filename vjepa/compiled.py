"""Rollouts as one compiled graph: on CUDA replayed whole, not kernel by kernel."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from .action_predictor import ActionPredictor

_HARMLESS = ".*call to a `functools.lru_cache`"  # position tables: functions of the grid alone


def compile_rollouts(
    predictor: nn.Module, *, backend: str = "inductor", fullgraph: bool = False
) -> None:
    """Compile ``predictor.rollout_candidates`` in place: all steps and blocks in one graph.

    The same function up to rounding. Every new shape ``[B, S, H, A]`` of candidates is traced and
    compiled once, which takes about a minute; torch runs what comes after the eighth shape as
    before, with a warning. On CUDA the graph is recorded and replayed (CUDA graphs), so that small
    models do not wait for kernels to be launched; results are copied out of its memory.

    Args:
        predictor: an :class:`~.action_predictor.ActionPredictor`, on the device where it will run.
        backend, fullgraph: of ``torch.compile``. "aot_eager" traces without generating code;
            fullgraph makes what cannot be traced, and the ninth shape, an error.

    Raises:
        ConfigError: another kind of predictor.
    """
    if not isinstance(predictor, ActionPredictor):
        raise ConfigError(
            f"a {type(predictor).__name__} cannot be compiled: only rollouts of one future can"
        )
    warnings.filterwarnings("ignore", message=_HARMLESS)
    cuda = next(predictor.parameters()).is_cuda
    mode = "reduce-overhead" if cuda and backend == "inductor" else None
    graph: Any = torch.compile(
        predictor.rollout_candidates, backend=backend, mode=mode, dynamic=False, fullgraph=fullgraph
    )

    def replay(*args: Any, **kwargs: Any) -> Tensor:
        torch.compiler.cudagraph_mark_step_begin()
        return graph(*args, **kwargs).clone()

    predictor.rollout_candidates = replay if cuda else graph
