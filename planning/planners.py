"""Every planner by name, and the one that a config belongs to."""

from __future__ import annotations

from ..core.errors import PlanningError
from .amortised import Amortised, AmortisedConfig
from .categorical import CategoricalCEM, CategoricalConfig
from .cem import CEM, CEMConfig
from .gradient import PGD, Adam, AdamConfig, PGDConfig
from .hierarchical import Hierarchical, HierarchicalConfig
from .hybrid import Hybrid, HybridConfig
from .icem import ICEM, ICEMConfig
from .mppi import MPPI, MPPIConfig
from .protocol import Cost, Planner
from .search import Search, SearchConfig
from .shooting import RandomShooting, ShootingConfig
from .support import ActionSupport
from .vjepa2_ac import VJEPA2ACConfig, VJEPA2ACPlanner

PLANNERS: dict[str, tuple[type[SearchConfig], type[Search]]] = {
    "shooting": (ShootingConfig, RandomShooting),
    "cem": (CEMConfig, CEM),
    "icem": (ICEMConfig, ICEM),
    "mppi": (MPPIConfig, MPPI),
    "pgd": (PGDConfig, PGD),
    "adam": (AdamConfig, Adam),
    "hybrid": (HybridConfig, Hybrid),
    "categorical": (CategoricalConfig, CategoricalCEM),
    "amortised": (AmortisedConfig, Amortised),
}
"""Name: (config, planner), for actions of any width."""

ALL_PLANNERS: dict[str, tuple[type[SearchConfig], type[Search]]] = PLANNERS | {
    "hierarchical": (HierarchicalConfig, Hierarchical)
}
"""With those for dynamics with levels."""


def make_planner(
    config: SearchConfig | VJEPA2ACConfig,
    action_dim: int,
    cost: Cost | None = None,
    support: ActionSupport | None = None,
) -> Planner:
    """The planner that ``config`` is the config of.

    Args:
        action_dim: A, action width per model step. cost: what to minimise; the planner's own
            default if None. support: of the training actions, where plans must stay.

    Raises:
        PlanningError: bounds, support or action width do not fit; a config of no planner.
    """
    if isinstance(config, VJEPA2ACConfig):
        if action_dim != VJEPA2ACPlanner.action_dim or support is not None:
            raise PlanningError(
                f"the planner of V-JEPA 2-AC is for actions of width 7 (not {action_dim}) and has "
                "bounds of its own (no support)"
            )
        return VJEPA2ACPlanner(config, cost)
    for kind, planner in ALL_PLANNERS.values():
        if type(config) is kind:
            return planner(config, action_dim, cost, support)
    raise PlanningError(
        f"{type(config).__name__} is the config of no planner; known: {', '.join(ALL_PLANNERS)}"
    )
