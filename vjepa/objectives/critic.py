"""Critics of predicted token sets: is this set one that targets could be, and does it fit?

Small on purpose, and with bounded slopes (spectral norm, arXiv 1802.05957): a critic that is surer
than its data teaches its predictor nothing. Used in training alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


def _linear(inputs: int, outputs: int) -> nn.Module:
    return spectral_norm(nn.Linear(inputs, outputs))


class SetCritic(nn.Module):
    """Scores sets of tokens, whatever their order: a deep set (arXiv 1703.06114).

    Args:
        dim: D, width of the tokens. width: of the critic.
        context_dim: width of the context tokens that it looks at too; None: it does not.
    """

    def __init__(self, dim: int, width: int, *, context_dim: int | None = None):
        super().__init__()
        context = context_dim is not None
        self.token, self.place = _linear(dim, width), _linear(3, width)
        self.context = _linear(context_dim, width) if context_dim is not None else None
        self.inner = _linear((3 if context else 2) * width, width)
        self.score = _linear(width, 1)

    def forward(self, tokens: Tensor, places: Tensor, context: Tensor | None = None) -> Tensor:
        """Logits ``[B]``, high for sets that look real.

        Args:
            tokens: ``[B, M, D]``. places: ``[B, M, 3]``, where each is, in [0, 1].
            context: ``[B, K, C]``, for a critic that looks at it.
        """
        h = F.gelu(self.token(tokens) + self.place(places))
        seen = [h.mean(dim=1, keepdim=True)]
        if self.context is not None:
            assert context is not None
            seen.append(F.gelu(self.context(context)).mean(dim=1, keepdim=True))
        around = torch.cat(seen, dim=-1).expand(-1, h.shape[1], -1)
        h = F.gelu(self.inner(torch.cat([h, around], dim=-1)))
        return self.score(h).mean(dim=1).squeeze(-1)


class PairEnergy(nn.Module):
    """How well a set of tokens goes with a context: cosines of two embeddings over a temperature.

    Args:
        dim: D, width of the tokens. width: of both embeddings. context_dim: of context tokens.
        temperature: of the softmax over pairs.
    """

    def __init__(self, dim: int, width: int, *, context_dim: int, temperature: float = 0.1):
        super().__init__()
        self.temperature = temperature
        self.context, self.token = _linear(context_dim, width), _linear(dim, width)
        self.place = _linear(3, width)
        self.left, self.right = _linear(width, width), _linear(width, width)

    def forward(self, tokens: Tensor, places: Tensor, context: Tensor) -> Tensor:
        """Scores ``[B, B]`` of every context (rows) with every set (columns); see SetCritic."""
        a = self.left(F.gelu(self.context(context)).mean(dim=1))
        b = self.right(F.gelu(self.token(tokens) + self.place(places)).mean(dim=1))
        return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T / self.temperature


def critic_loss(real: Tensor, fakes: list[Tensor]) -> Tensor:
    """Logistic loss of logits ``[B]``: real above 0, every kind of fake below, all fakes together
    weighing as much as the real ones. 2 log 2 for a critic that says nothing."""
    wrong = torch.stack([F.softplus(fake).mean() for fake in fakes]).mean()
    return F.softplus(-real).mean() + wrong


def slope_penalty(
    critic: SetCritic, real: Tensor, places: Tensor, context: Tensor | None
) -> Tensor:
    """R1 (arXiv 1801.04406): half the mean squared gradient of the score at real sets."""
    real = real.detach().requires_grad_()
    (slope,) = torch.autograd.grad(critic(real, places, context).sum(), real, create_graph=True)
    return slope.square().sum(dim=(1, 2)).mean() / 2
