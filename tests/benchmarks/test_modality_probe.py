"""The frozen probe of a finished run: its rows, its data, its pairs."""

from dataclasses import replace

import numpy as np
import pytest

from tubelet.benchmarks import modality_probe
from tubelet.benchmarks.modality_probe import ModalityProbeConfig, run_modality_probe
from tubelet.benchmarks.results import load_results
from tubelet.cli.main import main
from tubelet.core.errors import CheckpointError, ConfigError
from tubelet.vjepa.modalities.recipe import pretrain_tokens, run_preset


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("probe") / "run"
    config = run_preset("pointjepa-debug")
    loop = replace(config.train.loop, steps=2)
    pretrain_tokens(
        replace(config, out=str(folder), device="cpu", train=replace(config.train, loop=loop))
    )
    return folder


def test_a_run_is_probed_beside_its_floors(run, monkeypatch):
    monkeypatch.setattr(
        modality_probe, "cloud_features", lambda clouds: np.zeros((len(clouds), 4))
    )  # which know nothing: the commonest class at best
    table = run_modality_probe(ModalityProbeConfig(encoder=str(run), count=80))
    assert [row[0] for row in table.rows] == ["trained", "untrained", "hand-made features"]
    assert float(table.rows[2][1].split()[0]) <= 0.25
    assert "24 samples of 8 classes, 45 to fit and 11 to choose" in table.note


def test_the_verb_writes_a_run_folder_and_goes_on_from_its_config(run, tmp_path, capsys):
    out = str(tmp_path / "judged")
    flags = ["--encoder", str(run), "--count", "60", "--out", out]
    assert main(["evaluate", "--preset", "tokens", *flags]) == 0
    (stored,) = load_results(out)
    assert [row[0] for row in stored.value.rows] == ["trained", "untrained", "hand-made features"]
    assert "18 samples of 8 classes" in capsys.readouterr().out.replace("\n", " ")
    assert main(["evaluate", "--config", f"{out}/config.toml", "--resume"]) == 0
    (again,) = load_results(out)
    assert again.value == stored.value


def test_other_verbs_say_what_the_run_is(run, tmp_path, capsys):
    asked = ["--encoder", str(run), "--data", str(tmp_path), "--out", str(tmp_path / "x")]
    assert main(["evaluate", *asked]) == 2
    told = capsys.readouterr().err
    assert "holds an encoder of points or skeletons, not an encoder of videos or images" in told
    assert "tubelet evaluate --preset tokens" in told
    assert main(["plan", "--model", str(run), "--out", str(tmp_path / "y")]) == 2
    assert "not a world model" in capsys.readouterr().err
    assert main(["evaluate", "--preset", "tokens"]) == 2
    assert 'encoder = ""' in capsys.readouterr().err


def test_public_data_are_fitted_on_one_part_and_reported_on_the_other(run, tmp_path):
    """Two classes that no one can miss, far apart in shape: a line and a ball."""
    (tmp_path / "ShapeNet-55").mkdir()
    (tmp_path / "shapenet_pc").mkdir()
    draw = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        names = [f"{k % 2:08d}-{part}{k}.npy" for k in range(count)]
        (tmp_path / "ShapeNet-55" / f"{part}.txt").write_text("\n".join(names))
        for k, name in enumerate(names):
            ball = draw.normal(size=(70, 3))
            np.save(tmp_path / "shapenet_pc" / name, ball * ([1, 1, 1], [1, 0.01, 0.01])[k % 2])
    table = run_modality_probe(ModalityProbeConfig(encoder=str(run), data=str(tmp_path)))
    assert "10 samples of 2 classes, 32 to fit and 8 to choose" in table.note
    assert table.rows[0][1].startswith("1.000")
    assert table.rows[2][1].startswith("1.000")


def test_bad_questions_are_refused(run, tmp_path):
    with pytest.raises(ConfigError, match="count = 10"):
        ModalityProbeConfig(encoder="x", count=10)
    with pytest.raises(ConfigError, match="protocol = 'all'"):
        ModalityProbeConfig(encoder="x", protocol="all")
    with pytest.raises(CheckpointError):
        run_modality_probe(ModalityProbeConfig(encoder=str(tmp_path)))
