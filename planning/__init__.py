"""Planning in latent space: the dynamics protocol, costs, planners and the receding-horizon agent.

Knows no model and no environment: anything with ``encode``, ``encode_goal`` and ``rollout``
(:class:`LatentDynamics`) can be planned with.
"""

from .amortised import Amortised, AmortisedConfig
from .categorical import CategoricalCEM, CategoricalConfig
from .cem import CEM, CEMConfig
from .costs import LatentCost
from .gradient import PGD, Adam, AdamConfig, PGDConfig
from .hierarchical import Hierarchical, HierarchicalConfig
from .hybrid import Hybrid, HybridConfig
from .icem import ICEM, ICEMConfig
from .levels import MacroDynamics, levels_of
from .mpc import MPCAgent, MPCConfig, PlanRecord, profile
from .mppi import MPPI, MPPIConfig
from .planners import ALL_PLANNERS, PLANNERS, make_planner
from .proposals import Proposer
from .protocol import Cost, Generators, HeldActions, LatentDynamics, Observation, Plan, Planner
from .search import SearchConfig
from .shooting import RandomShooting, ShootingConfig
from .support import ActionSupport, NeighbourSupport, Support, action_range
from .vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner

__all__ = [
    "ALL_PLANNERS",
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
    "Hierarchical",
    "HierarchicalConfig",
    "Hybrid",
    "HybridConfig",
    "ICEMConfig",
    "LatentCost",
    "LatentDynamics",
    "MPCAgent",
    "MPCConfig",
    "MPPIConfig",
    "MacroDynamics",
    "NeighbourSupport",
    "Observation",
    "PGDConfig",
    "Plan",
    "PlanRecord",
    "Planner",
    "Proposer",
    "RandomShooting",
    "SearchConfig",
    "ShootingConfig",
    "Support",
    "VJEPA2ACConfig",
    "VJEPA2ACPlanner",
    "action_range",
    "levels_of",
    "make_planner",
    "profile",
]
