"""Checks of experts, of the oracle, and of speed: what they count, and that they write it down."""

import json

import pytest

from tubelet.benchmarks import env_speed, expert_check, oracle_check
from tubelet.core.errors import ConfigError
from tubelet.planning import CEMConfig

ROOMS = "tubelet/TwoRooms-v0"


def test_experts_are_judged_at_the_last_step():
    whole, cut = (expert_check.check(ROOMS, 5, budget=budget) for budget in (None, 3))
    assert whole["budget"] == 70
    assert whole["success_at_end"]["value"] == 1.0
    assert whole["success_at_end"]["low"] == pytest.approx(0.5655, abs=1e-3)  # Wilson, 5 of 5
    assert whole["failures"] == []
    assert 0 < whole["first_success"] <= 70
    assert cut["success_at_end"]["value"] < 1.0  # the other room is farther than 7.35 pixels
    assert {row["episode"] for row in cut["failures"]} <= set(range(5))


def test_environments_without_an_expert_are_left_out(tmp_path, capsys):
    with pytest.raises(ConfigError, match="no scripted expert"):
        expert_check.check("gymnasium/Reacher-v5", 1)
    out = tmp_path / "experts.json"
    names = ["--env", ROOMS, "gymnasium/Reacher-v5", "--n", "2", "--out", str(out)]
    assert expert_check.main(names) == 0
    assert [row["env"] for row in json.loads(out.read_text())["rows"]] == [ROOMS]
    assert "no scripted expert" in capsys.readouterr().out


def test_the_oracle_is_checked_with_its_own_budget():
    cem = CEMConfig(horizon=4, samples=16, iterations=2, elites=4, init_std=1.0)
    row = oracle_check.check("tubelet/Reacher-v0", 2, budget=30, cem=cem)
    assert (row["n"], row["budget"], row["cem"]["samples"]) == (2, 30, 16)
    assert 0 <= row["success_at_end"]["value"] <= row["success_at_any"]["value"] <= 1
    assert set(row["final_distance"]) == {"tip", "joint_rms"}


@pytest.mark.slow
def test_speed_counts_frames_of_all_processes(tmp_path):
    out = tmp_path / "speed.json"
    names = ["--env", ROOMS, "--seconds", "0.5", "--size", "32", "--out", str(out)]
    assert env_speed.main(names) == 0
    (row,) = json.loads(out.read_text())["rows"]
    assert row["frames"] % (5 * row["copies"]) == 0
    assert row["faults"] == 0
    assert row["cpu"]["best"] >= row["cpu"]["median"] > 0
