"""Is the encoder learning or collapsing? Pure functions on embeddings, and a verdict.

The V-JEPA loss does not say: it falls, then rises, and drops to zero on collapse. These do. Give
them a fixed held-out batch of at least 4 D samples; spectra are computed in float64 on centred
embeddings. Distances between distributions are in :mod:`tubelet.vjepa.objectives.two_sample`.
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


def channel_std(x: Tensor) -> tuple[float, float]:
    """Smallest and median standard deviation over the channels of ``x [M, D]``."""
    std = x.double().std(dim=0)
    return std.min().item(), std.median().item()


def effective_rank(x: Tensor) -> float:
    """exp of the entropy of the normalised covariance eigenvalues of ``x [M, D]``; 1 to D.

    Roy and Vetterli 2007. RankMe is the same of singular values, and larger.
    """
    values = _eigenvalues(x)
    p = values[values > 1e-12 * values.sum()] / values.sum()
    return math.exp(-(p * p.log()).sum().item())


def participation_ratio(x: Tensor) -> float:
    """``(tr C)^2 / tr C^2`` of the covariance C of ``x [M, D]``: 1 to D; 1 if nothing varies."""
    values = _eigenvalues(x)
    total = values.sum().item()
    return total**2 / values.square().sum().item() if total > 1e-150 else 1.0


def alpha_req(x: Tensor) -> float:
    """Decay a of the covariance spectrum, ``lambda_i ~ i^-a``, by least squares in logarithms.

    alpha-ReQ (Agrawal et al. 2022): about 1 is good; far above is collapse to few directions.
    Eigenvalues under 1e-12 of the largest are left out; NaN if fewer than two remain.
    """
    values = _eigenvalues(x)
    values = values[values > 1e-12 * values[0]]
    if len(values) < 2:
        return math.nan
    rank = torch.arange(1, len(values) + 1, dtype=values.dtype, device=values.device).log()
    rank, log = rank - rank.mean(), values.log() - values.log().mean()
    return -((rank * log).sum() / rank.square().sum()).item()


def lidar(x: Tensor, *, delta: float = 1e-4) -> float:
    """LiDAR (arXiv 2312.04000) of ``x [n, q, D]``: n objects, q views of each; 1 to min(n - 1, D).

    Effective rank of the between-object covariance, whitened by the covariance over views plus
    ``delta``: directions that tell objects apart count, nuisance does not.
    """
    x = x.double()
    centres = x.mean(dim=1)
    spread = (x - centres.unsqueeze(1)).flatten(0, 1)
    within = spread.T @ spread / max(len(x) * (x.shape[1] - 1), 1)
    within = within + delta * torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
    values, vectors = torch.linalg.eigh(within)
    return effective_rank((centres - centres.mean(dim=0)) @ (vectors * values.rsqrt()))


def mean_cosine(x: Tensor) -> float:
    """Mean |cos| between different rows of ``x [M, D]``: 1 on a line, sqrt(2 / (pi D)) random."""
    return _off_diagonal((_unit(x) @ _unit(x).T).abs()).mean().item()


def alignment(u: Tensor, v: Tensor) -> float:
    """Mean squared distance on the unit sphere of pairs ``[M, D]``; 0 to 4. arXiv 2005.10242."""
    return (_unit(u) - _unit(v)).square().sum(dim=-1).mean().item()


def uniformity(x: Tensor, *, t: float = 2.0) -> float:
    """log of the mean of ``exp(-t |u - v|^2)`` over different rows of ``x [M, D]``, on the sphere.

    0 is full collapse; a uniform sphere gives about -2 t (-3.5 at D = 16, t = 2).
    """
    squared = (2 - 2 * _unit(x) @ _unit(x).T).clamp_min(0)
    return _off_diagonal(torch.exp(-t * squared)).mean().log().item()


def covariance_ratio(predictions: Tensor, targets: Tensor) -> float:
    """Total variance of predictions over that of targets (``[M, D]``): below 1, they are means.

    0 where predictions do not vary; infinite where only they do.
    """
    return _over(_variance(predictions), _variance(targets))


def action_sensitivity(predictions: Tensor, permuted: Tensor) -> float:
    """How far predictions move when the actions are those of other samples; 0: actions are ignored.

    Args:
        predictions: ``[M, D]`` under the true actions. permuted: the same under permuted ones.

    Returns:
        mean squared change over the total variance of ``predictions``.
    """
    change = (predictions.double() - permuted.double()).square().sum(dim=-1).mean().item()
    return _over(change, _variance(predictions))


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


def collapse_verdict(
    *,
    error: float,
    variance: float,
    rank: float,
    width: int,
    std: float,
    probe: float,
    chance: float = 0.0,
    margin: float = 0.05,
) -> str:
    """``collapsed: …`` if three signs agree, ``warning: …`` if only the embeddings look it.

    The signs: the prediction error is small, the embeddings are narrow (rank under a tenth of the
    width, or std under 0.05), and a probe knows nothing. Never the error alone: a good model has a
    small one too; and a constant code has the smallest.

    Args:
        error: mean squared prediction error. variance: mean variance of the targets per channel;
            an error is small under a tenth of that, or of 1 where they vary less than a unit.
        rank: RankMe of the embeddings. width: D. std: their median channel deviation.
        probe: score of a linear probe. chance, margin: it knows nothing below their sum.
    """
    values = {"error": error, "variance": variance, "rank": rank, "std": std, "probe": probe}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        return f"collapsed: {', '.join(bad)} not finite"
    signs = [f"rank {rank:.1f} under a tenth of width {width}"] if rank < 0.1 * width else []
    signs += [f"std {std:.3g} under 0.05"] if std < 0.05 else []
    if not signs:
        return "healthy"
    found = " and ".join(signs)
    if probe >= chance + margin:
        return f"warning: {found}, but a probe still scores {probe:.3f}"
    if error >= 0.1 * max(variance, 1.0):
        return f"warning: {found}, but the prediction error is {error:.3g}"
    return f"collapsed: {found}, prediction error {error:.3g}, probe {probe:.3f} at chance"


def _eigenvalues(x: Tensor) -> Tensor:
    """Eigenvalues of the covariance of ``x [M, D]``, largest first, float64."""
    s = torch.linalg.svdvals(x.double() - x.double().mean(dim=0))
    return s.square() / max(len(x) - 1, 1)


def _variance(x: Tensor) -> float:
    return x.double().var(dim=0).sum().item()


def _over(above: float, below: float) -> float:
    return above / below if below > 0 else (math.inf if above > 0 else 0.0)


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.double(), dim=-1)


def _off_diagonal(x: Tensor) -> Tensor:
    return x[~torch.eye(len(x), dtype=torch.bool, device=x.device)]
