"""Attentive probes: what the V-JEPA family is evaluated with on frozen tokens.

Learned queries read the encoder's tokens by cross-attention; a linear layer classifies each. The
names of the parameters are the published ones (``pooler.query_tokens``,
``pooler.cross_attention_block.xattn.kv``, ``pooler.blocks.0.attn.qkv``, ``linear``), so a published
probe loads after taking off its ``module.`` prefix.

Two things differ between the published probes and their Hugging Face port, and both are settings
here: the port normalises with eps 1e-6 where the probes were trained with 1e-5, and it takes the
*encoder's* number of heads where the probes have 16 (ViT-g: 22 against 16, another function).

Notation: B clips, N tokens, D width, Q queries, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from .blocks import MLP, Block, init_weights


@dataclass(frozen=True, kw_only=True)
class AttentiveConfig:
    """Architecture of a probe: V-JEPA (arXiv 2404.08471), V-JEPA 2 (2506.09985)."""

    width: int = 1024
    """Width D of the encoder's tokens."""
    classes: tuple[int, ...] = (174,)
    """Number of classes of each query: one for classification; verbs, nouns and actions for
    anticipation (Epic-Kitchens)."""
    depth: int = 4
    """Blocks: depth - 1 of self-attention, and the one of cross-attention."""
    heads: int = 16
    """Attention heads; must divide the width. V-JEPA 1's probes have as many as their encoder."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs over D."""
    eps: float = 1e-5
    """Of the LayerNorms: 1e-5 in the published probes, 1e-6 in the Hugging Face port."""
    version: Literal["v1", "v2"] = "v2"
    """v2: self-attention on the tokens, then the queries read them. v1: the queries read the tokens
    first, self-attention on the queries after (the published ones have depth 1, so none), and the
    files hold an output projection that nothing uses."""

    def __post_init__(self) -> None:
        checks = {
            f"classes = {self.classes}: give at least one number, each 1 or more": (
                bool(self.classes) and min(self.classes) >= 1
            ),
            f"depth = {self.depth}: must be 1 or more": self.depth >= 1,
            f"heads = {self.heads}: must be 1 or more and divide width = {self.width}": (
                self.heads >= 1 and self.width >= 1 and self.width % self.heads == 0
            ),
            f"mlp_ratio = {self.mlp_ratio}: must be above 0": self.mlp_ratio > 0,
            f"eps = {self.eps}: must be above 0": self.eps > 0,
            f"version = {self.version!r}: choose v1 or v2": self.version in ("v1", "v2"),
        }
        wrong = [message for message, fine in checks.items() if not fine]
        if wrong:
            raise ConfigError("; ".join(wrong))


class CrossAttention(nn.Module):
    """Queries ``[B, Q, D]`` attend to tokens ``[B, N, D]``; no output projection.

    With ``unused_proj`` it holds the projection that V-JEPA 1's files have, and does not use it.
    """

    def __init__(self, width: int, heads: int, unused_proj: bool = False):
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(width, width)
        self.kv = nn.Linear(width, 2 * width)
        if unused_proj:
            self.proj = nn.Linear(width, width).requires_grad_(False)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        q = self.q(queries).unflatten(-1, (self.heads, -1)).transpose(1, 2)
        kv = self.kv(tokens).unflatten(-1, (2, self.heads, -1))
        k, v = kv.transpose(1, 3).unbind(2)
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


class CrossAttentionBlock(nn.Module):
    """Queries read normed tokens; the queries themselves are not normed before they do."""

    def __init__(self, config: AttentiveConfig):
        super().__init__()
        c = config
        self.norm1 = nn.LayerNorm(c.width, eps=c.eps)
        self.xattn = CrossAttention(c.width, c.heads, unused_proj=c.version == "v1")
        self.norm2 = nn.LayerNorm(c.width, eps=c.eps)
        self.mlp = MLP(c.width, round(c.width * c.mlp_ratio))

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        x = queries + self.xattn(queries, self.norm1(tokens))
        return x + self.mlp(self.norm2(x))


class AttentivePooler(nn.Module):
    """Tokens ``[B, N, D]`` (any N) to one vector per query, ``[B, Q, D]``."""

    def __init__(self, config: AttentiveConfig):
        super().__init__()
        c = self.config = config
        self.query_tokens = nn.Parameter(torch.empty(1, len(c.classes), c.width))
        self.cross_attention_block = CrossAttentionBlock(c)
        self.blocks = nn.ModuleList(
            Block(c.width, c.heads, c.mlp_ratio, eps=c.eps) for _ in range(c.depth - 1)
        )
        nn.init.trunc_normal_(self.query_tokens, std=0.02)
        init_weights(self, self.blocks)

    def forward(self, tokens: Tensor) -> Tensor:
        if tokens.ndim != 3 or tokens.shape[-1] != self.config.width:
            raise ConfigError(
                f"tokens must be [B, N, {self.config.width}], got {list(tokens.shape)}; "
                "the probe's width is the encoder's"
            )
        first = self.config.version == "v2"
        x = self._self_attention(tokens) if first else tokens
        queries = self.query_tokens.expand(len(tokens), -1, -1)
        x = self.cross_attention_block(queries, x)
        return x if first else self._self_attention(x)

    def _self_attention(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


class AttentiveProbe(nn.Module):
    """Classifier on frozen tokens; one query.

    Raises :class:`ConfigError` when the config has other than one number of classes.

    >>> probe = AttentiveProbe(AttentiveConfig(width=96, heads=3, classes=(10,)))
    >>> probe(torch.zeros(2, 128, 96)).shape
    torch.Size([2, 10])
    """

    def __init__(self, config: AttentiveConfig):
        super().__init__()
        if len(config.classes) != 1:
            raise ConfigError(
                f"classes = {config.classes}: this probe takes one number; "
                "for verbs, nouns and actions use AnticipationProbe"
            )
        self.config = config
        self.pooler = AttentivePooler(config)
        self.linear = _classifier(config.width, config.classes[0])

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits ``[B, C]`` of tokens ``[B, N, D]``. Raises ConfigError for another shape."""
        return self.linear(self.pooler(tokens).squeeze(1))


class AnticipationProbe(nn.Module):
    """Verb, noun and action of what comes next: three queries (Epic-Kitchens-100, V-JEPA 2).

    Its tokens are the encoder's and the predictor's, side by side on the token axis.

    Raises :class:`ConfigError` when the config has other than three numbers of classes.
    """

    def __init__(self, config: AttentiveConfig):
        super().__init__()
        if len(config.classes) != 3:
            raise ConfigError(
                f"classes = {config.classes}: give three numbers, of verbs, nouns and actions"
            )
        verbs, nouns, actions = config.classes
        self.config = config
        self.pooler = AttentivePooler(config)
        self.verb_classifier = _classifier(config.width, verbs)
        self.noun_classifier = _classifier(config.width, nouns)
        self.action_classifier = _classifier(config.width, actions)

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Logits ``verb``, ``noun``, ``action``, each ``[B, C]``, of tokens ``[B, N, D]``."""
        verb, noun, action = self.pooler(tokens).unbind(1)
        return {
            "verb": self.verb_classifier(verb),
            "noun": self.noun_classifier(noun),
            "action": self.action_classifier(action),
        }


def _classifier(width: int, classes: int) -> nn.Linear:
    linear = nn.Linear(width, classes)
    nn.init.trunc_normal_(linear.weight, std=0.02)
    nn.init.zeros_(linear.bias)
    return linear
