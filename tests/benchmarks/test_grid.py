"""Suites: what a file may say, the jobs that it makes, and one run from data to table."""

import csv
import json

import pytest

from tubelet.benchmarks import cell, run_suite
from tubelet.benchmarks.grid import built_in, keep_suite, load_suite, parse_suite, suite_jobs
from tubelet.benchmarks.jobs import run_jobs
from tubelet.benchmarks.tidy import COLUMNS, write_tidy
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError
from tubelet.envs import make
from tubelet.planning import ICEMConfig

REACHER = {"env": "tubelet/Reacher-v0"}


def table(**changes):
    base = {
        "seeds": [3, 4],
        "envs": {"a": REACHER, "b": {**REACHER, "budget": 7, "collect": {"episodes": 9}}},
        "models": {"m": {}, "frozen": {"preset": "vjepa_vector", "pretrain": {}, "envs": ["a"]}},
        "planners": {"cem": {"samples": 11, "elites": 4}, "i": {"kind": "icem"}},
    }
    return {**base, **changes}


def test_every_cell_is_a_job_after_what_it_needs():
    suite = parse_suite(table())
    assert suite.envs["b"].budget == 7
    assert suite.envs["b"].collect.episodes == 9
    assert suite.planners["cem"].samples == 11
    assert isinstance(suite.planners["i"], ICEMConfig)
    jobs = {j.name: j for j in suite_jobs(suite, "x.yaml", "out", device="cpu", threads=1)}
    plans = {name for name in jobs if name.startswith("plan/")}
    assert plans == {
        f"plan/{env}/{model}/{seed}/{planner}"
        for env, model in [("a", "m"), ("b", "m"), ("a", "frozen")]
        for seed in (3, 4)
        for planner in ("cem", "i")
    }
    assert jobs["plan/a/frozen/3/i"].needs == ("episodes/a", "train/a/frozen/3")
    assert jobs["train/a/frozen/3"].needs == ("pretrain/a/frozen/3",)
    assert jobs["pretrain/a/frozen/3"].needs == ("collect/a",)
    assert jobs["diagnose/b/m/4"].needs == ("train/b/m/4",)
    assert jobs["train/b/m/4"].needs == ("collect/b",)
    assert json.loads(jobs["oracle/a/cem"].command[-1])["planner"] == "cem"
    gradients = parse_suite(table(planners={"adam": {"kind": "adam"}, "cem": {}}))
    names = [j.name for j in suite_jobs(gradients, "x", "out", device="cpu", threads=1)]
    assert [n for n in names if n.startswith("oracle/a")] == ["oracle/a/cem"]
    assert "plan/a/m/3/adam" in names
    without = parse_suite(table(oracle=False, floors=False))
    names = [j.name for j in suite_jobs(without, "x", "out", device="cpu", threads=1)]
    assert not [n for n in names if n.startswith(("oracle", "floors"))]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"planers": {}}, "unknown key 'planers'; did you mean 'planners'"),
        ({"planners": {}}, "at least one entry"),
        ({"planners": {"x": {"kind": "cme"}}}, "planners.x.kind = 'cme'; did you mean 'cem'"),
        ({"planners": {"x": {"sample": 3}}}, "did you mean 'samples'"),
        ({"planners": {"x": {"horizon": 0}}}, "horizon = 0"),
        ({"envs": {"a": {**REACHER, "budgett": 3}}}, "envs.a.*did you mean 'budget'"),
        ({"models": {"m": {"preset": "end_to_ent"}}}, "did you mean 'end_to_end'"),
        ({"models": {"m": {"preset": "vjepa_vector"}}}, "models.m: freezes its encoder"),
        ({"models": {"m": {"trian": {}}}}, r"unknown keys \['trian'\]"),
        ({"models": {"m": {"envs": ["c"]}}}, "not under envs"),
        ({"seeds": [0.5]}, "seeds"),
    ],
)
def test_mistakes_in_a_file_are_named(changes, message):
    with pytest.raises(ConfigError, match=f"(?s){message}"):
        parse_suite(table(**changes))


@pytest.mark.parametrize("name", built_in())
def test_built_in_suites_are_sound(name):
    """Every environment exists, and names of their files are those that --suite takes."""
    suite = load_suite(name)
    assert suite.name == name
    for entry in suite.envs.values():
        env = make(entry.env, render_obs=False)
        assert env.unwrapped.model.nu > 0


def test_a_suite_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match=r"did you mean 'core'|no such file"):
        load_suite("cor")
    bad = tmp_path / "bad.yaml"
    bad.write_text("envs: [")
    with pytest.raises(ConfigError, match="not readable as YAML"):
        load_suite(bad)


def test_a_run_folder_keeps_its_suite(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text("a: 1\n")
    (tmp_path / "out").mkdir()
    keep_suite(str(mine), tmp_path / "out")
    keep_suite(str(mine), tmp_path / "out")
    mine.write_text("a: 2\n")
    with pytest.raises(ConfigError, match="another suite"):
        keep_suite(str(mine), tmp_path / "out")


class Here:
    """A job in this process, which has torch in memory already."""

    def __init__(self, job, log):
        assert job.command[1:3] == ("-m", "tubelet.benchmarks.cell")
        self._code = cell.main(job.command[3:])

    def code(self):
        return self._code

    def end(self):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("processes", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_the_debug_suite_from_nothing_to_a_table(tmp_path, capsys, monkeypatch, processes):
    if not processes:
        monkeypatch.setattr(run_suite, "starter", lambda *args, **options: Here)
    out = tmp_path / "run"
    command = ["bench", "--suite", "debug", "--out", str(out), "--workers", "2", "--threads", "1"]
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "end_to_end" in printed
    with open(out / "results.csv") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    methods = {(r["role"], r["method"]) for r in rows}
    assert {("model", "end_to_end, cem"), ("model", "end_to_end, shooting")} <= methods
    assert {("ceiling", "simulator oracle, cem"), ("floor", "no action")} <= methods
    assert len(rows) == 4 * len(methods)
    assert len({r["episodes_sha256"] for r in rows}) == 1
    first = json.loads(rows[0]["start_distance"])
    assert first
    page = (out / "report.html").read_text()
    assert "What success depends on" in page
    assert "What limits the models" in page
    jobs = suite_jobs(load_suite("debug"), str(out / "suite.yaml"), out, device="auto", threads=1)
    assert len(run_jobs(jobs, out, say=lambda text: None).earlier) == len(jobs)
    before = (out / "results.csv").read_text()
    assert write_tidy(out).read_text() == before
