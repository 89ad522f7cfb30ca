"""The tokenizer interface, and an encoder over any tokenizer.

A modality's config (:class:`Modality`) says how a raw sample becomes tokens, where they are, which
are hidden and how the context sees the sample. All else (transformer blocks, predictor, targets,
objectives, training) is that of video.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from ...core.errors import ConfigError
from ..blocks import Block, init_weights
from ..masked import Selection


class Tokens(NamedTuple):
    """What a tokenizer makes of a batch."""

    content: Tensor
    """``[B, N, D]``."""
    places: Tensor
    """``[B, N, P]`` where each token is: metric coordinates, or whole numbers of a table."""


class Tokenizer(nn.Module):
    """Makes :class:`Tokens` of a batch of raw samples.

    Attributes:
        count: N, the same for every sample.
    """

    count: int

    def forward(self, x: Tensor) -> Tokens:
        raise NotImplementedError

    def place_embedding(self, width: int) -> nn.Module:
        """A module that embeds places ``[B, N, P]`` as ``[B, N, width]``."""
        raise NotImplementedError


class Modality(Protocol):
    """The config of a modality; samples are float32 tensors with the batch first.

    ``seed`` and ``first_sample`` (the number in the run of the batch's first sample) determine all
    that is random: samples are treated alike whichever process holds them.
    """

    def tokenizer(self, width: int) -> Tokenizer:
        """A new tokenizer to width D."""
        ...

    def prepare(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """Stored samples as the tokenizer takes them, at random, for training."""
        ...

    def still(self, x: Tensor) -> Tensor:
        """The same without chance, for evaluation."""
        ...

    def view(self, x: Tensor, *, seed: int, first_sample: int) -> Tensor:
        """What the context encoder sees of prepared samples; targets see them as they are."""
        ...

    def draw(self, x: Tensor, *, seed: int, step: int, first_sample: int) -> list[Selection]:
        """The masks of prepared samples; see :class:`tubelet.vjepa.masked.Selection`."""
        ...


@dataclass(frozen=True, kw_only=True)
class TokenTransformerConfig:
    """The transformer over tokens."""

    width: int = 384
    """D, width of a token."""
    depth: int = 12
    """Blocks."""
    heads: int = 6
    """Attention heads; must divide the width."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLP over the width."""
    places_every_block: bool = False
    """Add the position embedding before every block (Point-JEPA) rather than once."""

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads"):
            if getattr(self, name) < 1:
                raise ConfigError(f"encoder.{name} = {getattr(self, name)}: must be at least 1")
        if self.width % self.heads:
            near = self.heads * max(1, round(self.width / self.heads))
            raise ConfigError(
                f"encoder.width = {self.width} is not divisible by heads = {self.heads}; "
                f"the nearest width that is: {near}"
            )
        if not self.mlp_ratio > 0:
            raise ConfigError(f"encoder.mlp_ratio = {self.mlp_ratio}: must be positive")


class TokenTransformer(nn.Module):
    """Blocks over embedded tokens, and a last layer norm."""

    def __init__(self, config: TokenTransformerConfig):
        super().__init__()
        c = self.config = config
        self.blocks = nn.ModuleList(Block(c.width, c.heads, c.mlp_ratio) for _ in range(c.depth))
        self.norm = nn.LayerNorm(c.width, eps=1e-6)
        init_weights(self, self.blocks)

    def forward(self, content: Tensor, places: Tensor) -> Tensor:
        """``[B, K, D]`` of tokens ``content`` at embedded ``places``, both ``[B, K, D]``."""
        x = content + places
        for number, block in enumerate(self.blocks):
            x = block(x + places if number and self.config.places_every_block else x)
        return self.norm(x)


class Embedded(NamedTuple):
    """Tokens on their way into a transformer."""

    content: Tensor
    """``[B, N, D]``."""
    embedding: Tensor
    """``[B, N, D]`` position embeddings."""
    places: Tensor
    """``[B, N, P]``."""


class TokenEncoder(nn.Module):
    """Tokenizer, position embedding and transformer; called with raw samples.

    Attributes:
        width: D.
    """

    def __init__(self, tokenizer: Tokenizer, place: nn.Module, transformer: TokenTransformer):
        super().__init__()
        self.tokenizer, self.place, self.transformer = tokenizer, place, transformer

    @property
    def width(self) -> int:
        return self.transformer.config.width

    def embed(self, x: Tensor) -> Embedded:
        """Raw samples as tokens with their position embeddings."""
        content, places = self.tokenizer(x)
        return Embedded(content, self.place(places), places)

    def read(self, tokens: Embedded, keep: Tensor | None = None) -> Tensor:
        """Encoded tokens ``[B, N, D]``, or ``[B, K, D]`` of those in ``keep`` int64 ``[B, K]``."""
        content, embedding, _ = tokens
        if keep is not None:
            content, embedding = at(content, keep), at(embedding, keep)
        return self.transformer(content, embedding)

    def forward(self, x: Tensor, keep: Tensor | None = None) -> Tensor:
        """Encoded tokens of raw samples, as :meth:`read`."""
        return self.read(self.embed(x), keep)


def at(tokens: Tensor, ids: Tensor) -> Tensor:
    """Tokens ``[B, K, D]`` of ``tokens [B, N, D]`` at ``ids`` int64 ``[B, K]``."""
    return tokens.gather(1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def fresh(modality: Modality, config: TokenTransformerConfig) -> TokenEncoder:
    """A new encoder with weights from torch's global generator."""
    tokenizer = modality.tokenizer(config.width)
    place = tokenizer.place_embedding(config.width)
    return TokenEncoder(tokenizer, place, TokenTransformer(config))


@torch.inference_mode()
def encode(encoder: TokenEncoder, x: Tensor, *, batch: int = 64) -> Tensor:
    """Tokens float32 ``[M, N, D]`` on the CPU of raw samples ``x [M, ...]``, in eval mode."""
    training, device = encoder.training, next(encoder.parameters()).device
    encoder.eval()
    tokens = torch.cat([encoder(part.to(device)).float().cpu() for part in x.split(batch)])
    encoder.train(training)
    return tokens
