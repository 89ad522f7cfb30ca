"""Where does a world model that fails, fail: in what it imagines, or in how it sees?

    python -m tubelet.benchmarks.seen --run runs/joint --problems 40 --out runs/seen

Three rows on the same problems, by the same search with the same cost:

* the model: its latents of what it imagines;
* the simulator seen by the model: its latents of what really would happen, rendered and encoded;
* the simulator: true positions of what really would happen.

Where the second row does as badly as the first, better imagination would not help: distances
between latents, or the search, lead elsewhere. Where it does well, imagination is what fails.
Rendering every candidate is slow, so the search is smaller than that of a suite.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError
from ..core.latent import Latent
from ..core.run import RunDir
from ..datasets.video_writer import as_stored
from ..envs import make
from ..envs.base import GoalEnv
from ..envs.oracle import SimulatorDynamics
from ..planning import CEMConfig
from ..vjepa.device import MAY_DIFFER, prepare
from ..vjepa.train_recipe import load_world_model
from ..vjepa.world_model import WorldModel
from . import suite
from .origin import check_origin, trained_env
from .results import load_results
from .run_report import boards
from .tables import Leaderboard, print_leaderboard


class SeenSimulator:
    """``planning.LatentDynamics`` whose futures are simulated, rendered and encoded by a model.

    The context *is* the simulator's state (:class:`~tubelet.envs.oracle.SimulatorDynamics`); goals
    and trajectories are the model's latents ``[B, S, H, n, d]``.

    Args:
        env: drawn in the model's size, from the camera of its training.
        model: what sees. threads: that simulate.

    Raises:
        ConfigError: the model knows proprioception too, or is of other frames or actions.
    """

    def __init__(self, env: GoalEnv, model: WorldModel, *, threads: int = 2):
        c = model.config
        if c.proprio_dim:
            raise ConfigError(f"model.proprio_dim = {c.proprio_dim}: a model of pixels is needed")
        if (env.image_size, env.model.nu) != (c.image_size, c.action_dim):
            raise ConfigError(
                f"the environment has frames of {env.image_size} pixels and actions of width "
                f"{env.model.nu}, the model {c.image_size} and {c.action_dim}"
            )
        self._simulator = SimulatorDynamics(env, action_block=c.action_block, threads=threads)
        self.env, self.model, self.action_dim = env, model, self._simulator.action_dim

    def encode(self, obs: Mapping[str, Any]) -> Latent:
        """The last of the states float64 ``[B, T, S]`` in ``obs["state"]``."""
        if "factors" in obs:
            raise ConfigError("factors of variation: this simulator draws one look only")
        return self._simulator.encode(obs)

    def encode_goal(self, obs: Mapping[str, Any]) -> Latent:
        """The model's latent ``[B, n, d]`` of the goal images, as a video would store them."""
        return self.model.encode_goal({"pixels": as_stored(obs["pixels"])})

    def rollout(self, context: Latent, actions: Tensor) -> Latent:
        """What the model would see after each block of ``actions`` float32 ``[B, S, H, A]``."""
        states = context.tokens[:, -1, 0].cpu().numpy()
        way = self._simulator.simulate(context, actions)  # [B, S, steps, nq]
        start = self.env.position(states)[:, None, None]
        way = np.concatenate([np.broadcast_to(start, (*way.shape[:2], 1, way.shape[3])), way], 2)
        c = self.model.config
        ends = c.action_block * np.arange(1, actions.shape[2] + 1)
        looks = ends[:, None] + np.arange(1 - c.encoder.tubelet, 1) * c.frame_gap  # [H, k]
        looked = way[:, :, looks.clip(0)]  # [B, S, H, k, nq]
        latents = [self._see(*pair) for pair in zip(states, looked, strict=True)]
        return Latent(torch.stack(latents).to(actions.device))

    def _see(self, state: np.ndarray, positions: np.ndarray) -> Tensor:
        """Latents ``[S, H, n, d]`` of positions ``[S, H, k, nq]`` in the layout of a state."""
        self.env.remember(state)
        places = positions.reshape(-1, positions.shape[-1])
        frames = np.stack([self.env.render_state(self.env.state_at(place)) for place in places])
        pixels = as_stored(frames).reshape(-1, positions.shape[2], *frames.shape[1:])
        tokens = self.model.encode({"pixels": pixels}).tokens[:, 0]
        return tokens.unflatten(0, positions.shape[:2])


@dataclass(frozen=True, kw_only=True)
class Config:
    """Plan with a model, with its eyes on the simulator, and with the simulator."""

    run: str
    """Run folder of `tubelet train`."""
    out: str = "runs/seen"
    """Folder of results; the same command goes on where it stopped."""
    env: str = ""
    """Environment; empty for the one of the model's training."""
    problems: int = 40
    """Goals anywhere."""
    seed: int = 2
    """Of the problems."""
    search: CEMConfig = field(
        default_factory=lambda: replace(suite.CEM_CONFIG, samples=32, iterations=4, elites=6)
    )
    """The same for all rows."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps; auto takes an accelerator where there is one. MuJoCo stays here."""
    threads: int = 0
    """Torch threads; 0 leaves them alone."""

    def __post_init__(self) -> None:
        if self.problems < 1:
            raise ConfigError(f"problems = {self.problems}: at least 1")


def run(config: Config) -> list[Leaderboard]:
    """Play what is missing; the table, and results in the folder.

    Raises:
        ConfigError: the run is of another environment or not of pixels alone, or the folder holds
        rows of other settings.
    """
    env_id = config.env or trained_env(config.run)
    model = load_world_model(config.run, device=prepare(config.device, config.threads))
    check_origin(config.run, model, env_id)
    size = model.config.image_size
    env = make(env_id, image_size=size)
    with RunDir.create(config.out, config, resume=True, may_differ=MAY_DIFFER) as folder:
        problems = suite.episode_set(
            folder.path / "episodes.npz",
            env_id,
            "far",
            config.problems,
            seed=config.seed,
            budget=env.budget,
        )
        methods = methods_of(model, env_id, SeenSimulator(env, model), config.search)
        suite.run_goal_reaching(folder.path, methods, problems, image_size=size)
        return boards(load_results(folder.path), baseline=methods[0].name)


def methods_of(
    model: WorldModel, env_id: str, seen: SeenSimulator, search: CEMConfig
) -> list[suite.Method]:
    """The three rows."""
    block = model.config.action_block
    mpc = replace(suite.MPC_CONFIG, action_block=block)
    agent = suite.planning_agent(seen, search=search, mpc=mpc)
    true = suite.oracle_method(env_id, action_block=block, search=search)
    name = "the simulator, seen by the model"
    return [
        suite.model_method("the model", model, search=search),
        suite.Method(name=name, agent=agent, role="ceiling", privileged=True),
        replace(true, name="the simulator"),
    ]


if __name__ == "__main__":
    import tyro

    for board in run(tyro.cli(Config, description=__doc__)):
        print_leaderboard(board)
