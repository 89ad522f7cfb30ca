"""Is the encoder learning or collapsing? Pure functions on embeddings, and a verdict.

The V-JEPA loss does not say: it falls, then rises, and drops to zero on collapse. These do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor


def feature_std(x: Tensor) -> float:
    """Mean over channels of the standard deviation over samples of ``x [M, D]``; 0 is collapse."""
    return x.float().std(dim=0).mean().item()


def rankme(x: Tensor) -> float:
    """Effective rank of ``x [M, D]``: exp of the entropy of normalised singular values.

    RankMe, arXiv 2210.02885; between 1 (a line) and min(M, D). Columns are centred first, so that
    a constant offset does not count as a dimension.
    """
    s = torch.linalg.svdvals(x.double() - x.double().mean(dim=0))
    total = s.sum()
    if total <= 1e-12:
        return 1.0
    p = s[s > 1e-12 * total] / total
    return math.exp(-(p * p.log()).sum().item())


def ridge_r2(features: Tensor, targets: Tensor, *, penalty: float = 1e-2) -> float:
    """R² of a linear ridge probe fitted on the first half of the samples, scored on the second.

    Args:
        features: ``[M, F]``. targets: ``[M, K]``. penalty: relative to the mean feature variance.

    Returns:
        R² pooled over targets (total error over total variance), so that a target that hardly
        varies hardly counts; 1 is perfect, 0 is the mean, negative is worse. 0 for fewer than four
        samples, or targets without variance, which cannot tell.
    """
    half = len(features) // 2
    if half < 2:
        return 0.0
    x, y = features.double(), targets.double()
    x = x - x[:half].mean(0)
    # One scale for all: a channel that was constant in one half must not explode in the other.
    x = x / x[:half].square().mean().sqrt().clamp_min(1e-9)
    offset = y[:half].mean(0)
    gram = x[:half] @ x[:half].T  # dual form: samples are fewer than features
    eye = torch.eye(half, dtype=gram.dtype, device=gram.device)
    dual = torch.linalg.solve(gram + penalty * x.shape[1] * eye, y[:half] - offset)
    predicted = x[half:] @ (x[:half].T @ dual) + offset
    error = (predicted - y[half:]).square().sum()
    variance = (y[half:] - y[half:].mean(0)).square().sum()
    return (1 - error / variance).item() if variance > 1e-9 else 0.0


def pixel_probe(tokens: Tensor, video: Tensor) -> float:
    """Label-free probe: R² of decoding coarse pixels of a clip from its mean-free tokens.

    Args:
        tokens: ``[B, N, D]`` features of B clips. video: uint8 ``[B, T, H, W, 3]``.

    Returns:
        R² of a ridge map from all tokens to the clip's 4 x 4 grey thumbnail of the middle frame.
    """
    frame = video[:, video.shape[1] // 2].float().mean(dim=-1).unsqueeze(1)
    return ridge_r2(tokens.flatten(1), F.adaptive_avg_pool2d(frame, 4).flatten(1))


def embedding_report(targets: Tensor, predictions: Tensor) -> dict[str, float]:
    """Std and effective rank of target and predicted tokens.

    Args:
        targets: ``[B, M, D]`` target latents. predictions: ``[B, M, D]``.

    Returns:
        ``target_std``, ``prediction_std``: per-channel deviation over all tokens;
        ``clip_std``: deviation over clips at a fixed token, which positional content cannot fake;
        ``target_rank``: RankMe of the tokens (at most 2048 of them).
    """
    flat = targets.flatten(0, 1)
    return {
        "target_std": feature_std(flat),
        "prediction_std": feature_std(predictions.flatten(0, 1)),
        "clip_std": targets.float().std(dim=0).mean().item() if len(targets) > 1 else 0.0,
        "target_rank": rankme(flat[:: max(1, len(flat) // 2048)]),
    }


def verdict(report: Mapping[str, float], *, width: int) -> str:
    """One word and its cause: ``healthy``, ``warning: …`` or ``collapsed: …``.

    Thresholds, for layer-normed targets (unit variance per token over channels): collapsed when
    clips are indistinguishable (clip_std < 0.01) or tokens span under two dimensions; warning below
    0.05, or when the rank is under 5 % of the width, or predictions are constant.
    """
    if not all(math.isfinite(value) for value in report.values()):
        return "collapsed: a diagnostic is not finite"
    if report["clip_std"] < 0.01:
        return f"collapsed: clips are indistinguishable (clip_std {report['clip_std']:.4f} < 0.01)"
    if report["target_rank"] < 2:
        return f"collapsed: tokens span {report['target_rank']:.2f} dimensions (< 2)"
    if report["clip_std"] < 0.05:
        return f"warning: clips differ little (clip_std {report['clip_std']:.3f} < 0.05)"
    if report["target_rank"] < 0.05 * width:
        return f"warning: effective rank {report['target_rank']:.1f} is under 5 % of width {width}"
    if report["prediction_std"] < 0.01:
        return f"warning: predictions are constant (std {report['prediction_std']:.4f})"
    return "healthy"
