"""How the arms of :mod:`.jedi_study` train: one encoder, its masks and clips, eight objectives.

The base is V-JEPA 2's objective with the moving average, the error and the schedule of
:mod:`.video_arms`, whose latent arm it is; feedback has the settings of the preset ``jedi``.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from ..core.run import RunDir
from ..datasets.clips import ClipBatch, clip_batches
from ..datasets.corpus import CorpusIndex
from ..vjepa.checkpoint import find_checkpoint, load_checkpoint
from ..vjepa.masked import MaskedModel
from ..vjepa.objectives.feedback import FeedbackConfig
from ..vjepa.pretrain import PretrainConfig, build, pretrain
from .video_arms import ArmConfig, arm_config, clip_config

BASE, CONTROL, FROZEN, LONGER = "base", "critic, nothing fed back", "frozen critic", "base, longer"
FEEDBACK: dict[str, FeedbackConfig | None] = {
    BASE: None,
    CONTROL: FeedbackConfig(kind="both", ratio=0.0),
    FROZEN: FeedbackConfig(kind="both", frozen=True),
    "moments": FeedbackConfig(kind="moments"),
    "structure": FeedbackConfig(kind="structure"),
    "coherence": FeedbackConfig(kind="coherence"),
    "both": FeedbackConfig(kind="both"),
    LONGER: None,
}
"""The arms, in the order of the protocol."""
JUDGED = ("moments", "structure", "coherence", "both")
"""Arms that feedback may help by."""


def jedi_config(name: str, arm: ArmConfig, seed: int) -> PretrainConfig:
    """The run of one arm; ``base, longer`` takes as many more steps as ``both`` costs.

    Raises ConfigError for another name.
    """
    if name not in FEEDBACK:
        hint = did_you_mean(name, FEEDBACK)
        raise ConfigError(f"arms: no {name!r}{hint}; choose of {', '.join(FEEDBACK)}")
    steps = arm.steps
    if name == LONGER:
        steps = round(steps * cost_ratio(arm))
    config = arm_config("latent", replace(arm, steps=steps), seed)
    every = max(1, steps // 8)
    loop = replace(config.loop, steps=steps, report_every=every, save_every=every, keep=1)
    objective = replace(config.objective, feedback=FEEDBACK[name])
    return replace(config, loop=loop, objective=objective)


@functools.cache
def cost_ratio(arm: ArmConfig) -> float:
    """Operations of a training step of ``both`` over those of the base: multiplications counted as
    they are carried out, forwards and backwards, over a period of the slope penalty."""
    every = FeedbackConfig().slope_every
    costs = []
    for name in ("both", BASE):
        config = jedi_config(name, arm, 0)
        model = build(config).train()
        assert isinstance(model, MaskedModel)
        total = 0
        for step in range(every):
            generator = torch.Generator().manual_seed(step)
            shape = (2, arm.frames, arm.size, arm.size, 3)
            video = torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)
            with _Counter() as counter:
                model.losses(video, step)["loss"].backward()
            total += counter.total
        costs.append(total)
    return costs[0] / costs[1]


class _Counter(TorchDispatchMode):
    """Counts operations as torch's own counter does, without its hooks on modules, which gradients
    inside a loss do not allow."""

    total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.total += count(*args, **(kwargs or {}), out_val=out)
        return out


def train_jedi(
    name: str, arm: ArmConfig, films: CorpusIndex, cache: Path, out: Path, seed: int, device: str
) -> None:
    """Train one arm with one seed, or go on with the run in ``out``.

    Args:
        films: the videos. cache: folder of their decoded frames.
    """
    config, clips = jedi_config(name, arm, seed), clip_config(arm, seed)

    def batches(first: int) -> Iterator[ClipBatch]:
        return clip_batches(films, clips, arm.batch, start_step=first, cache=cache)

    with RunDir.create(out, config, resume=True) as run:
        pretrain(config, batches, run, device=device)


def load_arm(name: str, arm: ArmConfig, out: Path, seed: int, device: str) -> MaskedModel:
    """The trained model of an arm, frozen and in eval mode."""
    model = build(jedi_config(name, arm, seed))
    assert isinstance(model, MaskedModel)
    load_checkpoint(find_checkpoint(out), model=model)
    return model.requires_grad_(False).eval().to(device)
