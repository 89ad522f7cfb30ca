"""The simulator seen by a model: what it sees is what collecting would have shown the model."""

import numpy as np
import pytest
import torch

from tubelet import envs
from tubelet.benchmarks.seen import Config, SeenSimulator, run
from tubelet.cli.main import main
from tubelet.core.errors import ConfigError
from tubelet.datasets.video_writer import as_stored
from tubelet.planning.protocol import LatentDynamics
from tubelet.vjepa.encoder import EncoderConfig
from tubelet.vjepa.world_model import WorldModel, WorldModelConfig


def model_of(env, **changes):
    torch.manual_seed(0)
    encoder = EncoderConfig(width=16, depth=1, heads=2, patch=16, tubelet=2)
    config = WorldModelConfig(
        encoder=encoder, image_size=32, action_dim=env.model.nu, latent_dim=8, **changes
    )
    return WorldModel(config).requires_grad_(False).eval()


@pytest.mark.parametrize("env_id", ["tubelet/Reacher-v0", "tubelet/PointMazeRandom-v0"])
def test_what_is_seen_is_what_the_environment_shows(env_id):
    """A random maze has walls of its own in every state."""
    env, world = (envs.make(env_id, image_size=32) for _ in range(2))
    model = model_of(env, action_block=3, frame_gap=2)
    seen = SeenSimulator(env, model)
    assert isinstance(seen, LatentDynamics)
    rng = np.random.default_rng(0)
    starts = np.stack([env.sample_state(rng) for _ in range(2)])
    actions = torch.rand(2, 2, 2, seen.action_dim, generator=torch.manual_seed(0)) * 2 - 1
    found = seen.rollout(seen.encode({"state": starts[:, None]}), actions).tokens
    assert found.shape == (2, 2, 2, 1, 8)
    for problem in range(2):
        for candidate in range(2):
            world.set_state(starts[problem])
            frames = [world.render()]
            for action in actions[problem, candidate].reshape(6, -1).numpy():
                frames.append(world.step(action)[0]["pixels"])
            for step, end in enumerate((3, 6)):
                pair = as_stored(np.stack([frames[end - 2], frames[end]]))
                expected = model.encode({"pixels": pair[None]}).tokens[0, 0]
                torch.testing.assert_close(
                    found[problem, candidate, step], expected, atol=1e-4, rtol=1e-3
                )


def test_frames_before_the_start_are_the_start(monkeypatch):
    env = envs.make("tubelet/Reacher-v0", image_size=32)
    model = model_of(env, action_block=1, frame_gap=3)
    seen = SeenSimulator(env, model)
    state = env.sample_state(np.random.default_rng(1))
    shown = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda obs: shown.append(obs["pixels"]) or encode(obs))
    seen.rollout(seen.encode({"state": state[None, None]}), torch.ones(1, 1, 4, seen.action_dim))
    (pixels,) = shown  # [S * H, k, H, W, 3]
    start = as_stored(env.render_state(state)[None])[0]
    for step in range(3):
        assert np.array_equal(pixels[step, 0], start)
    assert np.array_equal(pixels[3, 0], pixels[0, 1])


def test_models_that_do_not_fit_are_refused():
    env = envs.make("tubelet/Reacher-v0", image_size=64)
    with pytest.raises(ConfigError, match=r"frames of 64 pixels.*the model 32"):
        SeenSimulator(env, model_of(env))
    with pytest.raises(ConfigError, match="proprio_dim = 4"):
        SeenSimulator(env, model_of(env, proprio_dim=4))
    with pytest.raises(ConfigError, match="problems = 0"):
        Config(run="x", problems=0)


@pytest.mark.slow
def test_three_rows_from_a_trained_model(tmp_path):
    data, trained = str(tmp_path / "data"), str(tmp_path / "run")
    quick = ["--episodes", "4", "--steps", "16", "--image-size", "32", "--workers", "1"]
    assert main(["collect", "--env", "tubelet/Reacher-v0", "--out", data, *quick]) == 0
    small = ["--train.model.image-size", "32", "--train.horizon", "2", "--train.batch-size", "4"]
    small += ["--train.loop.steps", "2", "--device", "cpu", "--threads", "1"]
    where = ["--data", data, "--out", trained]
    assert main(["train", "--preset", "end_to_end", *where, *small]) == 0
    config = Config(run=trained, out=str(tmp_path / "seen"), problems=2, device="cpu", threads=1)
    (board,) = run(config)
    names = {row.name: row for row in board.rows}
    assert set(names) == {"the model", "the simulator, seen by the model", "the simulator"}
    assert names["the simulator"].at_end.value == 1.0
    assert run(config) == [board]
