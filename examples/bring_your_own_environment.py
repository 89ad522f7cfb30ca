"""An environment of your own: a scene, what counts as success, and it plans, collects and renders.

A Gymnasium environment needs less: ``tubelet.envs.wrap.wrap(gymnasium.make("HalfCheetah-v5"))``.
"""

import mujoco
import numpy as np

from tubelet.envs.base import GoalEnv
from tubelet.envs.oracle import SimulatorDynamics
from tubelet.planning import CEM, CEMConfig, LatentCost, MPCAgent, MPCConfig

SCENE = """<mujoco>
  <option timestep="0.01"/>
  <visual><quality shadowsize="0" offsamples="0"/></visual>
  <worldbody>
    <light directional="true" pos="0 0 3" castshadow="false"/>
    <camera name="top" pos="0 -2.5 0" xyaxes="1 0 0 0 0 1" fovy="50"/>
    <body name="arm">
      <joint name="hinge" axis="0 1 0" damping="0.5"/>
      <geom type="capsule" fromto="0 0 0 0 0 -0.8" size="0.06" mass="0.2" rgba="0.8 0.3 0.2 1"/>
    </body>
  </worldbody>
  <actuator><motor joint="hinge" gear="3" ctrlrange="-1 1"/></actuator>
</mujoco>"""
COST = LatentCost(steps="sum")
MODEL = mujoco.MjModel.from_xml_string(SCENE)


class Swing(GoalEnv):
    """A pendulum that must hold the angle of a goal image."""

    frame_skip, proprio_dim = 4, 2

    def load_scene(self):
        return MODEL

    def spec_of_scene(self):
        return mujoco.MjSpec.from_string(SCENE)

    def sample_state(self, rng):
        return self.state_at(rng.uniform(-1.2, 1.2, 1))

    def proprio(self, state):
        return np.concatenate([self.position(state), self.velocity(state)]).astype(np.float32)

    def distance(self, state, goal_state):
        return {"angle": float(np.abs(self.position(state) - self.position(goal_state))[0])}

    def reached(self, distance):
        return distance["angle"] < 0.15

    def features(self, state):
        return self.position(state).astype(np.float32)

    def plan_features(self, position):
        return 2.0 * position

    def scripted_policy(self, rng):
        return lambda t: np.sin(0.2 * t + rng.uniform(0, 0.5, 1))


def main() -> float:
    """Plan in the simulator to three goals; the mean distance at the end, in radians."""
    worlds = [Swing(render_obs=False) for _ in range(3)]
    for seed, world in enumerate(worlds):
        world.reset(seed=seed)
    oracle = SimulatorDynamics(worlds[0], action_block=5)
    planner = CEM(CEMConfig(horizon=5, samples=48, iterations=3, elites=8), 1, COST)
    agent = MPCAgent(oracle, planner, MPCConfig(action_block=5, hold=True))
    agent.reset({"state": np.stack([world.goal_state for world in worlds])})
    for _ in range(12):
        plans = agent.act({"state": np.stack([world.get_state()[None] for world in worlds])})
        for world, actions in zip(worlds, plans, strict=True):
            for action in actions:
                info = world.step(action)[4]
    ends = [world.distance(world.get_state(), world.goal_state)["angle"] for world in worlds]
    print(f"success at the last: {info['success']}; mean distance {np.mean(ends):.3f} rad")
    return float(np.mean(ends))


if __name__ == "__main__":
    main()
