"""The command line: lazy, helpful, and one clear line for each user error."""

import subprocess
import sys
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import pytest

from tubelet.cli.main import VERBS, main
from tubelet.core.config import save_config
from tubelet.core.errors import ConfigError, DatasetError


@dataclass(frozen=True, kw_only=True)
class Model:
    depth: int = 2
    """Transformer blocks."""

    def __post_init__(self):
        if self.depth < 1:
            raise ConfigError(f"depth = {self.depth} must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Config:
    """Train something."""

    steps: int = 10
    """Optimiser steps."""
    kind: Literal["nano", "small"] = "nano"
    out: Path = Path("runs")
    model: Model = field(default_factory=Model)


@pytest.fixture
def ran(monkeypatch):
    """A stand-in for the train verb: collects the configs it was run with, or raises ``.error``."""
    verb = types.ModuleType("tubelet.cli.train")
    calls = types.SimpleNamespace(configs=[], error=None, code=0)

    def run(config):
        calls.configs.append(config)
        if calls.error is not None:
            raise calls.error
        return calls.code

    vars(verb).update(Config=Config, run=run)
    monkeypatch.setitem(sys.modules, "tubelet.cli.train", verb)
    return calls


def test_flags_become_the_config(ran):
    ran.code = 3
    assert main(["train", "--steps", "4", "--model.depth", "7", "--kind", "small"]) == 3
    assert ran.configs == [Config(steps=4, kind="small", model=Model(depth=7))]


@pytest.mark.parametrize("form", [["--config", "{}"], ["--config={}"]])
def test_flags_win_over_the_file_which_wins_over_defaults(ran, tmp_path, form):
    save_config(Config(steps=50, model=Model(depth=5)), tmp_path / "c.toml")
    flags = [part.format(tmp_path / "c.toml") for part in form]
    assert main(["train", *flags, "--steps", "4"]) == 0
    assert ran.configs == [Config(steps=4, model=Model(depth=5))]


def test_a_bad_config_file_is_one_error_that_names_everything(ran, tmp_path, capsys):
    (tmp_path / "c.toml").write_text("stepz = 3\n[model]\ndepth = 'two'")
    assert main(["train", "--config", str(tmp_path / "c.toml")]) == 2
    error = capsys.readouterr().err
    assert "unknown key 'stepz'; did you mean 'steps'?" in error
    assert 'model.depth = "two": expected a whole number' in error
    assert main(["train", "--config"]) == 2
    assert main(["train", "--config", "absent.toml"]) == 2
    assert ran.configs == []


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--model.dept", "3"], "--model.depth"),
        (["--steps", "x"], "--steps"),
        (["--model.depth", "0"], "depth = 0 must be at least 1"),
        (["--kind", "nanno"], "nano"),
    ],
)
def test_bad_flags_exit_2_and_name_the_flag(ran, capsys, flags, told):
    with pytest.raises(SystemExit) as exit:
        main(["train", *flags])
    assert exit.value.code == 2
    out = capsys.readouterr()
    assert told in out.err
    assert "Traceback" not in out.err
    assert ran.configs == []


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (DatasetError("no videos in /x: name another"), 2, "no videos in /x: name another"),
        (OSError(28, "No space left on device", "/x/w.st"), 2, "No space left on device: /x/w.st"),
        (PermissionError(13, "Permission denied", "/x"), 2, "Permission denied: /x"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C"),
    ],
)
def test_user_errors_are_one_line_and_a_traceback_only_with_debug(ran, capsys, error, code, line):
    ran.error = error
    assert main(["train"]) == code
    assert capsys.readouterr().err == f"tubelet train: {line}\n"
    with pytest.raises(type(error)):
        main(["train", "--debug"])


def test_bugs_keep_their_traceback(ran):
    ran.error = ZeroDivisionError()
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_an_unknown_verb_is_answered_with_the_nearest(capsys):
    assert main(["pretrian"]) == 2
    assert "unknown verb 'pretrian'; did you mean 'pretrain'?" in capsys.readouterr().err


def test_help_lists_every_verb_and_verb_help_the_docstrings(ran, capsys):
    assert main([]) == 0
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(verb in text for verb in VERBS)
    with pytest.raises(SystemExit) as exit:
        main(["train", "--help"])
    assert exit.value.code == 0
    text = capsys.readouterr().out
    assert "Optimiser steps." in text
    assert "--config" in text


@pytest.mark.parametrize("flag", ["--help", "--version"])
def test_help_imports_nothing_heavy(flag):
    code = (
        "import sys; from tubelet.cli.main import main; assert main(sys.argv[1:]) == 0\n"
        "heavy = {'torch', 'numpy', 'mujoco', 'av', 'rich', 'tyro'} & sys.modules.keys()\n"
        "assert not heavy, heavy"
    )
    result = subprocess.run([sys.executable, "-c", code, flag], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself(verb, capsys):
    with pytest.raises(SystemExit) as exit:
        main([verb, "--help"])
    assert exit.value.code == 0
    assert f"usage: tubelet {verb}" in capsys.readouterr().out
