"""Simulated bodies obey physics, stay what they are, and are read as public skeletons are."""

from dataclasses import replace

import numpy as np
import pytest

from tubelet.cli.data import Config, Make, run
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.core.run import read_metrics
from tubelet.datasets.skeletons import read_skeletons
from tubelet.datasets.stick_figures import BONES, JOINTS, USUAL_LENGTHS
from tubelet.envs.synthetic.bodies import (
    SCENES,
    BodiesConfig,
    Scene,
    make_bodies,
    simulate,
    simulate_bodies,
    simulate_body,
)
from tubelet.vjepa.modalities.recipe import pretrain_tokens, run_preset

PLAIN = BodiesConfig(count=18, heading=0.0, noise=0.0)
AT = {name: number for number, name in enumerate(JOINTS)}
RIGHT, AHEAD, UP = range(3)


def made(name: str, repetition: int = 0) -> np.ndarray:
    """Joints ``[T, 16, 3]`` of a sequence of this class, neither turned nor noisy."""
    number = list(SCENES).index(name) + repetition * len(SCENES)
    found, x = simulate_body(PLAIN, number)
    assert found == name
    return x


def test_a_limp_body_in_the_air_falls_as_everything_does():
    speed = (0.3, 1.0, 2.0)
    x = simulate(Scene(pose={}, height=0.5, velocity=speed), np.array(USUAL_LENGTHS), 8, 20.0)
    time = np.arange(8) / 20
    expected = np.outer(time, speed)
    expected[:, UP] -= 9.81 / 2 * time**2
    np.testing.assert_allclose(x - x[:1], expected[:, None].repeat(16, 1), atol=0.01)


@pytest.mark.parametrize("name", SCENES)
def test_bones_keep_their_lengths_and_nothing_sinks_into_the_ground(name: str):
    for x in (made(name), made(name, 1)):
        bones = np.stack([np.linalg.norm(x[:, a] - x[:, b], axis=-1) for a, b in BONES], axis=1)
        np.testing.assert_allclose(bones, bones[:1].repeat(len(x), 0), atol=1e-4)
        assert np.isfinite(x).all()
        assert x[..., UP].min() > 0


def test_builds_belong_to_performers():
    first, again = made("collapse"), made("hang")
    other = made("collapse", 1)
    lengths = [np.linalg.norm(x[0, 0] - x[0, 1]) for x in (first, again, other)]
    assert lengths[0] == pytest.approx(lengths[1], abs=1e-5)
    assert lengths[0] != pytest.approx(lengths[2], abs=1e-3)


def test_those_that_fall_lie_at_the_end_where_they_fell():
    for name in ("fall ahead", "fall back", "fall aside", "collapse", "thrown"):
        x = made(name)
        assert x[0, AT["head"], UP] > 1.4
        assert x[-1, [AT["head"], AT["pelvis"]], UP].max() < 0.4
    trunk = {name: made(name)[-1, AT["head"]] - made(name)[-1, 0] for name in SCENES}
    assert trunk["fall ahead"][AHEAD] > 0.4
    assert trunk["fall back"][AHEAD] < -0.4
    assert abs(trunk["fall aside"][RIGHT]) > 0.4


def test_what_is_held_stays_and_the_rest_moves():
    hang, hand, march = made("hang"), made("hang by a hand"), made("march")
    for side in ("left wrist", "right wrist"):
        assert np.ptp(hang[:, AT[side]], axis=0).max() < 0.03
    moved = sorted(np.ptp(hand[:, AT[f"{s} wrist"]], axis=0).max() for s in ("left", "right"))
    assert moved[0] < 0.03 < 0.1 < moved[1]
    assert np.ptp(march[:, AT["pelvis"]], axis=0).max() < 0.03
    assert np.ptp(march[:, AT["left knee"], UP]) > 0.1
    assert np.ptp(made("flap")[:, AT["right wrist"], UP]) > 0.3


def test_files_read_as_public_skeletons_do_and_hold_builds_out(tmp_path):
    config = BodiesConfig(count=27, frames=8)
    make_bodies(tmp_path / "b", config, processes=1, progress=False)
    train = read_skeletons(tmp_path / "b", split="xsub-train", frames=8)
    every = read_skeletons(tmp_path / "b", frames=8)
    memory = simulate_bodies(config)
    order = np.lexsort((every.labels, every.groups["performer"]))
    assert np.array_equal(every.labels[order], memory.labels)
    np.testing.assert_allclose(every.samples[order], memory.samples, atol=2e-4)
    held = read_skeletons(tmp_path / "b", split="xsub-test", frames=8)
    assert set(train.groups["performer"]) == {1, 2}
    assert set(held.groups["performer"]) == {3}
    x = simulate_body(config, 13)[1]
    row = train.names.index("S001C001P002R001A005")
    assert train.labels[row] == 4
    np.testing.assert_allclose(train.samples[row], x - x[:1, :1], atol=2e-4)


def test_a_folder_is_finished_by_any_number_of_processes_and_belongs_to_its_settings(tmp_path):
    config = BodiesConfig(count=6, frames=3)
    paths = make_bodies(tmp_path / "b", config, processes=1, progress=False)
    before = [path.read_bytes() for path in paths]
    paths[2].unlink()
    make_bodies(tmp_path / "b", replace(config, count=8), processes=2, progress=False)
    assert [path.read_bytes() for path in paths] == before
    assert len(list((tmp_path / "b").glob("*.skeleton"))) == 8
    with pytest.raises(DatasetError, match="fps is"):
        make_bodies(tmp_path / "b", replace(config, fps=6.0), progress=False)


def test_an_encoder_trains_on_them_by_command(tmp_path, capsys):
    folder = tmp_path / "bodies"
    assert run_make(folder) == 0
    assert "20 sequences" in capsys.readouterr().out
    config = run_preset("sjepa-debug")
    pretrain_tokens(replace(config, data=str(folder), out=str(tmp_path / "run"), device="cpu"))
    losses = [line["train/loss"] for line in read_metrics(tmp_path / "run") if "train/loss" in line]
    assert len(losses) == config.train.loop.steps
    assert np.isfinite(losses).all()


def run_make(folder, **changes) -> int:
    return run(Config(do=Make(kind="bodies", out=folder, count=20, frames=16, **changes)))


def test_what_bodies_cannot_be_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="not drawn"):
        run_make(tmp_path / "b", size=128)
    with pytest.raises(ConfigError, match=r"count = 0.*fps = 0"):
        BodiesConfig(count=0, fps=0)
    with pytest.raises(ConfigError, match="low <= high"):
        BodiesConfig(bones=(1.2, 0.9))
