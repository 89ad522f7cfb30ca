"""The doctor finds what works, and a fault in something needed makes it fail."""

import pytest

from tubelet.cli import doctor
from tubelet.core.errors import RenderError


def test_finds_what_works(tmp_path):
    found = {f.name: f for f in doctor.examine(doctor.Config(path=tmp_path))}
    assert {"python", "torch", "devices", "rendering", "video: pyav", "memory", "disk"} < set(found)
    for name in ("python", "torch", "devices", "video: pyav"):
        assert found[name].ok, found[name]
    assert "decoded 8 frames" in found["video: pyav"].detail
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (RenderError("no EGL: apt-get install libegl1"), "apt-get install libegl1"),
        (OSError("libEGL.so.1 is broken"), "pip install --force-reinstall mujoco"),
    ],
)
def test_a_fault_comes_with_a_fix_and_exit_code_1(monkeypatch, capsys, tmp_path, error, told):
    def broken():
        raise error

    monkeypatch.setattr(doctor, "_rendering", broken)
    monkeypatch.setenv("COLUMNS", "300")
    assert doctor.run(doctor.Config(path=tmp_path)) == 1
    out = capsys.readouterr().out
    assert "FAULT" in out
    assert told in out


def test_a_missing_folder_is_a_fault_and_is_not_made(tmp_path):
    found = {f.name: f for f in doctor.examine(doctor.Config(path=tmp_path / "absent"))}
    assert not found["disk"].ok
    assert not (tmp_path / "absent").exists()


def test_something_optional_may_be_absent(monkeypatch, tmp_path, capsys):
    def examine(_):
        return [doctor.Finding(name="video: decord", ok=False, detail="[gone]", needed=False)]

    monkeypatch.setattr(doctor, "examine", examine)
    assert doctor.run(doctor.Config(path=tmp_path)) == 0
    assert "[gone]" in capsys.readouterr().out
