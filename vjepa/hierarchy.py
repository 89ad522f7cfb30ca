"""Slower clocks over the latents of a world model (H-JEPA).

    level 1   z_t, block of actions             -> z_{t+1}     the world model's own predictor
    level 2   z_t, l = E2(h2 blocks of actions) -> z_{t+h2}
    level 3   z_t, l = E3(h3 blocks of actions) -> z_{t+h3}    and so on

All levels share one encoder and one space of latents, so what a level predicts is a goal for the
level below. A macro-action l is what its encoder keeps of a chunk of primitive actions, of low
width. Levels learn by prediction alone (LeCun 2022; HWM, arXiv 2604.03208), on constant latents
when level 1 is frozen. A sample of the training chunks stays with each level: macro-actions far
from theirs mean nothing to its predictor (arXiv 2607.12547), and planners must know where that is.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..core.latent import Latent
from .action_predictor import ActionPredictor
from .blocks import Block
from .hierarchy_config import HierarchyConfig
from .objectives.latents import Latents
from .objectives.objective import Objective, ObjectiveConfig
from .objectives.regress import MultistepConfig, RegressConfig
from .objectives.targets import TargetConfig
from .world_model import WorldModel, candidate_bytes

_HEAD = 16
_PROVIDES = ("pred", "target", "rollout", "rollout_target")
_NAMES = {"regress": "teacher", "multistep": "rollout"}


class MacroEncoder(nn.Module):
    """Chunks of primitive actions ``[..., h, A]`` to macro-actions ``[..., m]``."""

    def __init__(self, config: HierarchyConfig, length: int, action_dim: int):
        super().__init__()
        c, width = config, config.encoder_width
        self.length, self.action_dim = length, action_dim
        if c.encoder == "mlp":
            sizes = [length * action_dim] + [width] * c.encoder_depth
            layers: list[nn.Module] = []
            for i in range(c.encoder_depth):
                layers += [nn.Linear(sizes[i], sizes[i + 1]), nn.SiLU()]
            self.body: nn.Module = nn.Sequential(nn.Flatten(-2), *layers)
        else:
            self.body = _ChunkTransformer(length, action_dim, width, c.encoder_depth)
        self.head = nn.Linear(width, c.macro_dim)

    def forward(self, actions: Tensor) -> Tensor:
        """Raises ConfigError for chunks of another length or width."""
        if tuple(actions.shape[-2:]) != (self.length, self.action_dim):
            raise ConfigError(
                f"a chunk of actions of shape {list(actions.shape[-2:])}: this level reads "
                f"[h, A] = [{self.length}, {self.action_dim}]"
            )
        flat = actions.reshape(-1, *actions.shape[-2:]).to(self.head.weight.dtype)
        return self.head(self.body(flat)).view(*actions.shape[:-2], self.head.out_features)


class _ChunkTransformer(nn.Module):
    """A class token over the chunk's actions, each with its place: ``[M, h, A]`` to ``[M, w]``."""

    def __init__(self, length: int, action_dim: int, width: int, depth: int):
        super().__init__()
        self.embed = nn.Linear(action_dim, width)
        self.place = nn.Parameter(0.02 * torch.randn(length + 1, width))
        self.blocks = nn.ModuleList(Block(width, width // _HEAD) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, actions: Tensor) -> Tensor:
        x = self.embed(actions)
        x = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1) + self.place
        for block in self.blocks:
            x = block(x)
        return self.norm(x[:, 0])


class Level(nn.Module):
    """One slower clock: an encoder of macro-actions and a predictor of latents under them.

    Attributes:
        length: h, model steps that one step takes.
        chunks: float ``[M, h, A]``, training chunks; ``filled`` of them, int64 ``[]``, are there.
    """

    chunks: Tensor
    filled: Tensor

    def __init__(self, config: HierarchyConfig, model: WorldModel, length: int):
        super().__init__()
        c = self.config = config
        self.length = length
        self.encoder = MacroEncoder(c, length, model.action_dim)
        rows, columns = (side // model.config.pool for side in model.grid)
        self.predictor = ActionPredictor(
            c.predictor,
            latent_dim=model.latent_dim + model.config.proprio_dim,
            action_dim=c.macro_dim,
            grid=(1, 1) if model.config.latent == "vector" else (rows, columns),
        )
        self.register_buffer("chunks", torch.zeros(c.buffer, length, model.action_dim))
        self.register_buffer("filled", torch.zeros((), dtype=torch.int64))
        regress = RegressConfig(kind=c.loss, weight=c.teacher_weight)
        multistep = MultistepConfig(kind=c.loss, weight=c.rollout_weight)
        self.terms = Objective(
            ObjectiveConfig(
                target=TargetConfig(kind="shared"),
                regress=regress if c.teacher_weight else None,
                multistep=multistep if c.rollout_weight else None,
            ),
            _PROVIDES,
        )

    @torch.no_grad()
    def fill(self, chunks: Tensor) -> None:
        """Keep the first M of training chunks ``[m, h, A]``.

        Raises ConfigError for none, or of another shape.
        """
        if not len(chunks) or chunks.shape[1:] != self.chunks.shape[1:]:
            raise ConfigError(
                f"chunks of shape {list(chunks.shape)} cannot fill the buffer of a level that "
                f"reads [m >= 1, {', '.join(map(str, self.chunks.shape[1:]))}]"
            )
        chunks = chunks[: len(self.chunks)]
        self.chunks[: len(chunks)] = chunks.to(self.chunks)
        self.filled.fill_(len(chunks))

    def macros(self, actions: Tensor) -> Tensor:
        """Macro-actions ``[B, K, m]`` of actions ``[B, K * h, A]``."""
        return self.encoder(actions.unflatten(1, (-1, self.length)))

    def losses(self, z: Tensor, actions: Tensor, step: int) -> dict[str, Tensor]:
        """``teacher``, ``rollout`` (those in use) and ``loss`` of latents ``[B, H + 1, n, d]`` and
        actions ``[B, H, A]``."""
        macros, slow = self.macros(actions), z[:, :: self.length]
        needs, predictor = self.terms.needs, self.predictor
        known = Latents(
            step=step,
            target=(slow[:, 1:],),
            rollout_target=slow[:, 1:],
            pred=(predictor(slow[:, :-1], macros),) if "pred" in needs else None,
            rollout=predictor.rollout(slow[:, :1], macros) if "rollout" in needs else None,
        )
        return {
            _NAMES.get(str(name), str(name)): value for name, value in self.terms(known).items()
        }


class Hierarchy(nn.Module):
    """The levels above level 1, from level 2 up, as a part of ``model``."""

    def __init__(self, config: HierarchyConfig, model: WorldModel):
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList(Level(config, model, length) for length in config.lengths)

    def __iter__(self) -> Iterator[Level]:
        return (cast(Level, level) for level in self.levels)

    def fill(self, chunks: Sequence[Tensor]) -> None:
        """Keep training chunks ``[m, h, A]`` of every level. Raises ConfigError as a level does."""
        if len(chunks) != len(self.levels):
            raise ConfigError(f"chunks of {len(chunks)} levels for a model with {len(self.levels)}")
        for level, some in zip(self, chunks, strict=True):
            level.fill(some)

    def losses(self, z: Tensor, actions: Tensor, step: int) -> dict[str, Tensor]:
        """``level2_teacher``, ``level2_rollout``, … and their weighted sum, ``loss``.

        Args:
            z: ``[B, H + 1, n, d]`` latents as predictors read them, H a multiple of every length.
            actions: ``[B, H, A]``. step: of training.
        """
        total, found = z.new_zeros(()), {}
        for number, level in enumerate(self, start=2):
            terms = level.losses(z, actions, step)
            total = total + terms.pop("loss")
            found |= {f"level{number}_{name}": value for name, value in terms.items()}
        return found | {"loss": total}


class LevelDynamics:
    """A level as planners see it (``planning.MacroDynamics``).

    Attributes:
        action_dim: m, width of a macro-action. length: h, model steps per step. price: model calls
            that one step counts as: 1, a prediction.
    """

    price = 1

    def __init__(self, model: WorldModel, level: Level):
        self.model, self.level = model, level
        self.length, self.action_dim = level.length, level.config.macro_dim

    @torch.no_grad()
    def macros(self) -> Tensor:
        """Macro-actions float32 ``[M, m]`` of the training chunks that the model carries (M = 0 for
        a model that was never trained)."""
        return self.level.encoder(self.level.chunks[: int(self.level.filled)]).float()

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """Imagined latents ``[B, S, K, n, d]``, h model steps apart, of macro-actions
        ``[B, S, K, m]``."""
        return self.model.imagine(self.level.predictor, context, actions)

    def candidate_bytes(self, horizon: int, *, gradient: bool = False) -> int:
        """Memory that one candidate of :meth:`rollout` takes."""
        return candidate_bytes(self.level.predictor, horizon, gradient=gradient)


def attach(model: WorldModel, config: HierarchyConfig) -> Hierarchy | None:
    """Give ``model`` the levels of ``config``, with fresh weights from torch's generator.

    They are a module of it, ``hierarchy``, saved and loaded with the rest, and ``model.levels`` is
    what planners see. Nothing happens for a config without strides.
    """
    if not config.strides:
        return None
    hierarchy = model.hierarchy = Hierarchy(config, model)
    model.levels = tuple(LevelDynamics(model, level) for level in hierarchy)
    return hierarchy


def hierarchy_of(model: WorldModel) -> Hierarchy | None:
    """The levels of a model, or None."""
    return cast("Hierarchy | None", model._modules.get("hierarchy"))


def copy_levels(model: WorldModel, fresh: WorldModel) -> None:
    """Give ``fresh`` the levels of ``model``, if it has some: the same architecture and training
    chunks, weights from torch's generator."""
    if (higher := hierarchy_of(model)) is None:
        return
    copied = attach(fresh, higher.config)
    assert copied is not None
    for level, own in zip(higher, copied, strict=True):
        own.chunks.copy_(level.chunks)
        own.filled.copy_(level.filled)
