"""The study of proposals: rows that differ in their start alone, and tables of known answers."""

import numpy as np
import pytest

from tubelet.benchmarks.amortised_study import (
    ENVS,
    ITERATIONS,
    SIZES,
    STEPS_TO_GO,
    AmortisedStudyConfig,
    cold_row,
    difference,
    difference_table,
    level_table,
    run_amortised_study,
    searches,
    verdict,
    warm_row,
)
from tubelet.benchmarks.goal_reaching import GoalReachingResult
from tubelet.core.errors import ConfigError
from tubelet.planning import AmortisedConfig


def result(name, solved, role="model", calls=1.0):
    """One row of 200 problems, of which the first ``solved`` are solved at the end."""
    success = np.zeros((200, 3), bool)
    success[:solved, -1] = True
    return GoalReachingResult(
        name=name,
        role=role,
        seed=None,
        privileged=False,
        env_id="tubelet/Reacher-v0",
        kind="far",
        episodes_sha256="x",
        episodes_seed=1,
        rejected_share=0.0,
        budget=2,
        success=success,
        distance={},
        seconds=0.001,
        model_calls=calls,
    )


def rows(cold, warm):
    found = [result(cold_row(n), s) for n, s in zip(ITERATIONS, cold, strict=True)]
    found += [result(warm_row(n), s) for n, s in zip(ITERATIONS, warm, strict=True)]
    return [result("head alone", 60), *found, result("no action", 0, role="floor", calls=None)]


def test_rows_differ_in_where_they_begin():
    made = searches(SIZES["small"])
    for count in ITERATIONS:
        cold, warm = made[cold_row(count)], made[warm_row(count)]
        assert (cold.propose, warm.propose) == ((), STEPS_TO_GO)
        assert cold.__class__ is warm.__class__
        same = {**vars(warm), "propose": ()}
        assert same == vars(cold)
        assert cold.iterations == count
    alone = made["head alone"]
    assert isinstance(alone, AmortisedConfig)
    assert alone.choose == "proposal"


def test_fewer_iterations():
    found = rows(cold=(100, 140, 180), warm=(178, 180, 180))
    said = verdict(found)
    assert "without proposals 4, with proposals 1; beginning at proposals needs fewer" in said
    table = difference_table("reacher", found)
    cells = {row[0]: row[1:] for row in table.rows}
    gap = cells[f"{warm_row(1)} − {cold_row(4)}"]
    assert gap[0].startswith("-0.010 [")
    assert gap[1] == "yes"
    assert cells[f"{cold_row(1)} − {cold_row(4)}"][1] == "no"
    assert len(cells) == 6  # no floors


@pytest.mark.parametrize(
    ("cold", "warm", "word"),
    [
        ((180, 180, 180), (180, 180, 180), "needs as many"),
        ((180, 180, 180), (100, 180, 180), "needs more"),
        ((100, 120, 180), (20, 20, 20), "more than 4; beginning at proposals needs more"),
    ],
)
def test_other_verdicts(cold, warm, word):
    assert word in verdict(rows(cold, warm))


def test_differences_are_paired():
    one, other = result("a", 100), result("b", 90)
    gap = difference(one, other)
    assert gap.value == pytest.approx(0.05)
    # ten of 200 problems differ, all one way: an unpaired interval would reach far below zero
    assert gap.low > 0.015
    assert difference(one, one).high == 0


def test_levels_hold_the_test_against_the_twin():
    table = level_table("reacher", rows(cold=(100, 140, 180), warm=(110, 140, 180)))
    cells = {row[0]: row for row in table.rows}
    assert cells[warm_row(1)][-1] == "+10 −0, p = 0.00195"
    assert cells[cold_row(1)][-1] == "–"
    assert cells["head alone"][2] == "0.300 [0.241, 0.367]"
    assert cells["no action"][4] == "–"


def test_wrong_settings_are_refused():
    assert set(ENVS) == {"reacher", "pointmaze"}
    with pytest.raises(ConfigError, match="did you mean 'reacher'"):
        AmortisedStudyConfig(envs=("reachr",))
    with pytest.raises(ConfigError, match="choose one of small, debug"):
        AmortisedStudyConfig(preset="large")
    with pytest.raises(ConfigError, match=r"envs = \(\)"):
        AmortisedStudyConfig(envs=())


@pytest.mark.slow
def test_the_debug_study_runs_and_goes_on(tmp_path):
    config = AmortisedStudyConfig(preset="debug", out=str(tmp_path), envs=("reacher",))
    tables = run_amortised_study(config)
    assert len(tables[0].rows) == 8 + 5
    files = sorted(tmp_path.rglob("*.json"))
    times = {path: path.stat().st_mtime_ns for path in files if "reacher" in path.parts}
    again = run_amortised_study(config)
    assert [t.rows for t in again] == [t.rows for t in tables]
    assert times.items() <= {p: p.stat().st_mtime_ns for p in files}.items()
