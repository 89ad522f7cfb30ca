"""The body of :mod:`.bodies` as MJCF: capsules and hinges between the joints of a stick figure."""

from __future__ import annotations

import numpy as np

SIDES = (("left", -1.0), ("right", 1.0))
HINGES = (
    *("lean", "bend", "chest lean", "chest bend", "nod", "tilt"),
    *(
        f"{side} {joint}"
        for side, _ in SIDES
        for joint in ("arm", "spread", "elbow", "hip", "straddle", "knee")
    ),
)
"""Names. Positive angles bend trunk, arms, elbows and thighs ahead, knees back, limbs outwards, and
the trunk to the right."""

_HEAD = """
<mujoco>
  <compiler angle="radian"/>
  <option timestep="0.004" integrator="implicitfast"/>
  <default>
    <geom type="capsule" size="0.05" density="900" contype="0" conaffinity="1" friction="0.8"/>
    <joint damping="1" armature="0.01" limited="true"/>
  </default>
  <worldbody>
    <geom type="plane" size="20 20 1" contype="1"/>
"""


def body_xml(lengths: np.ndarray) -> str:
    """MJCF of a body, upright with its pelvis at the origin.

    Its bodies touch the ground and not each other. Sites bear the names of the stick figures'
    joints; ``hold NAME`` are inactive constraints that keep the pelvis or a wrist at the site of
    that name in the world.

    Args:
        lengths: metres ``[15]``, of each of :data:`~tubelet.datasets.stick_figures.BONES`.
    """
    lower, upper, head = lengths[:3]
    arms = "".join(_arm(side, sign, lengths[3 + 3 * k :], upper) for k, (side, sign) in _sides())
    legs = "".join(_leg(side, sign, lengths[9 + 3 * k :]) for k, (side, sign) in _sides())
    held = ("pelvis", *(f"{side} wrist" for side, _ in SIDES))
    # Not at the world's origin: MuJoCo would take such a site to stay there.
    sites = "".join(f'<site name="hold {part}" pos="0 0 3" quat="0 1 0 0"/>' for part in held)
    kinds = ("weld", "connect", "connect")
    constraints = "".join(
        f'<{kind} name="hold {part}" site1="{part}" site2="hold {part}" active="false"/>'
        for kind, part in zip(kinds, held, strict=True)
    )
    return f"""{_HEAD}{sites}
    <body name="pelvis"><freejoint/><site name="pelvis"/>
      <geom fromto="{-lengths[9]} 0 0 {lengths[12]} 0 0" size="0.08"/>{legs}
      <body>{_hinge("lean", "-1 0 0", -0.5, 1.4)}{_hinge("bend", "0 1 0", -0.5, 0.5)}
        {_bone(lower, 0.09, up=True)}
        <body pos="0 0 {lower}"><site name="chest"/>
          {_hinge("chest lean", "-1 0 0", -0.3, 0.8)}{_hinge("chest bend", "0 1 0", -0.3, 0.3)}
          {_bone(upper, 0.1, up=True)}{arms}
          <body pos="0 0 {upper}"><site name="neck"/>
            {_hinge("nod", "-1 0 0", -0.6, 0.8)}{_hinge("tilt", "0 1 0", -0.5, 0.5)}
            {_bone(head, 0.07, up=True)}<site name="head" pos="0 0 {head}"/>
          </body>
        </body>
      </body>
    </body>
  </worldbody>
  <equality>{constraints}</equality>
</mujoco>"""


def _sides() -> enumerate[tuple[str, float]]:
    return enumerate(SIDES)


def _hinge(name: str, axis: str, low: float, high: float) -> str:
    return f'<joint name="{name}" axis="{axis}" range="{low} {high}"/>'


def _bone(length: float, radius: float, *, up: bool = False) -> str:
    return f'<geom fromto="0 0 0 0 0 {length if up else -length}" size="{radius}"/>'


def _arm(side: str, sign: float, lengths: np.ndarray, height: float) -> str:
    hinges = (
        _hinge(f"{side} arm", "1 0 0", -1.0, 3.2),
        _hinge(f"{side} spread", f"0 {-sign} 0", -0.4, 2.8),
        _hinge(f"{side} elbow", "1 0 0", 0.0, 2.5),
    )
    joints = tuple(f"{side} {name}" for name in ("shoulder", "elbow", "wrist"))
    return _limb(joints, hinges, (sign * lengths[0], height), lengths[1:3], (0.045, 0.04))


def _leg(side: str, sign: float, lengths: np.ndarray) -> str:
    hinges = (
        _hinge(f"{side} hip", "1 0 0", -0.6, 2.2),
        _hinge(f"{side} straddle", f"0 {-sign} 0", -0.3, 1.0),
        _hinge(f"{side} knee", "-1 0 0", 0.0, 2.5),
    )
    joints = tuple(f"{side} {name}" for name in ("hip", "knee", "ankle"))
    return _limb(joints, hinges, (sign * lengths[0], 0.0), lengths[1:3], (0.07, 0.05))


def _limb(
    joints: tuple[str, ...],
    hinges: tuple[str, ...],
    at: tuple[float, float],
    lengths: np.ndarray,
    radii: tuple[float, float],
) -> str:
    """Two bones hanging down: two hinges ``at`` (across, up), one between the bones, an end."""
    (across, up), (upper, lower) = at, lengths
    return f"""
      <body pos="{across} 0 {up}"><site name="{joints[0]}"/>{hinges[0]}{hinges[1]}
        {_bone(upper, radii[0])}
        <body pos="0 0 {-upper}"><site name="{joints[1]}"/>{hinges[2]}
          {_bone(lower, radii[1])}<site name="{joints[2]}" pos="0 0 {-lower}"/>
        </body>
      </body>"""
