"""With which search the true simulator is planned in, environment by environment.

An oracle may use what no model has: the simulator's state, a cost shaped for the task
(``GoalEnv.shaped_cost``), and the certainty that resting from here on ends at the goal, with which
it stops searching and rests. All settings were chosen on problems of seed 1.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from ..envs import make
from ..envs.base import GoalEnv, State
from ..envs.oracle import ShapedCost, SimulatorDynamics
from ..planning import CEMConfig, MPCAgent, MPCConfig, SearchConfig, make_planner
from .env_checks import Policy
from .suite import COST


@dataclass(frozen=True, kw_only=True)
class OracleSearch:
    """How the simulator is planned in.

    Attributes:
        planner: settings of any planner that needs no gradient. block: environment steps for which
            a planned action is held. execute: blocks carried out per plan; the dynamics being true,
            more of them only save time. shaped: the environment's ``shaped_cost`` instead of
            distances in its ``plan_features``. seconds: processor time of a problem, as measured on
            one of two shared cores.
    """

    planner: SearchConfig
    block: int = 5
    execute: int = 1
    shaped: bool = False
    seconds: float = 1.0


# Few samples do where the way is simple; the mean of few errs by centimetres, so the best is taken.
LIGHT = CEMConfig(
    horizon=8, samples=32, iterations=3, elites=6, init_std=1.0, noise_beta=1.0, returns="best"
)
ARM = replace(LIGHT, horizon=5, iterations=5, elites=5)
CONTACT = replace(LIGHT, samples=128, iterations=4, elites=8)
GRASP = replace(LIGHT, horizon=5, samples=64, iterations=4, elites=8)

SEARCHES = {
    "tubelet/Reacher-v0": OracleSearch(planner=LIGHT, seconds=0.2),
    "tubelet/PointMaze-v0": OracleSearch(planner=LIGHT, seconds=0.3),
    "tubelet/ArmReach-v0": OracleSearch(planner=ARM, seconds=0.5),
    "tubelet/PointMazeMedium-v0": OracleSearch(planner=LIGHT, seconds=0.5),
    "tubelet/PointMazeRandom-v0": OracleSearch(planner=LIGHT, seconds=0.7),
    "tubelet/TwoRooms-v0": OracleSearch(planner=LIGHT, seconds=0.7),
    "tubelet/TwoRoomsRandom-v0": OracleSearch(planner=LIGHT, seconds=0.8),
    "tubelet/ArmReachWall-v0": OracleSearch(planner=ARM, seconds=0.8),
    "tubelet/ArmPush-v0": OracleSearch(planner=ARM, execute=2, seconds=1.2),
    "tubelet/PushT-v0": OracleSearch(planner=CONTACT, block=2, execute=2, shaped=True, seconds=2.6),
    "tubelet/ArmPickPlace-v0": OracleSearch(planner=GRASP, execute=2, shaped=True, seconds=3.2),
}
"""For every environment, the cheap ones first."""


class Oracle:
    """Controllers that plan in a simulator of their own.

    Args:
        env_id: which simulator. search: how it is planned in. seed: of the search noise.
    """

    def __init__(self, env_id: str, search: OracleSearch, *, seed: int = 0):
        self._beside = make(env_id, render_obs=False)
        dynamics = SimulatorDynamics(
            self._beside, action_block=search.block, threads=1, positions=search.shaped
        )
        cost = ShapedCost(self._beside) if search.shaped else COST
        width = dynamics.action_dim // search.block
        mpc = MPCConfig(execute=search.execute, action_block=search.block, hold=True, seed=seed)
        self._agent = MPCAgent(dynamics, make_planner(search.planner, width, cost), mpc)
        self._rest = np.zeros(width, np.float32)

    def controller(self, env: GoalEnv, *, number: int, budget: int) -> Policy:
        """Brings the episode of ``env`` to its goal within ``budget`` steps: ``act(t) -> action``.

        ``number`` names the problem, and with it the search noise.
        """
        self._agent.reset({"state": env.goal_state[None]}, problems=[number])
        planned: deque[np.ndarray] = deque()
        resting = False

        def act(t: int) -> np.ndarray:
            nonlocal resting
            state = env.get_state()
            resting = resting or self.rests_at(state, env.goal_state, budget - t)
            if resting:
                return self._rest
            if not planned:
                planned.extend(self._agent.act({"state": state[None, None]})[0])
            return planned.popleft()

        return act

    def rests_at(self, state: State, goal: State, steps: int) -> bool:
        """Whether ``state`` is at the goal, and still is after ``steps`` without action."""
        world = self._beside
        if not world.success(state, goal):
            return False
        world.set_state(state)
        for _ in range(steps):
            world.step(self._rest)
        return world.success(world.get_state(), goal)
