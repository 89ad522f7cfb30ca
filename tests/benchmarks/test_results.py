import json

import numpy as np
import pytest

from tubelet.benchmarks.floors import no_action
from tubelet.benchmarks.goal_reaching import evaluate
from tubelet.benchmarks.landscape import Landscape
from tubelet.benchmarks.probes import ridge_probe
from tubelet.benchmarks.results import Table, film, load_results, save_result
from tubelet.benchmarks.run_report import build_report
from tubelet.cli import report as cli
from tubelet.core.errors import ConfigError, TubeletError

from .test_report import Page
from .toy import GreedyAgent, PointEnv


@pytest.fixture
def run(tmp_path, episodes):
    """A run folder with one result of every kind."""
    folder = tmp_path / "run"
    for seed in (0, 1):
        save_result(
            folder,
            evaluate(
                PointEnv, GreedyAgent(), episodes, name="gr<e>edy", seed=seed, record=[1][seed:]
            ),
        )
    still = evaluate(PointEnv, no_action(15, 2), episodes, name="no action", role="floor")
    save_result(folder, still)
    rng = np.random.default_rng(0)
    features, which = rng.normal(size=(80, 4)), np.repeat(np.arange(20), 4)
    for step in (None, 0, 100):
        name = "pixels" if step is None else "trained"
        probe = ridge_probe(
            features, features[:, :2], which, name=name, target_names=("x", "y"), step=step
        )
        save_result(folder, probe)
    grid = np.linspace(0, 1, 4)
    save_result(
        folder,
        Landscape(
            name="toy",
            axes=("x", "y"),
            x=grid,
            y=grid,
            goal=(0.5, 0.5),
            cost=rng.random((4, 4)),
            distance=rng.random((4, 4)),
            distance_name="position",
            spearman=0.5,
        ),
    )
    save_result(folder, Table(title="Copy", columns=["model", "ratio"], rows=[["m", 0.4]]))
    (folder / "train").mkdir()
    (folder / "train" / "metrics.jsonl").write_text('{"step": 0, "loss": 1.0}\n')
    (folder / "train" / "config.toml").write_text("lr = 0.001\n")
    speed = {
        "benchmark": "render",
        "setting": "64 px",
        "unit": "frames/s",
        "values": {c: {"a": 1.0, "b": 100.0} for c in ("cpu", "wall")},
        "ratio": {"cpu": 100.0, "wall": 100.0},
        "repeats": 3,
        "command": "speed render",
        "machine": {},
    }
    (folder / "speed_render.json").write_text(json.dumps(speed))
    return folder


def test_results_round_trip_with_films(run, episodes):
    stored = load_results(run)
    assert len(stored) == 8
    greedy = next(s for s in stored if getattr(s.value, "seed", None) == 0)
    assert greedy.value.at_end.all()
    assert [(f.problem, f.hit) for f in greedy.films] == [(1, True)]
    assert greedy.films[0].path.stat().st_size > 500
    assert greedy.machine["cores"] >= 1


def test_saving_again_replaces(run):
    table = Table(title="Copy", columns=["model", "ratio"], rows=[["m", 0.5]])
    save_result(run, table)
    values = [s.value for s in load_results(run) if isinstance(s.value, Table)]
    assert [v.rows for v in values] == [[["m", 0.5]]]


def test_film_shows_start_goal_and_rollout(episodes):
    result = evaluate(PointEnv, GreedyAgent(), episodes, name="g", record=[0])
    clip = film(result, 0)
    assert clip.shape == (16, 64, 3 * 64 + 16, 3)
    np.testing.assert_array_equal(clip[5, 0, 0], result.films[0][0, 0, 0])
    np.testing.assert_array_equal(clip[5, 0, 72], result.goals[0][0, 0])
    np.testing.assert_array_equal(clip[5, 0, 144], result.films[0][5, 0, 0])
    bar = clip[:, -1, -1]
    assert len(np.unique(bar[result.success[0]], axis=0)) == 1
    assert (bar[-1] != bar[0]).any()  # ends in success, starts without


def test_report_shows_everything_it_found(run):
    page = Page(build_report(run, title="Toy").html())
    text = "".join(page.words)
    for words in (
        "gr<e>edy ends in success on 100 %",
        "2 seeds",
        "McNemar vs no action",
        "ratio 100.0",
        "Copy",
        "Spearman",
        "R² on held-out episodes",
        "lr = 0.001",
        "loss",
        "Machine:",
    ):
        assert words in text, words
    assert page.tags.count("video") == 1
    assert page.tags.count("svg") == 5


def test_command_writes_the_page_and_prints_the_table(run, capsys):
    assert cli.run(cli.Config(run=run, title="Toy")) == 0
    assert "Toy" in (run / "report.html").read_text()
    assert "toy/Point-v0: far goals" in capsys.readouterr().out


def test_bad_folders_and_files_are_one_clear_error(run, tmp_path):
    with pytest.raises(ConfigError, match="no such folder"):
        cli.run(cli.Config(run=tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(TubeletError, match="nothing to report"):
        build_report(tmp_path / "empty")
    damaged = run / "results" / "damaged.json"
    for content in ("{", "[]", '{"kind": "dance", "value": {}}'):
        damaged.write_text(content)
        with pytest.raises(TubeletError, match=r"damaged\.json"):
            load_results(run)
    damaged.unlink()
    (run / "speed_x.json").write_text("{}")
    with pytest.raises(TubeletError, match=r"speed_x\.json"):
        build_report(run)
