"""Content and motion in one model: which batch trains what, and both losses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ...core.rng import torch_generator
from ...datasets.views import ViewConfig, make_views
from ..blocks import projector
from ..diagnostics import embedding_report, pixel_probe
from ..engine import LoopConfig
from ..objectives.latents import Latents
from ..objectives.term import Sizes
from ..objectives.vicreg import Vicreg, VicregConfig
from ..parallel import WHOLE, Part
from .flow_head import FlowHead, FlowHeadConfig
from .flow_metrics import consistent, inconsistency
from .losses import FlowLossConfig, flow_losses
from .pyramid import PyramidConfig, PyramidEncoder
from .warp import resize_flow

Arm = Literal["both", "flow", "content"]
Kind = Literal["flow", "content"]


def two_views() -> ViewConfig:
    """VICReg's two views of an image, at 64 pixels."""
    return ViewConfig(global_views=2, local_views=0, global_size=64)


@dataclass(frozen=True, kw_only=True)
class MotionConfig:
    """MC-JEPA: the pyramid, what is learned with it, and in what order."""

    encoder: PyramidConfig = field(default_factory=PyramidConfig)
    """The encoder, which both losses share."""
    head: FlowHeadConfig = field(default_factory=FlowHeadConfig)
    """The flow head."""
    losses: FlowLossConfig = field(default_factory=FlowLossConfig)
    """What flow is trained by."""
    views: ViewConfig = field(default_factory=two_views)
    """Views of an image, which should be alike."""
    vicreg: VicregConfig = field(default_factory=VicregConfig)
    """How alike, and how spread."""
    expander: int = 64
    """Width of the three layers between features and what VICReg compares. No more than a few times
    the batch: N samples in D channels have off-diagonal covariances of (D - 1) / (N - 1) by chance,
    and far above 1 these keep the views from spreading."""
    arm: Literal["both", "flow", "content"] = "both"
    """What is learned: both, flow alone (M-JEPA) or content alone (VICReg)."""
    flow_weight: float = 0.1
    """Of the flow's loss beside the content's."""
    flow_start: float = 0.1
    """Share of the steps, all of them on content, before flow begins; then they alternate."""

    def __post_init__(self) -> None:
        if self.arm not in ("both", "flow", "content"):
            raise ConfigError(f'motion.arm = "{self.arm}": must be both, flow or content')
        if self.expander < 2:
            raise ConfigError(f"motion.expander = {self.expander}: must be at least 2")
        if not 0 < self.flow_weight < math.inf:
            raise ConfigError(
                f"motion.flow_weight = {self.flow_weight}: must be above 0, and finite; to train "
                'without flow set motion.arm = "content"'
            )
        if not 0 <= self.flow_start < 1:
            raise ConfigError(
                f"motion.flow_start = {self.flow_start}: a share of the steps, in [0, 1); to train "
                'without flow set motion.arm = "content"'
            )
        if self.vicreg.on != "views" or self.vicreg.weight == 0:
            raise ConfigError(
                f'motion.vicreg.on = "{self.vicreg.on}", weight = {self.vicreg.weight}: it '
                "compares views, with a weight above 0"
            )
        flows = self.encoder.depth - self.head.finest
        if flows < 1:
            raise ConfigError(
                f"motion.head.finest = {self.head.finest}: motion.encoder.widths has "
                f"{self.encoder.depth} levels, numbered from 0"
            )
        if self.losses.levels and len(self.losses.levels) != flows:
            raise ConfigError(
                f"motion.losses.levels = {self.losses.levels}: one weight for each of the {flows} "
                "levels from motion.head.finest on"
            )
        if self.arm != "flow":
            self._check_views()

    def _check_views(self) -> None:
        v = self.views
        if v.global_views + v.local_views < 2:
            raise ConfigError(
                f"motion.views: {v.global_views} global and {v.local_views} local views; VICReg "
                "compares two at least"
            )
        sides = {"global_size": v.global_size} | (
            {"local_size": v.local_size} if v.local_views else {}
        )
        for name, side in sides.items():
            try:
                self.encoder.grid(1, side, side)
            except ConfigError as error:
                raise ConfigError(f"motion.views.{name} = {side}: {error}") from error

    def check_clips(self, frames: int, side: int) -> None:
        """Raise ConfigError for clips that cannot train this: of one frame, for flow; of a side
        that the pyramid does not divide."""
        if self.arm != "content" and frames < 2:
            raise ConfigError(
                f"clips.frames = {frames}: flow is between two frames; take clips of two or more, "
                'or train on content alone with motion.arm = "content"'
            )
        self.encoder.grid(frames, side, side)

    def check_run(self, loop: LoopConfig, batch_size: int) -> None:
        """Raise ConfigError for a training loop that does not fit."""
        for name in ("checkpoint_blocks", "compile", "shard"):
            if getattr(loop, name):
                raise ConfigError(
                    f"loop.{name} = true is for transformer blocks, and motion has none"
                )
        if loop.accumulate > 1:
            raise ConfigError(
                f"loop.accumulate = {loop.accumulate}: motion compares the samples of a batch, so "
                "that its parts do not add up to it; set it to 1"
            )
        if self.arm == "both" and loop.log_every % 2 == 0:
            raise ConfigError(
                f"loop.log_every = {loop.log_every}: steps of content and of flow alternate, and "
                "an even number would log one of them alone; take an odd one"
            )
        if self.arm != "flow" and batch_size < 2:
            raise ConfigError(f"batch_size = {batch_size}: VICReg needs two images at least")

    def kind(self, step: int, steps: int) -> Kind:
        """What step ``step`` of ``steps`` trains."""
        if self.arm != "both":
            return self.arm
        late = step - round(self.flow_start * steps)
        return "flow" if late >= 0 and late % 2 == 0 else "content"

    def before(self, step: int, steps: int) -> dict[Kind, int]:
        """How many of the steps before ``step`` train what."""
        if self.arm != "both":
            return {"flow": 0, "content": 0, self.arm: step}
        flow = max(0, step - round(self.flow_start * steps) + 1) // 2
        return {"flow": flow, "content": step - flow}


