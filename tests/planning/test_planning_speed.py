"""The planning benchmark measures what it says, in small."""

import sys

import pytest
import torch

from tubelet.benchmarks import planning_parts, planning_speed
from tubelet.core.errors import ConfigError, TubeletError


def test_rollouts_agree_and_memory_stays_below_its_limit():
    found = planning_speed.rollout(repeats=1, candidates=6, grid=2)
    assert found["largest_difference"] < 1e-5
    assert found["memory"]["peak"] <= found["memory"]["limit"]
    assert set(found["seconds"]["cpu"]) == {"recomputed", "cached"}


def test_the_free_model_costs_its_first_number():
    plan, iterations = planning_speed.free_plan("cem", 2)
    assert iterations == 30
    assert (plan().cost <= -0.99).all()  # the least first number inside the bounds


def test_overhead_is_measured_of_every_planner_that_samples(monkeypatch):
    monkeypatch.setattr(planning_parts, "SAMPLES", 40)
    rows = planning_speed.overhead(repeats=1)["rows"]
    for row in rows:
        per = row["microseconds_per_iteration"]
        assert set(per) == {"shooting", "cem", "icem", "mppi", "categorical"}
        assert all(value > 0 for value in per.values())


def test_the_other_planner_needs_an_interpreter_that_has_it(tmp_path, capfd):
    with pytest.raises(ConfigError, match="swm needs --swm-python"):
        planning_speed.main(["swm", "--out", str(tmp_path / "x.json")])
    torch.manual_seed(0)
    with pytest.raises(TubeletError, match="has no stable-worldmodel"):
        planning_speed.swm(sys.executable, repeats=1, batches=(1,))


def test_compiled_rollouts_are_compared_with_the_same_ones(monkeypatch):
    monkeypatch.setattr(planning_speed, "HORIZON", 2)  # every step is traced, which takes seconds
    found = planning_speed.compiled(repeats=1, candidates=(3, 2), backend="eager")
    assert [row["largest_difference"] < 1e-5 for row in found["rows"]] == [True, True]
    assert all(row["ratio"]["low"] <= row["ratio"]["value"] for row in found["rows"])
