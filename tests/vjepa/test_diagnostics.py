"""Diagnostics on embeddings whose state is known."""

import math

import pytest
import torch

from tubelet.vjepa.diagnostics import (
    embedding_report,
    feature_std,
    pixel_probe,
    rankme,
    ridge_r2,
    verdict,
)

WIDTH = 32


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def with_spectrum(values, samples=200):
    """Centred samples whose singular values are ``values``."""
    x = torch.randn(samples, len(values), dtype=torch.float64)
    q, _ = torch.linalg.qr(x - x.mean(0))
    basis, _ = torch.linalg.qr(torch.randn(len(values), len(values), dtype=torch.float64))
    return q * torch.tensor(values, dtype=torch.float64) @ basis


def test_rankme_of_known_spectra():
    assert rankme(with_spectrum([1.0] * 8)) == pytest.approx(8, rel=1e-6)
    assert rankme(with_spectrum([1, 0.5, 0.25])) == pytest.approx(2.60049, rel=1e-5)
    assert rankme(with_spectrum([5.0, 0, 0])) == pytest.approx(1, abs=1e-6)
    assert rankme(torch.randn(1024, 64)) == pytest.approx(63.45, abs=0.5)


def test_rankme_ignores_offset_and_scale():
    x = torch.randn(100, 6).double()
    assert rankme(1e3 * x + 50) == pytest.approx(rankme(x), rel=1e-6)
    assert rankme(torch.full((10, 4), 3.0)) == 1.0


def test_feature_std():
    assert feature_std(torch.ones(10, 3)) == 0
    x = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    assert feature_std(x) == pytest.approx(math.sqrt(2) / 2)


def test_ridge_recovers_planted_linear_maps():
    x = torch.randn(400, 20)
    y = x @ torch.randn(20, 3) + 5
    assert ridge_r2(x, y, penalty=1e-4) > 0.999
    noisy = y + torch.randn_like(y) * y.std(0)  # half of the variance is noise
    assert ridge_r2(x, noisy, penalty=1e-4) == pytest.approx(0.5, abs=0.15)


def test_ridge_of_unrelated_features_is_not_good():
    assert ridge_r2(torch.randn(200, 300), torch.randn(200, 2)) < 0.1


def test_ridge_more_features_than_samples():
    z = torch.randn(100, 2)
    x = z @ torch.randn(2, 500) + 0.01 * torch.randn(100, 500)
    assert ridge_r2(x, z) > 0.95


def test_ridge_is_scored_on_samples_it_was_not_fitted_to():
    x = torch.randn(60, 200)
    y = torch.randn(60, 1)
    y[:30] = x[:30] @ torch.randn(200, 1)  # fits the first half perfectly, says nothing of the rest
    assert ridge_r2(x, y, penalty=1e-6) < 0.1


def test_ridge_ignores_constant_targets_and_dead_features():
    x, y = torch.randn(100, 5), torch.randn(100, 1)
    x[:, 0] = 7
    y = torch.cat([x[:, 1:2], torch.full((100, 1), 3.0)], dim=1)
    assert ridge_r2(x, y) > 0.99
    assert ridge_r2(x, torch.ones(100, 2)) == 0.0


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_ridge_of_next_to_no_samples_is_finite(samples):
    assert ridge_r2(torch.randn(samples, 4), torch.randn(samples, 2)) == 0.0


def test_pixel_probe_tells_encodings_of_the_picture_from_noise():
    thumbnails = torch.rand(200, 1, 1, 4, 4, 1) * 255
    video = thumbnails.repeat_interleave(4, 3).repeat_interleave(4, 4).expand(-1, 1, 2, -1, -1, 3)
    video = video[:, 0].to(torch.uint8)  # [200, 2, 16, 16, 3]
    informed = (thumbnails.flatten(1) / 255).view(200, 4, 4)
    assert pixel_probe(informed, video) > 0.99
    assert pixel_probe(torch.randn(200, 4, 4), video) < 0.1


def healthy():
    return torch.nn.functional.layer_norm(torch.randn(16, 20, WIDTH), (WIDTH,))


def test_report_of_independent_tokens_is_healthy():
    report = embedding_report(healthy(), healthy())
    assert report["target_std"] == pytest.approx(1, abs=0.1)
    assert report["clip_std"] == pytest.approx(1, abs=0.1)
    assert report["target_rank"] > 0.8 * WIDTH
    assert verdict(report, width=WIDTH) == "healthy"


def test_total_collapse():
    constant = torch.randn(WIDTH).expand(16, 20, -1)
    got = verdict(embedding_report(constant, constant), width=WIDTH)
    assert got.startswith("collapsed: clips are indistinguishable")


def test_collapse_to_positions_is_seen_although_tokens_differ():
    positions = torch.nn.functional.layer_norm(torch.randn(1, 20, WIDTH), (WIDTH,))
    targets = positions.expand(16, -1, -1)
    report = embedding_report(targets, targets)
    assert report["target_std"] > 0.5
    assert verdict(report, width=WIDTH).startswith("collapsed: clips are indistinguishable")
    faint = targets + 0.03 * torch.randn(16, 20, WIDTH)
    got = verdict(embedding_report(faint, faint), width=WIDTH)
    assert got.startswith("warning: clips differ little")


def test_dimensional_collapse():
    line = torch.randn(16, 20, 1) * torch.randn(WIDTH)
    assert "span 1.00 dimensions" in verdict(embedding_report(line, line), width=WIDTH)
    few = torch.randn(16, 20, 3) @ torch.randn(3, WIDTH)
    assert "under 5 % of width 100" in verdict(embedding_report(few, few), width=100)


def test_constant_predictions_warn():
    report = embedding_report(healthy(), torch.zeros(16, 20, WIDTH))
    assert verdict(report, width=WIDTH).startswith("warning: predictions are constant")


def test_not_finite_is_collapsed():
    report = embedding_report(healthy(), healthy()) | {"probe": float("nan")}
    assert verdict(report, width=WIDTH) == "collapsed: a diagnostic is not finite"


def test_one_clip_has_no_spread_over_clips():
    assert embedding_report(healthy()[:1], healthy()[:1])["clip_std"] == 0.0
