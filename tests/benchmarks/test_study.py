"""What resumable studies share: parts that are refused, and scores that are kept or refused."""

import json
from dataclasses import dataclass

import pytest

from tubelet.benchmarks.study import check_parts, plain, run_parts, scored, slug
from tubelet.core.errors import ConfigError

GIVEN = {
    "preset": "small",
    "presets": ("small", "debug"),
    "arms": ("base", "both"),
    "every": ("base", "both", "base, longer"),
    "seeds": 3,
    "seeds_from": 0,
}


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"preset": "huge"}, "preset = 'huge': choose one of small, debug"),
        ({"arms": ("bth",)}, "no 'bth'; did you mean 'both'"),
        ({"arms": ()}, r"arms = \(\)"),
        ({"seeds": 0}, "seeds = 0"),
        ({"seeds_from": -1}, "seeds_from = -1"),
    ],
)
def test_what_cannot_run_is_refused_by_name(change, named):
    check_parts(**GIVEN)
    with pytest.raises(ConfigError, match=named):
        check_parts(**GIVEN | change)


def test_a_score_is_made_once_and_refused_under_other_settings(tmp_path):
    path, calls = tmp_path / "scores" / "one.json", []

    def judge():
        calls.append(1)
        return {"accuracy": 0.5}

    first = scored(path, {"steps": 5}, judge)
    assert first == scored(path, {"steps": 5}, judge) == {"settings": {"steps": 5}, "accuracy": 0.5}
    assert calls == [1]
    with pytest.raises(ConfigError, match=r"one\.json was made with steps = 5, not 9"):
        scored(path, {"steps": 9}, judge)
    assert json.loads(path.read_text()) == first  # refused, not overwritten


def test_all_parts_are_judged_and_scores_of_earlier_parts_count(tmp_path):
    seen = []

    def judge(name, seed):
        seen.append((name, seed))
        return {"value": seed}

    run_parts(tmp_path, ("base",), range(2), {"steps": 1}, judge)
    found = run_parts(tmp_path, ("base", "base, longer"), range(1, 3), {"steps": 1}, judge)
    assert seen == [("base", 0), ("base", 1), ("base, longer", 1), ("base", 2), ("base, longer", 2)]
    parts = {(s["settings"]["arm"], s["settings"]["seed"]) for s in found}
    assert parts == set(seen)
    assert slug("base, longer") == "base-longer"


def test_plain_configs_are_what_json_gives_back():
    @dataclass(frozen=True)
    class Size:
        lrs: tuple[float, ...] = (1.0, 2.0)

    assert plain(Size()) == {"lrs": [1.0, 2.0]}
