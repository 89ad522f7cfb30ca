"""The study of feedback: arms that differ in it alone, events, and the rule fixed beforehand."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tubelet.benchmarks import jedi_study
from tubelet.benchmarks.jedi_arms import (
    BASE,
    CONTROL,
    FEEDBACK,
    FROZEN,
    JUDGED,
    LONGER,
    cost_ratio,
    jedi_config,
)
from tubelet.benchmarks.jedi_events import EVENTS, event_clips, happen
from tubelet.benchmarks.jedi_study import JediStudyConfig, Size, run_jedi_study
from tubelet.benchmarks.jedi_tables import by_arm, compare, helps, jedi_tables, p_value, verdict
from tubelet.benchmarks.video_arms import ArmConfig
from tubelet.benchmarks.video_probes import ProbeConfig
from tubelet.core.errors import ConfigError
from tubelet.datasets.synthetic.make import Look, Nuisances
from tubelet.datasets.synthetic.moving_shapes import draw_scene, paint, shapes_cover
from tubelet.vjepa.checkpoint import save_checkpoint
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.objectives.feedback import FeedbackConfig
from tubelet.vjepa.predictor import PredictorConfig
from tubelet.vjepa.pretrain import build

TINY = ArmConfig(
    encoder=EncoderConfig(width=48, depth=1, heads=2, patch=16),
    predictor=PredictorConfig(width=24, depth=1, heads=2),
    frames=4,
    size=32,
    batch=4,
    steps=20,
    precision="fp32",
)


# --- arms -------------------------------------------------------------------------------------


def test_the_arms_are_those_of_the_protocol():
    assert list(FEEDBACK) == [BASE, CONTROL, FROZEN, *JUDGED, LONGER]
    assert FEEDBACK[CONTROL].ratio == 0
    assert FEEDBACK[FROZEN].frozen
    for kind in JUDGED:  # the preset's settings, none tuned
        assert FEEDBACK[kind] == FeedbackConfig(kind=kind)


def test_arms_differ_in_their_feedback_alone():
    base = jedi_config(BASE, TINY, 3)
    for name in FEEDBACK:
        other = jedi_config(name, TINY, 3)
        assert replace(other.objective, feedback=None) == base.objective
        same = replace(other, objective=base.objective, loop=base.loop)
        assert same == base
        assert (other.loop == base.loop) == (name != LONGER)
    a, b = (build(jedi_config(name, TINY, 3)).state_dict() for name in (BASE, "both"))
    assert all((value == b[key]).all() for key, value in a.items())
    with pytest.raises(ConfigError, match="did you mean 'structure'"):
        jedi_config("structur", TINY, 0)


def test_the_longer_base_takes_as_many_more_steps_as_feedback_costs():
    ratio = cost_ratio(TINY)
    assert 1.0 < ratio < 1.5
    assert jedi_config(LONGER, TINY, 0).loop.steps == round(20 * ratio)


# --- events -----------------------------------------------------------------------------------


def test_what_happens_happens():
    scene = draw_scene(0, 5, height=64, width=64, hold=("occlusion",))
    assert not shapes_cover(happen(scene, "vanish"), 3).any()
    jumped = shapes_cover(happen(scene, "jump"), 3)
    np.testing.assert_allclose(jumped, np.roll(shapes_cover(scene, 3), (32, 32), (0, 1)), atol=1e-9)
    other = happen(scene, "colour")
    assert np.array_equal(shapes_cover(other, 3), shapes_cover(scene, 3))
    inside = shapes_cover(scene, 3) > 0.99
    change = paint(other, 3)[inside].astype(float) - paint(scene, 3)[inside]
    assert np.abs(change).max(1).min() > 100


def test_clips_are_equal_up_to_the_event_and_differ_after_it_outside_the_noise():
    possible, impossible = event_clips(
        6,
        frames=[0, 2, 4, 6],
        at=2,
        size=32,
        look=Look(),
        nuisances=Nuisances(tint=30, noise=0.25),
        hold=("occlusion",),
        seed=9,
    )
    assert possible.shape == impossible.shape == (6, 4, 32, 32, 3)
    assert np.array_equal(possible[:, :2], impossible[:, :2])
    for number in range(6):
        assert (possible[number, 2:] != impossible[number, 2:]).any(), EVENTS[number % 3]
    corner = np.s_[:, :, 28:, 28:]  # colour is stored at half resolution: the border may differ
    assert np.array_equal(possible[corner], impossible[corner])


# --- the rule ---------------------------------------------------------------------------------


def stored(levels, seeds=5, spread=0.01, noise=0.001):
    """Scores of arms with these (probe, nuisance, surprise); seeds share their ups and downs."""
    rng, out = np.random.default_rng(0), []
    common = spread * rng.standard_normal((seeds, 3))
    for arm, level in levels.items():
        for seed in range(seeds):
            values = np.array(level) + common[seed] + noise * rng.standard_normal(3)
            named = dict(zip(("probe", "nuisance", "surprise"), values.tolist(), strict=True))
            named |= {"rank": 9.0, "spread": 1.0, "apart": 0.6, "loss": 0.3, "train_seconds": 1.0}
            about = {"arm": arm, "seed": seed, "videos": 9, "probes": 8, "events": 7}
            out.append({"settings": about, "values": named})
    return out


LEVEL = (0.5, 0.4, 0.7)
ALIKE = dict.fromkeys(FEEDBACK, LEVEL)


def judged(**changes):
    return by_arm(stored(ALIKE | {k.replace("_", " "): v for k, v in changes.items()}))


def test_equal_arms_show_no_benefit():
    assert verdict(judged()) == "no benefit shown"


def test_two_end_points_and_all_rivals():
    scores = judged(both=(0.55, 0.3, 0.7))
    assert helps(scores, "both")[0]
    assert verdict(scores) == "feedback helps: both"
    assert not helps(scores, "structure")[0]


def test_one_end_point_is_not_enough():
    won, why = helps(judged(both=(0.55, 0.4, 0.7)), "both")
    assert not won
    assert why == "better than the base on probe, of two that are needed"


def test_less_nuisance_is_better_and_more_is_not():
    assert helps(judged(both=(0.55, 0.35, 0.7)), "both")[0]
    assert not helps(judged(both=(0.55, 0.45, 0.7)), "both")[0]


def test_worse_on_the_third_by_more_than_the_bases_deviation():
    assert helps(judged(both=(0.55, 0.3, 0.698)), "both")[0]
    won, why = helps(judged(both=(0.55, 0.3, 0.6)), "both")
    assert not won
    assert "worse than the base by more than its deviation on surprise" in why


@pytest.mark.parametrize("rival", ["moments", LONGER])
def test_what_moments_or_compute_bring_too_is_no_merit_of_the_critic(rival):
    scores = by_arm(stored(ALIKE | {"both": (0.55, 0.3, 0.7), rival: (0.55, 0.3, 0.7)}))
    won, why = helps(scores, "both")
    assert not won
    assert why.startswith("not better than moments and base, longer on any of probe, nuisance")
    if rival == "moments":  # which need not beat itself
        assert helps(scores, "moments")[0]


def test_what_cannot_be_judged_is_not():
    scores = stored(ALIKE)
    assert verdict(by_arm([s for s in scores if s["settings"]["seed"] == 0])).endswith("one seed")
    some = [s for s in scores if s["settings"]["arm"] != LONGER]
    assert verdict(by_arm(some)) == "not judged: the arms base, longer are missing"
    three = [s for s in scores if s["settings"]["seed"] < 3]
    assert (
        verdict(by_arm(three)) == "no benefit shown (3 of the 5 seeds that the protocol asks for)"
    )


@settings(max_examples=50, deadline=None)
@given(gaps=st.lists(st.lists(st.floats(-1, 1), min_size=5, max_size=5), min_size=3, max_size=3))
def test_holms_correction_against_its_definition(gaps):
    points = ("probe", "nuisance", "surprise")
    signs = np.array([1, -1, 1])[:, None]
    arms = {
        "base": {s: dict.fromkeys(points, 0.0) for s in range(5)},
        "both": {
            s: dict(zip(points, (signs * np.array(gaps))[:, s].tolist(), strict=True))
            for s in range(5)
        },
    }
    found = compare(arms, "both", "base")
    p = [p_value(np.array(g)) for g in gaps]
    order, passed, still = np.argsort(p, kind="stable"), {}, True
    for place, which in enumerate(order):
        still = still and p[which] <= 0.05 / (3 - place)
        passed[points[which]] = still
    for number, point in enumerate(points):
        assert found[point].excludes == passed[point]
        assert found[point].difference.value == pytest.approx(np.mean(gaps[number]))
        if found[point].excludes and np.std(gaps[number]) > 1e-9:
            assert found[point].difference.low * found[point].difference.high > -1e-12


def test_p_values_are_students():
    from scipy.stats import ttest_1samp

    gaps = np.array([0.1, 0.3, -0.05, 0.2])
    assert p_value(gaps) == pytest.approx(ttest_1samp(gaps, 0).pvalue)
    assert p_value(np.zeros(3)) == 1
    assert p_value(np.ones(3)) == 0


def test_tables_hold_every_arm_and_the_verdict():
    levels, differences, secondary = jedi_tables(stored(ALIKE | {"both": (0.55, 0.3, 0.7)}))
    assert [row[0] for row in levels.rows] == list(FEEDBACK)
    assert "Verdict: feedback helps: both." in levels.note
    rows = {row[0]: row for row in differences.rows}
    assert f"both − {LONGER}" in rows
    probe, nuisance = (float(rows["both − base"][n].split()[0]) for n in (1, 2))
    assert probe == pytest.approx(0.05, abs=0.003)
    assert nuisance == pytest.approx(0.1, abs=0.003)  # of R², less: better is positive
    assert "*" in rows["both − base"][2]
    assert len(secondary.rows) == 8
    with pytest.raises(ConfigError, match="at least one score"):
        jedi_tables([])


# --- the whole --------------------------------------------------------------------------------


def test_two_arms_that_learnt_nothing_tie_and_finished_parts_are_kept(tmp_path, monkeypatch):
    quick = ProbeConfig(penalties=(1.0,))
    size = Size(videos=3, probes=60, events=6, length=8, training=TINY, probe=quick)
    monkeypatch.setitem(jedi_study.SIZES, "debug", size)
    calls = []

    def untrained(name, arm, films, cache, out, seed, device):
        calls.append((name, seed, len(films)))
        config = jedi_config(name, arm, seed)
        save_checkpoint(out, 1, model=build(config), config=config)

    config = JediStudyConfig(preset="debug", out=str(tmp_path), arms=(BASE, "both"), seeds=2)
    tables = run_jedi_study(config, untrained)
    assert calls == [(BASE, 0, 3), ("both", 0, 3), (BASE, 1, 3), ("both", 1, 3)]
    row = next(row for row in tables[1].rows if row[0] == "both − base")
    assert all(cell.startswith("+0.000 [+0.000, +0.000]") for cell in row[1:4])
    values = json.loads((tmp_path / "scores" / "both-0.json").read_text())["values"]
    numbers = [v for v in values.values() if isinstance(v, float)]
    assert all(math.isfinite(v) for v in numbers)
    assert 0 <= values["surprise"] <= 1
    assert set(values["by_nuisance"]) == set(jedi_study.NUISANCE)
    assert "not judged: the arms" in (tmp_path / "tables.md").read_text()
    run_jedi_study(config, untrained)
    assert len(calls) == 4
    monkeypatch.setitem(jedi_study.SIZES, "debug", replace(size, events=7))
    with pytest.raises(ConfigError, match="events = 6, not 7"):
        run_jedi_study(config, untrained)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seeds": 0}, "seeds = 0"),
        ({"arms": ("bth",)}, "did you mean 'both'"),
        ({"arms": ()}, "name some"),
        ({"preset": "huge"}, "choose one of small, base, debug"),
    ],
)
def test_wrong_settings_are_refused(change, said):
    with pytest.raises(ConfigError, match=said):
        JediStudyConfig(**change)