class MotionModel(nn.Module):
    """The pyramid, and for what the arm trains: the flow head, the expander with VICReg.

    Args:
        steps: of the whole run. seed: of views, and of which frames are taken.
    """

    def __init__(self, config: MotionConfig, *, steps: int, seed: int = 0):
        super().__init__()
        self.config, self.steps, self.seed = config, steps, seed
        self.encoder = PyramidEncoder(config.encoder)  # first: its weights are those of every arm
        if config.arm != "content":
            self.head = FlowHead(config.head, config.encoder.widths)
        if config.arm != "flow":
            self.expander = projector(
                config.encoder.width, config.expander, config.expander, act=nn.ReLU
            )
            self.vicreg = Vicreg(config.vicreg, Sizes())

    @property
    def output(self) -> PyramidEncoder:
        """The encoder to keep."""
        return self.encoder

    def losses(self, video: Tensor, step: int, part: Part = WHOLE) -> dict[str, Tensor]:
        """The terms of what ``step`` trains, and ``loss``.

        Args:
            video: uint8 ``[B, T, H, W, 3]``: the step's batch, or ``part`` of it. A flow step takes
            two frames in a row of each clip, a content step one; which, is drawn for the clip's
            number in the run.
        """
        if self.config.kind(step, self.steps) == "content":
            return self._content(self._frames(video, 1, step, part), step, part)
        first, second = self._frames(video, 2, step, part).unbind(1)
        terms = self._flow(first, second)
        weight = self.config.flow_weight if self.config.arm == "both" else 1.0
        return terms | {"loss": weight * terms["flow"]}

    @torch.no_grad()
    def flow(self, first: Tensor, second: Tensor) -> Tensor:
        """The flow between frames uint8 ``[B, H, W, 3]``: float32 ``[B, 2, H, W]``, (x, y) in
        pixels; what is at p in the first is at p + flow(p) in the second.

        Raises ConfigError without a flow head, or for a side that the pyramid does not divide.
        """
        if self.config.arm == "content":
            raise ConfigError('motion.arm = "content": this model was not trained to see flow')
        self.encoder.grid(first.unsqueeze(1))
        flows = self.head(self.encoder.levels(first), self.encoder.levels(second))
        return resize_flow(flows[0].float(), *first.shape[1:3])

    def after_step(self, step: int, steps: int) -> None:
        """Nothing: there is no teacher."""

    def report(self, video: Tensor, step: int) -> dict[str, float]:
        """Diagnostics on one batch: :func:`embedding_report` of the tokens of each clip's first
        frame, ``pixel_r2``; and of clips of two frames or more ``flow_size``, the mean length of
        the flow in pixels, and the agreement of both directions, see :mod:`.flow_metrics`."""
        first = video[:, 0]
        tokens = self.encoder(video[:, :1])
        found = embedding_report(tokens, tokens) | {"pixel_r2": pixel_probe(tokens, video[:, :1])}
        if self.config.arm == "content" or video.shape[1] < 2:
            return found
        forward, backward = (
            self.flow(*pair) for pair in ((first, video[:, 1]), (video[:, 1], first))
        )
        return found | {
            "flow_size": forward.norm(dim=1).mean().item(),
            "flow_inconsistency": inconsistency(forward, backward).mean().item(),
            "flow_consistent": consistent(forward, backward).float().mean().item(),
        }

    def _content(self, frames: Tensor, step: int, part: Part) -> dict[str, Tensor]:
        """VICReg of views of ``frames [B, 1, H, W, 3]``, each drawn from its number's stream."""
        batch = len(frames)
        first = step * part.of * batch + part.rows(batch).start
        drawn = [
            make_views(frame, self.config.views, torch_generator(self.seed, "views", sample))
            for sample, frame in enumerate(frames.split(1), start=first)
        ]
        pooled = [self.encoder(torch.cat(same)).mean(1) for same in zip(*drawn, strict=True)]
        views = self.expander(torch.cat(pooled)).unflatten(0, (len(pooled), batch))
        total, parts = self.vicreg(Latents(step=step, views=views))
        weighted = self.config.vicreg.weight_at(step) * total
        return {f"content_{name}": value for name, value in parts.items()} | {
            "content": total,
            "loss": weighted,
        }

    def _flow(self, first: Tensor, second: Tensor) -> dict[str, Tensor]:
        """The flow's losses between frames uint8 ``[B, H, W, 3]``, both ways."""
        batch = len(first)
        both = self.encoder.levels(torch.cat([first, second]))
        swapped = [torch.cat(level.split(batch)[::-1]) for level in both]
        flows = self.head(both, swapped)
        a, b = (tuple(zip(*(x.split(batch) for x in some), strict=True)) for some in (both, flows))
        images = tuple(x.movedim(-1, 1).float() / 255 for x in (first, second))
        with torch.autocast(first.device.type, enabled=False):
            return flow_losses(
                (images[0], images[1]),
                ([x.float() for x in a[0]], [x.float() for x in a[1]]),
                ([x.float() for x in b[0]], [x.float() for x in b[1]]),
                self.config.losses,
            )

    def _frames(self, video: Tensor, count: int, step: int, part: Part) -> Tensor:
        """``count`` frames in a row ``[B, count, H, W, 3]`` from a random place of each clip."""
        length, batch = video.shape[1], len(video)
        if length < count:
            raise ConfigError(f"clips of {length} frame: flow is between two frames")
        if length == count:
            return video
        first = step * part.of * batch + part.rows(batch).start
        places = [
            int(
                torch.randint(
                    length - count + 1, (), generator=torch_generator(self.seed, "frames", n)
                )
            )
            for n in range(first, first + batch)
        ]
        return torch.stack([clip[p : p + count] for clip, p in zip(video, places, strict=True)])
