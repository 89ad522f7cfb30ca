"""Planning in latent space: the dynamics protocol, costs, CEM and the receding-horizon agent.

Knows no model and no environment: anything with ``encode``, ``encode_goal`` and ``rollout``
(:class:`LatentDynamics`) can be planned with.
"""

from .cem import CEM, CEMConfig
from .costs import LatentCost
from .mpc import MPCAgent, MPCConfig, PlanRecord
from .protocol import Cost, Generators, HeldActions, LatentDynamics, Observation, Plan, Planner
from .vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner

__all__ = [
    "CEM",
    "CEMConfig",
    "Cost",
    "Generators",
    "HeldActions",
    "LatentCost",
    "LatentDynamics",
    "MPCAgent",
    "MPCConfig",
    "Observation",
    "Plan",
    "PlanRecord",
    "Planner",
    "VJEPA2ACConfig",
    "VJEPA2ACPlanner",
]
