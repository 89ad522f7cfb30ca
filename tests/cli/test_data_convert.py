"""``tubelet data convert``: logs of known content, found out, converted and refused."""

import h5py
import numpy as np
import pytest

from tubelet.cli.main import main
from tubelet.datasets.trajectories import TrajectorySet


@pytest.fixture
def log(tmp_path):
    """A Minari file of two episodes of 5 and 7 frames; frame t has value 20 t."""
    path = tmp_path / "main_data.hdf5"
    with h5py.File(path, "w") as file:
        for number, count in enumerate((5, 7)):
            episode = file.create_group(f"episode_{number}")
            grey = 20 * np.arange(count, dtype=np.uint8)[:, None, None, None]
            episode["observations/camera"] = np.broadcast_to(grey, (count, 20, 24, 3))
            episode["observations/joints"] = np.arange(4.0 * count).reshape(count, 4)
            episode["observations/grip"] = np.ones((count, 1))
            episode["actions"] = np.full((count - 1, 3), float(number + 1))
    return path


def convert(log, out, *options):
    return main(["data", "convert", str(log), str(out), *options])


def test_the_format_is_found_out_and_the_set_holds_what_the_log_held(log, tmp_path, capsys):
    command = ["--fps", "10", "--size", "16", "--proprio", "joints"]
    assert convert(log, tmp_path / "set", *command) == 0
    said = capsys.readouterr().out
    assert "minari: 2 episodes at 10 frames/s" in said
    assert "width 4, actions have width 3" in said
    found = TrajectorySet.open(tmp_path / "set")
    assert (found.num_episodes, found.fps) == (2, 10)
    arrays = found.arrays()
    assert arrays["action"][:, 0].tolist() == [1] * 4 + [0] + [2] * 6 + [0]
    assert np.array_equal(arrays["proprio"][5:], np.arange(28.0).reshape(7, 4))
    assert convert(log, tmp_path / "set", *command) == 0  # goes on where nothing is left


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "do not say their rate: give fps"),
        (("--fps", "10", "--camera", "wrist"), "wrist"),
        (("--fps", "10", "--proprio", "knees"), "knees"),
        (("--kind", "robomimic"), "not a robomimic file"),
        (("--kind", "d4rl", "--fps", "10"), "observations"),
    ],
)
def test_what_cannot_be_converted_says_why_and_writes_nothing(log, tmp_path, capsys, options, says):
    assert convert(log, tmp_path / "set", *options) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_impossible_values_are_refused_when_the_command_is_read(log, tmp_path, capsys):
    for options, says in ((("--size", "15"), "size = 15"), (("--fps", "-1"), "fps = -1")):
        with pytest.raises(SystemExit) as ended:
            convert(log, tmp_path / "set", *options)
        assert ended.value.code == 2
        assert says in capsys.readouterr().err


def test_other_folders_and_options_are_refused(tmp_path, capsys):
    assert convert(tmp_path / "gone", tmp_path / "set") == 2
    assert "does not exist" in capsys.readouterr().err
    (tmp_path / "lerobot" / "meta").mkdir(parents=True)
    (tmp_path / "lerobot" / "meta" / "info.json").write_text("{}")
    assert convert(tmp_path / "lerobot", tmp_path / "set") == 2
    assert "needs no conversion" in capsys.readouterr().err
    (tmp_path / "droid" / "a").mkdir(parents=True)
    (tmp_path / "droid" / "a" / "trajectory.h5").touch()
    assert convert(tmp_path / "droid", tmp_path / "set", "--proprio", "joints") == 2
    assert "proprio: no option of droid logs" in capsys.readouterr().err
