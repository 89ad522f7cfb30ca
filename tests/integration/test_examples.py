"""The examples run and do what they say."""

import runpy
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_own_model_reaches_its_goal():
    example = runpy.run_path(str(EXAMPLES / "plan_with_your_own_model.py"))
    assert example["main"]() < 0.05


def test_own_environment_is_planned_in():
    example = runpy.run_path(str(EXAMPLES / "bring_your_own_environment.py"))
    assert example["main"]() < 0.15
