"""The verbs end to end on tiny data, and what they say to a user who got something wrong."""

import json
import os
import shutil
from functools import partial

import pytest
import torch

from tubelet.cli import plan as plan_verb
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError, TubeletError
from tubelet.vjepa import checkpoint
from tubelet.vjepa.compiled import compile_rollouts

QUICK = ["--train.loop.steps", "4", "--train.loop.save-every", "2", "--train.batch-size", "4"]
ON_CPU = ["--device", "cpu", "--threads", "1"]
PLAN = ["--episodes", "2", "--budget", "5", "--cem.horizon", "2", "--cem.samples", "6"]
PLAN += ["--cem.iterations", "1", "--cem.elites", "3", "--films", "1", *ON_CPU]


def pretrain(videos, out, *flags):
    where = ["--videos", str(videos), "--out", str(out)]
    return ["pretrain", "--preset", "debug", *where, *QUICK, *ON_CPU, *flags]


def train(preset, data, out, *flags):
    where = ["--data", str(data), "--out", str(out)]
    small = ["--train.model.image-size", "32", "--train.horizon", "2"]
    return ["train", "--preset", preset, *where, *small, *QUICK, *ON_CPU, *flags]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Six short episodes, an encoder from their videos, and the three kinds of world model."""
    root = tmp_path_factory.mktemp("runs")
    flags = ["--episodes", "6", "--steps", "16", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--out", str(root / "data"), *flags]) == 0
    assert main(pretrain(root / "data" / "videos", root / "encoder", "--cache")) == 0
    encoder = ["--encoder", str(root / "encoder")]
    assert main(train("vjepa_vector", root / "data", root / "vector", *encoder)) == 0
    assert main(train("vjepa_tokens", root / "data", root / "tokens", *encoder)) == 0
    assert main(train("end_to_end", root / "data", root / "joint")) == 0
    return root


def test_a_probe_along_with_pretraining(runs, tmp_path):
    videos = sorted((runs / "data" / "videos").rglob("*.mp4"))
    labels = "".join(f"{path} {i % 2}\n" for i, path in enumerate(videos))
    (tmp_path / "labels.txt").write_text(labels)
    flags = ["--probe.data", str(tmp_path / "labels.txt"), "--train.loop.report-every", "2"]
    assert main(pretrain(runs / "data" / "videos", tmp_path / "run", *flags)) == 0
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    probed = [line for line in map(json.loads, lines) if "probe/linear" in line]
    assert [line["step"] for line in probed] == [0, 2, 3]


def test_from_nothing_to_a_leaderboard(runs, tmp_path, capsys):
    out = tmp_path / "plan"
    models = ["--model", *(str(runs / name) for name in ("vector", "tokens", "joint"))]
    command = ["plan", *models, *PLAN, "--out", str(out), "--kind", "both", "--report"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "far goals" in said
    assert "near goals" in said
    stored = [json.loads(path.read_text()) for path in (out / "results").glob("*.json")]
    rows = {(s["value"]["name"], s["value"]["kind"]) for s in stored}
    names = ("vector", "tokens", "joint", "simulator oracle", "untrained model", "no action")
    names += ("random actions", "coloured noise", "replay of the data", "retrieval from the data")
    assert rows == {(name, kind) for name in names for kind in ("far", "near")}
    assert {s["value"]["budget"] for s in stored} == {5}
    page = (out / "report.html").read_text()
    assert all(name in page for name in names)
    times = {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}
    assert main([*command, "--resume"]) == 0
    assert times == {path: path.stat().st_mtime_ns for path in (out / "results").glob("*.json")}


def test_compiled_planning_is_the_same_planning(runs, tmp_path, monkeypatch):
    compiled = partial(compile_rollouts, backend="aot_eager")  # traces, and generates no code
    calls = []
    monkeypatch.setattr(plan_verb, "compile_rollouts", lambda p: calls.append(p) or compiled(p))
    model = ["--model", str(runs / "joint"), "--no-oracle", "--no-floors", "--kind", "far"]
    found = []
    for name, flags in {"plain": [], "compiled": ["--compile"]}.items():
        out = tmp_path / name
        assert main(["plan", *model, *PLAN, "--out", str(out), *flags]) == 0
        (path,) = (out / "results").glob("*.json")
        found.append(json.loads(path.read_text())["value"])
    assert len(calls) == 1
    plain, quick = (next(iter(value["distance"].values())) for value in found)
    torch.testing.assert_close(torch.tensor(quick), torch.tensor(plain), rtol=0, atol=1e-3)


def test_pretrain_and_train_say_what_matters(runs, tmp_path, capsys):
    main(pretrain(runs / "data" / "videos", tmp_path / "encoder"))
    said = capsys.readouterr().out
    assert "6 videos usable, 0 of 6 bad" in said
    assert any(f"encoder: {word}" in said for word in ("healthy", "warning", "collapsed"))
    main(train("end_to_end", runs / "data", tmp_path / "joint"))
    said = capsys.readouterr().out
    assert "prediction error over that of copying" in said
    assert "error with shuffled actions" in said


def test_a_run_repeats_from_its_own_config(runs, tmp_path):
    config = str(runs / "encoder" / "config.toml")
    assert main(["pretrain", "--config", config, "--out", str(tmp_path / "again")]) == 0
    weights = [
        checkpoint.find_checkpoint(run) / "model.safetensors"
        for run in (runs / "encoder", tmp_path / "again")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_resume_goes_on_and_a_second_start_is_refused(runs, tmp_path, capsys):
    command = pretrain(runs / "data" / "videos", tmp_path / "run")
    assert main([*command, "--resume"]) == 0
    assert main([*command, "--resume"]) == 0
    capsys.readouterr()
    assert main(command) == 2
    assert "is not empty: name another, or go on with --resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--train.seed", "3"]) == 2
    assert "train.seed: was 0, now 3" in capsys.readouterr().err


# --- what users get wrong ----------------------------------------------------------------------


def refused(command, capsys, told, *, error=TubeletError, lines=1):
    """``command`` ends with code 2 and one message that contains ``told``; --debug raises."""
    capsys.readouterr()
    assert main(command) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.startswith(f"tubelet {command[0]}: ")
    assert "Traceback" not in said
    assert said.count("\n") == lines
    with pytest.raises(error):
        main([*command, "--debug"])


def test_unknown_config_keys(runs, tmp_path, capsys):
    text = (runs / "encoder" / "config.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("pixel_stats", "pixel_stat"))
    command = ["pretrain", "--config", str(tmp_path / "c.toml")]
    told = "unknown key 'pixel_stat'; did you mean 'pixel_stats'?"
    refused(command, capsys, told, error=ConfigError, lines=2)


def test_a_size_that_the_tubelet_does_not_divide(runs, tmp_path, capsys):
    text = (runs / "encoder" / "config.toml").read_text()
    (tmp_path / "c.toml").write_text(text.replace("\nsize = 32", "\nsize = 30"))
    command = ["pretrain", "--config", str(tmp_path / "c.toml")]
    told = "clip height = 30 is not a positive multiple of the tubelet's 8; the nearest valid"
    refused(command, capsys, told, error=ConfigError, lines=2)
    with pytest.raises(SystemExit) as exit:
        main(pretrain(runs / "data" / "videos", tmp_path / "x", "--clips.size", "30"))
    assert exit.value.code == 2
    said = capsys.readouterr().err
    assert "nearest valid height: 32" in said
    assert "Traceback" not in said


def test_presets_that_do_not_exist_and_two_sources(runs, capsys):
    refused(["pretrain", "--preset", "nanno"], capsys, "did you mean 'nano'?")
    refused(["train", "--preset=end_to_ent"], capsys, "did you mean 'end_to_end'?")
    refused(["pretrain", "--preset"], capsys, "--preset needs a name")
    config = str(runs / "encoder" / "config.toml")
    refused(["pretrain", "--preset", "nano", "--config", config], capsys, "give one of them")


def test_nothing_named(tmp_path, capsys):
    out = ["--out", str(tmp_path / "x")]
    refused(["pretrain", *out], capsys, "name a folder of videos")
    refused(["train", *out], capsys, "name the folder of a trajectory set")
    refused(["plan", *out], capsys, "name run folders")
    assert not (tmp_path / "x").exists()


def test_an_empty_folder_and_a_corpus_where_every_file_is_bad(tmp_path, capsys):
    videos, out = tmp_path / "videos", tmp_path / "run"
    refused(pretrain(videos, out), capsys, "no such folder or list file")
    videos.mkdir()
    refused(pretrain(videos, out), capsys, "no video files in this folder")
    for i in range(3):
        (videos / f"{i}.mp4").write_text("not a video")
    told = "3 of 3 videos are bad, none is usable"
    refused(pretrain(videos, out), capsys, told, lines=4)  # and the bad files, one a line


def test_a_checkpoint_of_another_architecture_or_kind(runs, tmp_path, capsys):
    copy = tmp_path / "encoder"
    shutil.copytree(runs / "encoder", copy)
    for path in copy.glob("checkpoints/step-*/config.toml"):
        path.write_text(path.read_text().replace("width = 48", "width = 96"))
    flags = ["--encoder", str(copy)]
    command = train("vjepa_vector", runs / "data", tmp_path / "x", *flags)
    refused(command, capsys, "does not fit this architecture")
    command = train("vjepa_vector", runs / "data", tmp_path / "x", "--encoder", str(runs / "joint"))
    refused(command, capsys, "holds a world model, not an encoder of videos")
    command = ["plan", "--model", str(runs / "encoder"), *PLAN, "--out", str(tmp_path / "x")]
    refused(command, capsys, "holds an encoder of videos or images, not a world model")
    assert not (tmp_path / "x").exists()


def test_a_run_folder_that_cannot_be_written(runs, tmp_path, capsys):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "run"
    told = "cannot write the run folder"
    refused(pretrain(runs / "data" / "videos", out), capsys, told)
    refused(train("end_to_end", runs / "data", out), capsys, told)
    refused(["plan", "--model", str(runs / "joint"), *PLAN, "--out", str(out)], capsys, told)


def test_a_full_disk_loses_nothing(runs, tmp_path, capsys, monkeypatch):
    whole = pretrain(runs / "data" / "videos", tmp_path / "whole")
    assert main(whole) == 0
    command = pretrain(runs / "data" / "videos", tmp_path / "run", "--resume")
    real, saved = checkpoint.save_file, []

    def full_after_the_first_checkpoint(tensors, path):
        saved.append(path)
        if len(saved) > 2:  # a checkpoint has two files
            raise OSError(28, "No space left on device", str(path))
        real(tensors, path)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "save_file", full_after_the_first_checkpoint)
        refused(command, capsys, "free some space")
    assert checkpoint.find_checkpoint(tmp_path / "run").name == "step-00000002"
    assert main(command) == 0
    weights = [
        checkpoint.find_checkpoint(tmp_path / run) / "model.safetensors" for run in ("run", "whole")
    ]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_disk_that_is_full_from_the_start(runs, tmp_path, capsys, monkeypatch):
    def full(fd):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    command = pretrain(runs / "data" / "videos", tmp_path / "run")
    refused(command, capsys, "cannot write the run folder")
    assert not [path for path in (tmp_path / "run").rglob("*") if path.is_file()]


def test_plans_that_make_no_sense(runs, tmp_path, capsys):
    out = ["--out", str(tmp_path / "x"), *PLAN]
    joint = str(runs / "joint")
    refused(["plan", "--model", joint, joint, *out], capsys, "of different names")
    told = "did you mean 'tubelet/Reacher-v0'?"
    command = ["plan", "--model", joint, "--env", "tubelet/Reachr-v0", *out]
    capsys.readouterr()
    assert main(command) == 2
    assert told.lower() in capsys.readouterr().err.lower()
    with pytest.raises(ConfigError, match="episodes = 0"):
        plan_verb.Config(episodes=0)


@pytest.fixture(autouse=True)
def threads():
    """Verbs may set torch's threads; leave them as they were."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)
