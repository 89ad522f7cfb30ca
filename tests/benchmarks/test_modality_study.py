"""The study of points and skeletons: arms, floors, facts for the verdict, tables, going on."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import t as student

from tubelet.benchmarks.modality_features import cloud_features, motion_features
from tubelet.benchmarks.modality_readout import collapse_facts, features, untrained
from tubelet.benchmarks.modality_study import (
    VIEWS,
    ModalityStudyConfig,
    arm_config,
    run_modality_study,
)
from tubelet.benchmarks.modality_tables import modality_table
from tubelet.core.errors import ConfigError
from tubelet.vjepa.diagnostics import collapse_verdict
from tubelet.vjepa.modalities.model import build
from tubelet.vjepa.modalities.presets import preset

SMALL = {"preset": "debug", "seeds": 2, "steps": 2, "train": 24, "probes": 50, "threads": 1}


def rotation(seed):
    q, r = np.linalg.qr(np.random.default_rng(seed).normal(size=(3, 3)))
    q = q * np.sign(np.diag(r))
    return q * np.sign(np.linalg.det(q))


def test_cloud_features_ignore_rotation_and_know_a_sphere():
    x = np.random.default_rng(0).normal(size=(3, 400, 3))
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    x[1] *= [0.2, 0.5, 1.0]
    found = cloud_features(x)
    np.testing.assert_allclose(cloud_features(x @ rotation(1).T), found, atol=0.01)
    assert found[0, 16:32].argmax() == 15  # all points at distance 1
    np.testing.assert_allclose(found[0, 32:], 1 / math.sqrt(3), atol=0.05)
    assert found[:, :16].sum(axis=1) == pytest.approx(1)


def test_motion_features_of_a_known_motion():
    x = np.zeros((1, 10, 2, 3))
    x[0, :, 1, 2] = 1.5
    x[0, :, 1, 0] = 0.2 * np.arange(10)
    found = motion_features(x)[0]
    assert found[:2] == pytest.approx([0, 0.2])
    assert found[2:4] == pytest.approx([0, 1.5])
    assert found[4:] == pytest.approx([0, 0.2 * np.arange(10).std()])
    turned = x @ np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 1.0]])
    np.testing.assert_allclose(motion_features(turned)[0], found, atol=1e-12)


@pytest.mark.parametrize("name", ["pointjepa-debug", "sjepa-debug"])
def test_arms_differ_in_their_targets_alone(name):
    base = preset(name)
    assert arm_config(base, "jepa") == base
    copied, shared = arm_config(base, "copied"), arm_config(base, "shared")
    assert copied.objective.target.momentum == (0, 0)
    assert shared.objective.target.kind == "shared"
    assert not shared.objective.target.stop_gradient
    for arm in (copied, shared):
        same = replace(arm.objective, target=base.objective.target)
        assert replace(arm, objective=same) == base


def test_the_arm_of_views_begins_at_the_same_encoder():
    for family in ("pointjepa", "sjepa"):
        masked, views = build(preset(f"{family}-debug")), build(preset(f"{VIEWS[family]}-debug"))
        for a, b in zip(masked.encoder.parameters(), views.encoder.parameters(), strict=True):
            assert torch.equal(a, b)


def test_views_that_agree_have_no_error():
    model = build(preset("lejepa-points-debug"))
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(40, 64, 3)).astype(np.float32))
    apart = collapse_facts(model, x)
    assert 0 < apart["error"] < apart["variance"] * 2
    with torch.no_grad():
        model.projector[-1].weight.zero_()
    facts = collapse_facts(model, x)
    assert facts["error"] == pytest.approx(0, abs=1e-9)
    assert facts["variance"] == pytest.approx(0, abs=1e-9)


def test_a_copied_teacher_is_the_encoder_after_every_step():
    model = build(arm_config(preset("sjepa-debug"), "copied"))
    with torch.no_grad():
        for p in model.encoder.parameters():
            p.add_(0.5)
    model.after_step(0, 10)
    for a, b in zip(model.encoder.parameters(), model.target.teacher.parameters(), strict=True):
        assert torch.equal(a, b)


def test_untrained_encoders_have_the_weights_of_the_seed_and_batch_statistics_of_the_data():
    config = preset("pointjepa-debug")
    samples = np.random.default_rng(0).normal(size=(64, 64, 3)).astype(np.float32)
    encoder = untrained(config, samples)
    for a, b in zip(encoder.parameters(), build(config).output.parameters(), strict=True):
        assert torch.equal(a, b)
    x = torch.from_numpy(samples)
    patches, _ = encoder.tokenizer.patches(x)
    rows = encoder.tokenizer.local[0](patches.reshape(-1, 3))
    norm = encoder.tokenizer.local[1]
    torch.testing.assert_close(norm.running_mean, rows.mean(0))
    torch.testing.assert_close(norm.running_var, rows.var(0), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["pointjepa-debug", "sjepa-debug"])
def test_a_constant_encoder_is_judged_collapsed_and_a_fresh_one_is_not(name):
    """All tokens alike and predicted: small error, no rank, no spread, and a probe at chance."""
    config = preset(name)
    shape = (40, 64, 3) if config.points else (40, 16, 16, 3)
    x = torch.from_numpy(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    model = build(config)
    width = config.encoder.width
    facts = collapse_facts(model, x)
    assert not collapse_verdict(**facts, width=width, probe=0.8, chance=0.1).startswith("collapsed")
    with torch.no_grad():
        for norm in (model.encoder.transformer.norm, model.output.transformer.norm):
            norm.weight.zero_()
            norm.bias.copy_(torch.arange(width) / width)
        model.predictor.proj.weight.zero_()
        same = torch.arange(width) / width
        if config.points:  # what layer-normed targets are
            same = torch.nn.functional.layer_norm(same, (width,))
        else:  # what the best logits are for sharpened ones
            c = config.objective.centred
            same = same * c.student_temperature / c.teacher_temperature
        model.predictor.proj.bias.copy_(same)
    facts = collapse_facts(model, x)
    assert facts["error"] == pytest.approx(0, abs=1e-4)
    assert facts["std"] == pytest.approx(0, abs=1e-4)
    verdict = collapse_verdict(**facts, width=width, probe=0.12, chance=0.1)
    assert verdict.startswith("collapsed")
    read = features(model.output, x)
    assert read.shape == (40, 2 * width)
    assert np.ptp(read, axis=0).max() < 1e-5


@pytest.mark.slow
def test_the_study_runs_goes_on_and_refuses_other_settings(tmp_path):
    arms = ("jepa", "copied")
    config = ModalityStudyConfig(out=str(tmp_path), systems=("sjepa",), arms=arms, **SMALL)
    tables = run_modality_study(config)
    assert list(tables) == ["sjepa"]
    assert len(tables["sjepa"].rows) == 4
    bodies = replace(config, systems=("bodies",), arms=("views",), out=str(tmp_path / "bodies"))
    assert len(run_modality_study(bodies)["bodies"].rows) == 3
    scores = sorted((tmp_path / "scores").glob("*.json"))
    assert len(scores) == 4
    stored = json.loads(scores[0].read_text())
    assert set(stored["facts"]) == {"error", "variance", "rank", "std"}
    before = [path.stat().st_mtime_ns for path in scores]
    scores[-1].unlink()
    again = run_modality_study(config)
    assert again["sjepa"].rows == tables["sjepa"].rows  # the run was resumed at its end
    assert [path.stat().st_mtime_ns for path in scores[:-1]] == before[:-1]
    assert (tmp_path / "tables.md").read_text().startswith("### S-JEPA")
    with pytest.raises(ConfigError, match=r"steps = 2, not 3"):
        run_modality_study(replace(config, steps=3))


def score(seed, accuracy, before, arm="jepa", verdict="healthy"):
    return {
        "settings": {
            "system": "sjepa",
            "arm": arm,
            "seed": seed,
            "preset": "small",
            "steps": 7,
            "train": 10,
            "probes": 20,
            "data_seed": 0,
        },
        "accuracy": accuracy,
        "untrained": before,
        "handmade": 0.5,
        "chance": 0.1,
        "facts": {"error": 0.1, "variance": 1.0, "rank": 8.0, "std": 0.5},
        "verdict": verdict,
        "run_verdict": "healthy" if arm == "jepa" else "collapsed: clips",
    }


def test_the_table_pairs_by_seed_and_counts_verdicts():
    trained, before = np.array([0.9, 0.7, 0.8]), np.array([0.6, 0.45, 0.5])
    scores = [score(i, a, b) for i, (a, b) in enumerate(zip(trained, before, strict=True))]
    scores += [score(i, 0.1, 0.5, "copied", "collapsed: rank") for i in range(2)]
    scores += [score(2, 0.3, 0.5, "copied", "warning: rank")]
    table = modality_table(scores, "sjepa")
    gain = trained - before
    half = student.ppf(0.975, 2) * gain.std(ddof=1) / math.sqrt(3)
    expected = f"{gain.mean():+.3f} [{gain.mean() - half:+.3f}, {gain.mean() + half:+.3f}] (above)"
    assert table.rows[0][4] == expected
    assert table.rows[0][-2:] == ["healthy 3 of 3", "healthy 3 of 3"]
    assert table.rows[1][-2] == "collapsed 3 of 3"
    assert table.rows[1][-1] == "collapsed 2 of 3, warning 1 of 3"
    assert "below" in table.rows[1][4]
    assert table.rows[2][3].startswith("0.517")
    one = modality_table([score(0, 0.9, 0.5)], "sjepa")
    assert "not judged: one seed" in one.rows[0][4]
    with pytest.raises(ConfigError, match="no scores"):
        modality_table(scores, "pointjepa")


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"probes": 10}, "probes = 10"),
        ({"systems": ("mcjepa",)}, "systems"),
        ({"arms": ()}, "arms"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        ModalityStudyConfig(**change)
