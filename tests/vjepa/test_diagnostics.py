"""Diagnostics on embeddings whose state is known."""

import math

import pytest
import torch

from tubelet.vjepa.diagnostics import (
    action_sensitivity,
    alignment,
    alpha_req,
    channel_std,
    collapse_verdict,
    covariance_ratio,
    effective_rank,
    embedding_report,
    feature_std,
    lidar,
    mean_cosine,
    participation_ratio,
    pixel_probe,
    rankme,
    ridge_r2,
    uniformity,
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


def test_rankme_of_gaussian_samples():
    assert rankme(torch.randn(2048, 192)) == pytest.approx(189.64, abs=0.3)


def test_ranks_of_the_covariance():
    """The spectrum of the covariance is that of the samples, squared."""
    spectrum = with_spectrum([1, math.sqrt(0.5), 0.5])  # eigenvalues in ratio 1 : 1/2 : 1/4
    assert participation_ratio(spectrum) == pytest.approx(2.33333, rel=1e-5)
    assert effective_rank(spectrum) == pytest.approx(2.60049, rel=1e-5)
    for rank in (effective_rank, participation_ratio):
        assert rank(with_spectrum([1.0] * 8) + 3) == pytest.approx(8, rel=1e-6)
        assert rank(with_spectrum([5.0, 0, 0])) == pytest.approx(1, abs=1e-6)
        assert rank(torch.full((10, 4), 3.0)) == 1.0


@pytest.mark.parametrize("decay", [0.5, 1.0, 2.0])
def test_alpha_req_of_a_power_law(decay):
    values = [(i + 1) ** (-decay / 2) for i in range(20)]
    assert alpha_req(with_spectrum(values)) == pytest.approx(decay, rel=1e-6)
    assert math.isnan(alpha_req(torch.ones(9, 3)))


def test_lidar_counts_directions_that_tell_objects_apart():
    centres = torch.zeros(200, 1, 6)
    centres[..., :3] = torch.randn(200, 1, 3)
    noise = torch.zeros(200, 8, 6)
    noise[..., 3:] = 5 * torch.randn(200, 8, 3)
    noise += 1e-2 * torch.randn(200, 8, 6)
    assert lidar(centres + noise) == pytest.approx(3, abs=0.1)
    assert effective_rank((centres + noise).flatten(0, 1)) < 4  # nuisance, loud, counted alone
    turned, _ = torch.linalg.qr(torch.randn(6, 6))
    assert lidar((centres + noise) @ turned) == pytest.approx(lidar(centres + noise), rel=1e-2)
    assert lidar(torch.ones(5, 3, 4)) == 1.0


def on_circle(count):
    angle = torch.arange(count, dtype=torch.float64) * 2 * math.pi / count
    return torch.stack([angle.cos(), angle.sin()], dim=1)


def test_uniformity_of_spheres():
    """log(e^-4 0F1(; d / 2; 4)) for a uniform sphere; 0 for a point."""
    assert uniformity(7 * on_circle(1500)) == pytest.approx(-1.57503, abs=5e-3)
    assert uniformity(torch.randn(1500, 16)) == pytest.approx(-3.51304, abs=1e-2)
    assert uniformity(torch.randn(1500, 128)) == pytest.approx(-3.93753, abs=2e-3)
    assert uniformity(torch.ones(20, 5)) == pytest.approx(0, abs=1e-9)


def test_alignment_and_cosines():
    x = torch.randn(50, 4)
    assert alignment(x, 3 * x) == pytest.approx(0, abs=1e-9)
    assert alignment(x, -x) == pytest.approx(4)
    assert alignment(torch.eye(2), torch.eye(2).flip(0)) == pytest.approx(2)
    assert mean_cosine(torch.ones(9, 4)) == pytest.approx(1)
    assert mean_cosine(torch.eye(4)) == 0
    assert mean_cosine(torch.randn(2000, 64)) == pytest.approx(
        math.sqrt(2 / math.pi / 64), rel=0.03
    )


def test_channel_std():
    x = torch.randn(5000, 3) * torch.tensor([0.0, 1.0, 4.0])
    low, middle = channel_std(x)
    assert low == 0
    assert middle == pytest.approx(1, abs=0.05)


def test_predictions_that_are_means_have_less_covariance():
    """z = s + n and the best predictor s: the ratio is tr S / (tr S + tr N)."""
    s, n = torch.randn(20000, 4), 2 * torch.randn(20000, 4)
    assert covariance_ratio(s, s + n) == pytest.approx(1 / 5, rel=0.03)
    assert covariance_ratio(torch.ones(5, 2), torch.ones(5, 2)) == 0
    assert covariance_ratio(torch.randn(5, 2), torch.ones(5, 2)) == math.inf


def test_action_sensitivity():
    z, a = torch.randn(4000, 3), torch.randn(4000, 3)
    assert action_sensitivity(z, z) == 0
    assert action_sensitivity(z + a, z + a.roll(1, 0)) == pytest.approx(1, rel=0.1)  # 2 / (1 + 1)
    assert action_sensitivity(a, a.roll(1, 0)) == pytest.approx(2, rel=0.1)


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


SIGNS = {"error": 0.5, "variance": 1.0, "rank": 20.0, "width": 32, "std": 0.9, "probe": 0.6}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, "healthy"),
        ({"error": 1e-6}, "healthy"),  # never by the error alone
        ({"error": 1e-6, "probe": 0.0}, "healthy"),
        ({"std": 0.01}, "warning: std 0.01 under 0.05, but a probe still scores 0.600"),
        ({"rank": 1.5, "probe": 0.0}, "warning: rank 1.5 under a tenth of width 32, but the pred"),
        ({"rank": 1.5, "probe": 0.0, "error": 0.01}, "collapsed: rank 1.5 under a tenth"),
        ({"std": 1e-3, "probe": 0.0, "error": 1e-8, "variance": 1e-6}, "collapsed: std 0.001"),
        ({"std": 1e-3, "probe": 0.12, "error": 1e-8, "chance": 0.1}, "collapsed: std 0.001"),
        ({"rank": 2.0, "probe": 0.0, "error": 5, "variance": 100.0}, "collapsed: rank 2.0"),
        ({"probe": math.nan}, "collapsed: probe not finite"),
    ],
)
def test_collapse_needs_three_signs(changes, expected):
    assert collapse_verdict(**{**SIGNS, **changes}).startswith(expected)
