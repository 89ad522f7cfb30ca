"""Planning in latent space: the dynamics protocol, costs, planners and the receding-horizon agent.

Knows no model and no environment: anything with ``encode``, ``encode_goal`` and ``rollout``
(:class:`LatentDynamics`) can be planned with.
"""

from .amortised import Amortised, AmortisedConfig
from .categorical import CategoricalCEM, CategoricalConfig
from .cem import CEM, CEMConfig
from .costs import LatentCost
from .gradient import PGD, Adam, AdamConfig, PGDConfig
from .hybrid import Hybrid, HybridConfig
from .icem import ICEM, ICEMConfig
from .mpc import MPCAgent, MPCConfig, PlanRecord, profile
from .mppi import MPPI, MPPIConfig
from .planners import PLANNERS, make_planner
from .proposals import Proposer
from .protocol import Cost, Generators, HeldActions, LatentDynamics, Observation, Plan, Planner
from .search import SearchConfig
from .shooting import RandomShooting, ShootingConfig
from .support import ActionSupport, action_range
from .vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner

__all__ = [
    "CEM",
    "ICEM",
    "MPPI",
    "PGD",
    "PLANNERS",
    "ActionSupport",
    "Adam",
    "AdamConfig",
    "Amortised",
    "AmortisedConfig",
    "CEMConfig",
    "CategoricalCEM",
    "CategoricalConfig",
    "Cost",
    "Generators",
    "HeldActions",
    "Hybrid",
    "HybridConfig",
    "ICEMConfig",
    "LatentCost",
    "LatentDynamics",
    "MPCAgent",
    "MPCConfig",
    "MPPIConfig",
    "Observation",
    "PGDConfig",
    "Plan",
    "PlanRecord",
    "Planner",
    "Proposer",
    "RandomShooting",
    "SearchConfig",
    "ShootingConfig",
    "VJEPA2ACConfig",
    "VJEPA2ACPlanner",
    "action_range",
    "make_planner",
    "profile",
]
