"""The study of content and motion: oracles, tables, and that it goes on where it stopped."""

import json

import numpy as np
import pytest
import torch

from tubelet.benchmarks import flow_study
from tubelet.benchmarks.flow_arms import TEST_SEED, run_config
from tubelet.benchmarks.flow_study import SIZES, FlowStudyConfig, judge_flow, run_flow_study
from tubelet.benchmarks.flow_tables import study_tables, word
from tubelet.benchmarks.stats import Estimate
from tubelet.core.errors import ConfigError
from tubelet.datasets.synthetic.flow_pairs import FlowPairConfig, draw_flow_set


def config(folder, **changes):
    given = {"preset": "debug", "out": str(folder), "seeds": 1, "threads": 1}
    return FlowStudyConfig(**given | changes)


def test_the_debug_study_and_that_it_goes_on(tmp_path, monkeypatch):
    first = run_flow_study(config(tmp_path, arms=("both", "untrained")))
    assert (tmp_path / "pictures" / "both-0.png").exists()
    stored = json.loads((tmp_path / "scores" / "both-0.json").read_text())
    assert stored["flow"]["textures"]["epe"] > 0
    assert set(stored["probes"]) == {"shape", "colour", "count"}
    trained = []
    monkeypatch.setattr(
        flow_study, "train_arm", lambda name, *rest: trained.append(name) or pytest.fail(name)
    )
    again = run_flow_study(config(tmp_path, arms=("both", "untrained", "pixel PCA")))
    assert trained == []
    assert again[0].rows == first[0].rows
    assert [row[0] for row in again[2].rows] == ["both", "untrained", "pixel PCA"]
    path = tmp_path / "scores" / "both-0.json"
    path.write_text(json.dumps(stored | {"settings": stored["settings"] | {"steps": 9}}))
    with pytest.raises(ConfigError, match="steps = 9, not 8"):
        run_flow_study(config(tmp_path, arms=("both",)))


def test_arms_take_as_many_batches_of_their_kind_as_both_do():
    size = SIZES["small"]
    both = run_config("both", size, 0)
    counts = both.motion.before(both.loop.steps, both.loop.steps)
    assert {k: run_config(k, size, 0).loop.steps for k in ("flow", "content")} == counts
    assert sum(counts.values()) == both.loop.steps == run_config("flow longer", size, 0).loop.steps


class Oracle:
    """Knows the flow there; back, it says that nothing moved (or the mirror, if told so)."""

    def __init__(self, pairs, scale=1.0, back=-1.0):
        self.pairs, self.scale, self.back = pairs, scale, back

    def flow(self, first, second):
        forward = np.array_equal(first.numpy(), self.pairs.first)
        truth = torch.from_numpy(self.pairs.flow).movedim(-1, 1)
        return truth * (self.scale if forward else self.back)


def test_an_oracle_has_no_error_and_no_flow_has_that_of_zero():
    pairs = draw_flow_set(FlowPairConfig(size=32, affine=0.0, seed=TEST_SEED), 4)
    exact = judge_flow(Oracle(pairs), pairs, 4)
    assert exact["epe"] == exact["epe_visible"] == 0
    assert exact["inconsistency"] < 1e-5
    assert exact["consistent_visible"] == 1
    assert exact["consistent_hidden"] == 0  # shifted out of the frame
    still = judge_flow(Oracle(pairs, scale=0.0), pairs, 4)
    assert still["epe"] == pytest.approx(still["zero_epe"])
    assert still["zero_epe"] == pytest.approx(np.linalg.norm(pairs.flow, axis=-1).mean(), rel=1e-5)
    half = judge_flow(Oracle(pairs, scale=0.5), pairs, 4)
    assert half["epe"] == pytest.approx(half["zero_epe"] / 2, rel=1e-5)


def score(arm, seed, epe=None, probe=0.5):
    kinds = {}
    if epe is not None:
        values = {"epe": epe, "epe_visible": epe, "zero_epe": 2.0, "zero_epe_visible": 2.0}
        values |= {"consistent_visible": 0.9, "consistent_hidden": 0.1}
        kinds = {"textures": values, "sprites": values}
    settings = {"arm": arm, "seed": seed, "side": 32, "steps": 8, "tests": 4, "probes": 9}
    settings |= {"flow_batch": 2, "content_batch": 4}
    probes = dict.fromkeys(("shape", "colour", "count"), probe)
    return {"settings": settings, "flow": kinds, "probes": probes}


def test_tables_compare_seed_by_seed():
    scores = []
    for seed, noise in enumerate((0.0, 0.3, -0.2)):
        scores += [
            score("both", seed, 1.0 + noise, 0.6 + noise),
            score("flow", seed, 1.5 + noise + 0.01 * seed, 0.4 + noise),
            score("content", seed, None, 0.7 + noise - 0.01 * seed),
        ]
    flow, flow_gaps, probes, probe_gaps = study_tables(scores)
    assert [row[0] for row in flow.rows] == ["both", "flow", "no flow"]
    assert flow.rows[-1][2] == "2.000"
    assert flow_gaps.rows[0][:2] == ["both − flow", "3"]
    assert flow_gaps.rows[0][2].startswith("-0.510")
    assert "textures: better" in flow_gaps.rows[0][-1]
    assert [row[0] for row in probes.rows] == ["both", "flow", "content"]
    words = {row[0]: row[-1] for row in probe_gaps.rows}
    assert words["both − content"].startswith("shape: worse")
    assert words["both − flow"].startswith("shape: better")


def test_a_word_is_about_the_interval():
    assert word(Estimate(-1.0, -2.0, -0.1), below=True) == "better"
    assert word(Estimate(-1.0, -2.0, -0.1), below=False) == "worse"
    assert word(Estimate(-1.0, -2.0, 0.1), below=True) == "undecided"
    assert word(Estimate(1.0, float("-inf"), float("inf")), below=True) == "not judged"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"preset": "large"}, "preset = 'large'"),
        ({"arms": ("bth",)}, "arms: no 'bth'; did you mean 'both'"),
        ({"arms": ()}, "arms = "),
        ({"seeds": 0}, "seeds = 0"),
    ],
)
def test_impossible_studies_are_refused(changes, named, tmp_path):
    with pytest.raises(ConfigError, match=named):
        config(tmp_path, **changes)
