"""The study of objectives, with stubs for training whose right scores are known."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import tyro

from tubelet.benchmarks import objective_study
from tubelet.benchmarks.factors import FactorConfig, generate, open_factors
from tubelet.benchmarks.objective_arms import ARMS, arm_config
from tubelet.benchmarks.objective_study import StudyConfig, encode, run_study, untrained
from tubelet.benchmarks.objective_tables import study_table, t_interval, to_markdown, verdict
from tubelet.benchmarks.results import load_results
from tubelet.benchmarks.stats import Estimate
from tubelet.core.errors import ConfigError
from tubelet.vjepa import pretrain
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder

SMALL = EncoderConfig(width=24, depth=1, heads=2, patch=16, tubelet=1)


def small(kind):
    return replace(SMALL, tubelet=1 if kind == "images" else 2)


class Oracle(TubeletEncoder):
    """Its tokens are the true factors of the clips it is shown, which it knows by heart."""

    def __init__(self, config, data, columns):
        super().__init__(config)
        values = data.values[[f.startswith("test/") for f in data.files]][:, columns]
        self.known = {
            clip.tobytes(): torch.from_numpy(row)
            for clip, row in zip(data.clips("test"), values, strict=True)
        }

    def forward(self, video, keep=None, **_):
        rows = torch.stack([self.known[clip.numpy().tobytes()] for clip in video])
        padded = torch.nn.functional.pad(rows, (0, self.config.width - rows.shape[1]))
        return padded[:, None].expand(-1, 4, -1)


class Trainer:
    """Stands in for training: an oracle of one group of factors, or nothing learnt."""

    def __init__(self, knows):
        self.knows, self.calls = knows, []

    def __call__(self, objective, data, out, steps, seed):
        assert data.is_dir()
        assert data.name == "train"
        self.calls.append((objective, out.name, steps, seed))
        kind = ARMS[objective].kind
        start = untrained(TubeletEncoder(small(kind)), seed)
        group = self.knows.get(objective)
        if group is None:
            return start
        truth = open_factors(data.parent)
        columns = [i for i, g in enumerate(truth.groups) if g == group]
        return Oracle(small(kind), truth, columns)


def config(folder, **changes):
    base = {"steps": 5, "seeds": 3, "images": 2, "videos": 2, "probes": 100}
    return StudyConfig(out=str(folder), **(base | {"objectives": ("ijepa", "lejepa")} | changes))


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """(folder, tables, trainer) of a study where I-JEPA knows all and LeJEPA learnt nothing."""
    folder, train = tmp_path_factory.mktemp("study"), Trainer({"ijepa": "semantic"})
    return folder, run_study(config(folder), train), train


def cells(table, row):
    found = next(line for line in table.rows if line[0] == row)
    return dict(zip(table.columns, found, strict=True))


def number(cell):
    return float(cell.split(" ")[0])


def test_there_is_one_row_per_objective_and_its_floors(study):
    _, tables, _ = study
    assert set(tables) == {"pooled", "tokens"}
    for table in tables.values():
        names = [row[0] for row in table.rows]
        assert names[:2] == ["ijepa", "lejepa"]
        assert sorted(names[2:]) == ["pixel PCA", "untrained ijepa", "untrained lejepa"]
        assert all(len(row) == len(table.columns) for row in table.rows)
        assert "motion R²" not in table.columns  # images do not move


def test_an_encoder_that_knows_the_factors_beats_both_and_an_untrained_one_itself_never(study):
    _, tables, _ = study
    for table in tables.values():
        best = cells(table, "ijepa")
        assert number(best["semantic R²"]) > 0.99
        assert number(best["nuisance R²"]) < 0.2
        assert best["verdict"] == "semantic: beats untrained, beats pixel PCA"
        none = cells(table, "lejepa")
        assert none["semantic − untrained"] == "+0.000 [+0.000, +0.000]"
        assert "semantic: ties with untrained" in none["verdict"]
        assert none["semantic R²"] == cells(table, "untrained lejepa")["semantic R²"]
        difference = number(best["semantic R²"]) - number(cells(table, "pixel PCA")["semantic R²"])
        assert number(best["semantic − pixel PCA"]) == pytest.approx(difference, abs=2e-3)


def test_tables_are_written_for_people_and_reports(study):
    folder, tables, _ = study
    text = (folder / "tables.md").read_text()
    assert all(to_markdown(table) in text for table in tables.values())
    stored = {result.value.title: result.value for result in load_results(folder)}
    assert {table.title for table in tables.values()} == set(stored)
    score = json.loads((folder / "scores" / "ijepa-0.json").read_text())
    probe = score["scores"]["trained"]["tokens"]["semantic"]
    assert (probe["width"], probe["episodes"]) == (24, [60, 20, 20])
    assert score["scores"]["pixels"]["tokens"]["semantic"]["width"] == 24
    assert probe["mean"]["low"] <= probe["mean"]["value"] <= probe["mean"]["high"]


def test_finished_runs_are_kept_and_only_missing_ones_trained(study):
    folder, tables, train = study
    assert train.calls == [
        (name, f"{name}-{seed}", 5, seed) for seed in range(3) for name in ("ijepa", "lejepa")
    ]
    again = Trainer({})
    assert run_study(config(folder), again)["tokens"].rows == tables["tokens"].rows
    assert again.calls == []
    (folder / "scores" / "lejepa-1.json").unlink()
    resumed = Trainer({"ijepa": "semantic"})
    assert run_study(config(folder), resumed)["tokens"].rows == tables["tokens"].rows
    assert resumed.calls == [("lejepa", "lejepa-1", 5, 1)]
    fewer = run_study(config(folder, objectives=("lejepa",), seeds=2), again)
    assert cells(fewer["pooled"], "lejepa")["seeds"] == "2"


def test_scores_of_other_settings_are_refused(study):
    folder, _, _ = study
    with pytest.raises(ConfigError, match=r"ijepa-0\.json was made with steps = 5, not 9"):
        run_study(config(folder, steps=9), Trainer({}))


@pytest.mark.slow
def test_motion_is_probed_on_videos_and_both_kinds_share_a_table(tmp_path):
    train = Trainer({"vjepa": "motion"})
    tables = run_study(config(tmp_path, objectives=("vjepa", "ijepa"), seeds=2), train)
    best = cells(tables["tokens"], "vjepa")
    assert number(best["motion R²"]) > 0.99
    assert "motion: beats untrained" in best["verdict"]
    still = cells(tables["tokens"], "ijepa")
    assert still["motion R²"] == still["motion − untrained"] == "–"
    assert "motion" not in still["verdict"]
    assert [row[:2] for row in tables["tokens"].rows if row[0] == "pixel PCA"] == [
        ["pixel PCA", "images"],
        ["pixel PCA", "videos"],
    ]


def test_t_intervals():
    estimate = t_interval([0.1, 0.2, 0.4])
    spread = np.std([0.1, 0.2, 0.4], ddof=1)
    assert estimate.value == pytest.approx(0.7 / 3)
    assert estimate.high - estimate.value == pytest.approx(4.302653 * spread / math.sqrt(3))
    assert t_interval([0.5]) == Estimate(0.5, -math.inf, math.inf)
    rng = np.random.default_rng(0)  # it covers the mean as often as it says
    inside = [
        abs((e := t_interval(rng.normal(size=3))).value) < e.high - e.value for _ in range(1500)
    ]
    assert np.mean(inside) == pytest.approx(0.95, abs=0.02)


def test_verdicts_say_what_loses():
    win, tie, loss = Estimate(0.2, 0.1, 0.3), Estimate(0, -0.1, 0.1), Estimate(-0.2, -0.3, -0.1)
    differences = {("semantic", "random"): win, ("semantic", "pixels"): loss}
    differences |= {("motion", "random"): tie, ("motion", "pixels"): win}
    assert verdict(differences) == (
        "semantic: beats untrained, loses to pixel PCA; "
        "motion: ties with untrained, beats pixel PCA"
    )
    assert verdict({("semantic", "random"): t_interval([1.0])}) == "not judged: one seed"
    with pytest.raises(ConfigError, match="at least one"):
        study_table([], "tokens")


def test_encoding_keeps_the_mode_and_the_order():
    encoder = TubeletEncoder(SMALL).train()
    clips = np.random.default_rng(0).integers(0, 256, (7, 1, 32, 32, 3), np.uint8)
    tokens = encode(encoder, clips, batch=3)
    assert encoder.training
    assert tokens.shape == (7, 4, 24)
    whole = encode(encoder, clips, batch=64)
    np.testing.assert_allclose(tokens, whole, atol=1e-5)


@pytest.mark.parametrize("objective", ["ijepa", "lejepa", "vjepa"])
def test_the_untrained_encoder_is_the_one_that_training_starts_from(objective):
    sample = torch.randint(0, 256, (2, 2, 16, 16, 3), dtype=torch.uint8)
    started = pretrain.build(arm_config(objective, sample, 3, 7)).encoder
    fresh = untrained(started, 7).state_dict()
    assert all(torch.equal(fresh[key], value) for key, value in started.state_dict().items())


@pytest.mark.parametrize("objective", list(ARMS))
def test_every_arm_trains(tmp_path, objective, monkeypatch):
    arm = ARMS[objective]
    monkeypatch.setitem(ARMS, objective, replace(arm, batch=4))
    data = generate(tmp_path, FactorConfig(kind=arm.kind, train=6, test=1))
    out = tmp_path / "run"
    encoder = objective_study.train_arm(objective, data.folder / "train", out, 2, 0)
    assert not encoder.training
    again = objective_study.train_arm(objective, data.folder / "train", out, 2, 0)  # goes on: done
    for one, two in zip(encoder.parameters(), again.parameters(), strict=True):
        assert torch.equal(one, two)
    start = untrained(encoder, 0).state_dict()
    assert any(not torch.equal(start[key], value) for key, value in encoder.state_dict().items())


def test_impossible_settings_are_refused_by_name(tmp_path):
    for wrong in ({"steps": 0}, {"seeds": 0}, {"probes": 99}, {"objectives": ("ijepa2",)}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            config(tmp_path, **wrong)


def test_the_command_explains_itself(capsys):
    with pytest.raises(SystemExit, match="0"):
        tyro.cli(StudyConfig, description=objective_study.__doc__, args=["--help"])
    shown = capsys.readouterr().out
    for flag in ("--steps", "--seeds", "--images", "--videos", "--out", "--objectives"):
        assert flag in shown
