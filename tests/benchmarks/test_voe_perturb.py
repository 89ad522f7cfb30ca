"""World models and changes in their environments: from collecting to the tables, and oracles."""

import json
import shutil

import numpy as np
import pytest

from tubelet.benchmarks.voe.dynamics import DynamicsScorer, StepConfig
from tubelet.benchmarks.voe.models import Candidate
from tubelet.benchmarks.voe.perturb import perturb, perturbed_set, score_episodes, windows_of
from tubelet.benchmarks.voe.perturb_tables import rows_of
from tubelet.benchmarks.voe.settings import PerturbConfig
from tubelet.benchmarks.voe.store import open_run
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError

from .test_voe_score import Mover

ON_CPU = ["--device", "cpu", "--threads", "1"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A world model of two steps of training on six short episodes."""
    root = tmp_path_factory.mktemp("world")
    sizes = ["--episodes", "6", "--steps", "16", "--image-size", "32", "--workers", "1"]
    data = ["--env", "tubelet/PointMaze-v0", "--out", str(root / "data")]
    assert main(["collect", *data, *sizes]) == 0
    small = ["--train.model.image-size", "32", "--train.horizon", "2", "--train.batch-size", "4"]
    small += ["--train.loop.steps", "2", "--train.loop.save-every", "2"]
    where = ["--data", str(root / "data"), "--out", str(root / "run")]
    assert main(["train", "--preset", "end_to_end", *where, *small, *ON_CPU]) == 0
    return root / "run"


def quick(world, out, *flags):
    sizes = ["--episodes", "3", "--steps", "24", "--horizon", "1", "--untrained", "2"]
    return ["voe", "perturb", "--model", str(world), "--out", str(out), *sizes, *ON_CPU, *flags]


def table(path, name):
    return json.loads((path / "results" / f"perturb-{name}.json").read_text())["value"]


@pytest.fixture(scope="module")
def scored(world, tmp_path_factory):
    out = tmp_path_factory.mktemp("perturb") / "run"
    assert main(quick(world, out)) == 0
    return out


def test_one_command_gives_all_rows_and_the_null_control_is_at_one_half(scored):
    for name in ("accuracy", "suffix"):
        found = table(scored, name)
        rows = {row[0]: row for row in found["rows"]}
        expected = ["teleport", "colour", "vanish", "all: visible jump"]
        expected += ["mass", "friction", "all: physical only"]
        if name == "accuracy":
            expected.append("null control")
        assert list(rows) == expected
        assert {row[2] for row in rows.values()} == {3}
        for kind in ("teleport", "colour", "vanish"):
            assert rows[kind][3] == "100.0", "a jump is seen in every episode"
    null = {r[0]: r for r in table(scored, "accuracy")["rows"]}["null control"]
    for column in (4, 7, 8, 9, 10):
        assert null[column].startswith("50.0"), found["columns"][column]
    assert null[3] == "0.0"
    auroc = table(scored, "auroc")
    assert [row[2] for row in auroc["rows"]][:4] == ["3 / 6", "3 / 6", "3 / 6", "9 / 18"]


def test_frame_difference_sees_jumps_and_ties_where_nothing_shows(scored):
    run = open_run(scored)
    losses = run.losses("frame difference")
    index = run.index
    for pair in run.pairs:
        if pair.match != "prefix":
            continue
        p, i = index[pair.possible], index[pair.impossible]
        shown = run.videos[i].t_observable
        if shown is None:
            assert np.array_equal(losses[p], losses[i], equal_nan=True)
        elif run.videos[i].principle == "teleport":
            assert np.nanmax(losses[i]) > np.nanmax(losses[p])


@pytest.mark.slow
def test_a_run_goes_on_where_it_stopped(world, scored, capsys):
    before = {f: f.stat().st_mtime_ns for f in sorted((scored / "losses").glob("model*.npy"))}
    film = next((scored / "videos").glob("*.npy"))
    stamp = film.stat().st_mtime_ns
    (scored / "episodes" / "0001.json").unlink()  # as if killed while this one was played
    assert main(quick(world, scored, "--resume")) == 0
    assert {f: f.stat().st_mtime_ns for f in before} == before
    assert film.stat().st_mtime_ns == stamp
    assert len(list((scored / "episodes").glob("*.json"))) == 3
    capsys.readouterr()
    assert main(["voe", "report", "--runs", str(scored), "--out", str(scored / "p.html")]) == 0
    assert "physical only" in (scored / "p.html").read_text()


def test_a_model_with_the_true_dynamics_is_right_about_changes_that_break_them(tmp_path):
    """Mean brightness rises by what the actions say; the changed playing jumps once."""
    rng, played = np.random.default_rng(0), []
    (tmp_path / "videos").mkdir()
    (tmp_path / "episodes").mkdir()
    for number in range(4):
        actions = rng.integers(1, 4, (17, 1)).astype(np.float32)
        level = 40 + np.concatenate([[0], np.cumsum(actions[:-1, 0])])
        clips = {"plain": level, "changed": level + 20 * (np.arange(17) >= 8), "always": level + 20}
        clips |= {"null plain": level, "null": level}
        for role, values in clips.items():
            clip = np.broadcast_to(values[:, None, None, None], (17, 8, 8, 3)).astype(np.uint8)
            np.save(tmp_path / "videos" / f"{number}{role}.npy", clip)
        np.save(tmp_path / "episodes" / f"{number:04d}.npy", actions)
        videos = {role: f"{number}{role}" for role in clips}
        change = {"kind": "colour", "step": 8, "seen": 8, "videos": videos}
        played.append({"episode": number, "changes": [change], "refused": []})
    steps = StepConfig(block=2, actions="logged", horizon=2)
    fresh = lambda seed: DynamicsScorer(  # noqa: E731
        Mover(), StepConfig(block=2, horizon=2), f"untrained {seed}", baselines=False
    )
    candidate = Candidate(scorer=DynamicsScorer(Mover(), steps), fresh=fresh)
    config = PerturbConfig(untrained=2)
    run_dir = tmp_path / "run"
    tables = score_episodes(
        perturbed_set(played, tmp_path), candidate, windows_of(steps), config, run_dir
    )
    for found, wanted in zip(tables, ("100.0", "1.000", "100.0"), strict=True):
        row = next(r for r in found.rows if r[0] == "colour")
        assert row[found.columns.index("model")].startswith(wanted), found.title
    run = open_run(run_dir)
    losses, index = run.losses("model"), run.index
    assert np.nanmax(losses[index["0000-colour-plain"]]) < 1e-4
    assert np.nanmax(losses[index["0000-colour-changed"]]) == pytest.approx(20, abs=1e-3)
    assert [row.name for row in rows_of(run)] == ["colour", "null control"]
    assert {v.group for v in run.videos if v.kind == "probe"} == {f"{n:04d}" for n in range(4)}


def test_what_cannot_be_disturbed_is_refused(world, tmp_path):
    with pytest.raises(ConfigError, match="name a run folder"):
        perturb(PerturbConfig())
    out = str(tmp_path / "run")
    with pytest.raises(ConfigError, match="unknown environment"):
        perturb(PerturbConfig(model=str(world), env="tubelet/Chess-v0", out=out))
    with pytest.raises(ConfigError, match="has ball"):
        perturb(PerturbConfig(model=str(world), thing="teapot", episodes=1, out=out))
    for wrong in ({"kinds": ()}, {"size": 0.0}, {"episodes": 0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            PerturbConfig(**wrong)


def test_a_model_whose_trajectories_are_gone_is_disturbed_where_one_says(world, tmp_path):
    alone = tmp_path / "alone"
    shutil.copytree(world, alone)
    text = (alone / "config.toml").read_text()
    (alone / "config.toml").write_text(text.replace(str(world.parent / "data"), "nowhere"))
    options = {"model": str(alone), "episodes": 1, "steps": 24, "untrained": 0, "horizon": 1}
    options |= {"device": "cpu", "threads": 1, "out": str(tmp_path / "out")}
    with pytest.raises(ConfigError, match=r"trajectories are gone.*--env"):
        perturb(PerturbConfig(**options))
    assert perturb(PerturbConfig(**options, env="tubelet/PointMaze-v0"))[0].rows
