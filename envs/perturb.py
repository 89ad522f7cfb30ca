"""Episodes in which something happens that cannot: a thing jumps, vanishes, turns another colour,
gets heavier or stickier, from one frame to the next. The actions stay the same.

Any :class:`GoalEnv` can be disturbed. Its model is copied, so that nothing is left behind. Every
change has a size: at 0 all of the code runs and no bit of states or pictures differs, which is the
null control; at 1 the change is whole. The same change at frame 0 gives an episode in which nothing
happens, in a world that was always like that: the control for how things look afterwards.
"""

from __future__ import annotations

import colorsys
import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..core.errors import ConfigError
from .base import GoalEnv, State
from .policies import PolicyMix, mixed_policy
from .rendering import MjModel, load_mujoco

Kind = Literal["teleport", "colour", "vanish", "mass", "friction"]
KINDS: dict[Kind, str] = {
    "teleport": "visible",
    "colour": "visible",
    "vanish": "visible",
    "mass": "physical",
    "friction": "physical",
}
"""Changes, and whether the picture jumps at once or only motion tells, later."""
HEAVIER, STICKIER = 8.0, 8.0
"""Factors of mass (and inertia), and of friction and damping, at size 1."""
SHOWN = 1e-3
"""Share of the picture's pixels that a jump changes at least (and no fewer than 4)."""
DRAWS = 60


@dataclass(frozen=True, kw_only=True)
class Change:
    """What happens to one thing of an episode.

    Attributes:
        kind: see :data:`KINDS`. step: the first frame after it (0: it was always so). size: in
        [0, 1]; see :func:`apply`. thing: the name of a body (:func:`things`). target: positions of
        the thing's joints after a teleport of size 1.
    """

    kind: Kind
    step: int
    thing: str
    size: float = 1.0
    target: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ConfigError(f"kind = {self.kind!r}: choose from {', '.join(KINDS)}")
        if not 0 <= self.size <= 1:
            raise ConfigError(f"size = {self.size}: must be in [0, 1]")
        if self.step < 0:
            raise ConfigError(f"step = {self.step}: must be 0 or more")


@dataclass(frozen=True)
class Played:
    """An episode: ``pixels`` uint8 [T + 1, H, W, 3], ``states`` float64 [T + 1, S]."""

    pixels: np.ndarray
    states: np.ndarray


def things(env: GoalEnv) -> list[str]:
    """Names of what moves by itself or is moved: bodies on the floor with all that hangs on them.
    Those that no actuator moves come first.

    Raises:
        ConfigError: the environment shows no simulator to change.
    """
    model = getattr(env, "model", None)
    if model is None:
        raise ConfigError(f"{type(env).__name__} has no MuJoCo model to change")
    roots = sorted({int(model.body_rootid[b]) for b in model.jnt_bodyid})
    roots = [root for root in roots if model.body_mocapid[root] < 0]
    return [model.body(root).name for root in sorted(roots, key=lambda r: r in _acted_on(model))]


def record(
    env: GoalEnv, steps: int, mix: PolicyMix, rng: np.random.Generator
) -> tuple[State, np.ndarray]:
    """A start state and the actions float32 ``[steps, A]`` of one of the mixture's policies."""
    state = env.sample_state(rng)
    env.reset(options={"state": state, "goal_state": env.sample_goal(rng)})
    act = mixed_policy(mix, env, steps, rng)
    actions = []
    for t in range(steps):
        actions.append(np.clip(act(t), -1.0, 1.0).astype(np.float32))
        env.step(actions[-1])
    return state, np.stack(actions)


def play(env: GoalEnv, state: State, actions: np.ndarray, change: Change | None = None) -> Played:
    """The episode from ``state`` under ``actions``, with ``change`` or without.

    Raises:
        ConfigError: a change after the last frame, or of a thing that is not there.
    """
    if change is not None and change.step > len(actions):
        raise ConfigError(f"step = {change.step}: the episode has frames 0 to {len(actions)}")
    pixels, states = [], []
    with restored(env):
        env.reset(options={"state": state, "goal_state": state})
        for t in range(len(actions) + 1):
            if change is not None and t == change.step:
                apply(env, change)
            states.append(env.get_state())
            pixels.append(env.render())
            if t < len(actions):
                env.step(actions[t])
    return Played(np.stack(pixels), np.stack(states))


@contextmanager
def restored(env: GoalEnv) -> Iterator[None]:
    """Give the environment its model back afterwards, in whatever state it then is."""
    model, scene = env.model, env.scene
    try:
        yield
    finally:
        env.scene = scene
        if env.model is not model:
            env.use_model(model)


def apply(env: GoalEnv, change: Change) -> None:
    """Change the environment as it is now; inside :func:`restored`, which undoes it.

    From size 0 to 1:

    - teleport: from where the thing is to the target, along a line; its velocity stays;
    - colour: towards the opposite hue, saturated;
    - vanish: more and more transparent; at 1 nothing touches it any more, too;
    - mass, friction: 1 to 8 times the mass and inertia; the friction, damping and friction loss.
    """
    _check_thing(env, change.thing)
    if env.scene is None:
        env.scene = env.model  # the copy is drawn by the same renderer
    model = copy.copy(env.model)
    parts = np.flatnonzero(model.body_rootid == model.body(change.thing).id)
    if change.kind == "teleport":
        state = _teleported(env, parts, change)
        env.use_model(model)
        env.set_state(state)
        return
    _CHANGES[change.kind](model, parts, change.size)
    env.use_model(model)


def draw_change(
    env: GoalEnv,
    kind: Kind,
    step: int,
    played: Played,
    rng: np.random.Generator,
    *,
    size: float = 1.0,
    thing: str = "",
) -> Change:
    """A change of an episode: for a teleport, to a place where nothing is in the way, now or at the
    episode's start, and whose picture differs.

    Args:
        played: the episode as it is. thing: by default the first of :func:`things`.

    Raises:
        ConfigError: no such place was found.
    """
    change = Change(kind=kind, step=step, thing=thing or things(env)[0], size=size)
    _check_thing(env, change.thing)
    if kind != "teleport":
        return change
    parts = np.flatnonzero(env.model.body_rootid == env.model.body(change.thing).id)
    addresses = _addresses(env.model, parts)
    for _ in range(DRAWS):
        found = env.position(env.sample_state(rng))[addresses]
        whole = replace(change, size=1.0, target=tuple(float(x) for x in found))
        if _fits(env, whole, parts, played):
            return replace(whole, size=size)
    raise ConfigError(
        f"teleport: no free place for {change.thing} at frame {step} in {DRAWS} draws; "
        "choose another thing"
    )


def _check_thing(env: GoalEnv, thing: str) -> None:
    if thing not in things(env):
        raise ConfigError(f"thing = {thing!r}: {type(env).__name__} has {', '.join(things(env))}")


def _fits(env: GoalEnv, change: Change, parts: np.ndarray, played: Played) -> bool:
    env.remember(played.states[change.step])
    moved = played.states[change.step]
    for t in (0, change.step):
        env.set_state(played.states[t])
        moved = _teleported(env, parts, change)
        if _overlap(env, moved) > _overlap(env, played.states[t]) + 1e-3 * env.model.stat.extent:
            return False
    shown = (env.render_state(moved) != played.pixels[change.step]).any(-1)
    return int(shown.sum()) >= max(4, SHOWN * shown.size)


def _overlap(env: GoalEnv, state: State) -> float:
    """How deep things sink into each other in ``state``, in metres."""
    mj = load_mujoco()
    data = mj.MjData(env.model)
    mj.mj_setState(env.model, data, state, int(mj.mjtState.mjSTATE_INTEGRATION))
    mj.mj_fwdPosition(env.model, data)
    return max(0.0, -float(data.contact.dist.min())) if data.ncon else 0.0


def _teleported(env: GoalEnv, parts: np.ndarray, change: Change) -> State:
    """The present state with the thing's joints on their way to the target."""
    state, addresses = env.get_state(), _addresses(env.model, parts)
    if len(change.target) != len(addresses):
        raise ConfigError(
            f"target has {len(change.target)} positions; {change.thing} has {len(addresses)}"
        )
    now = state[1:][addresses]
    state[1:][addresses] = now + change.size * (np.array(change.target) - now)
    return state


def _addresses(model: MjModel, parts: np.ndarray) -> np.ndarray:
    """Places in qpos of the joints of bodies: all of hinges and slides, free joints' positions."""
    free, ball = (int(getattr(load_mujoco().mjtJoint, f"mjJNT_{n}")) for n in ("FREE", "BALL"))
    found: list[int] = []
    for joint in np.flatnonzero(np.isin(model.jnt_bodyid, parts)):
        first, kind = int(model.jnt_qposadr[joint]), int(model.jnt_type[joint])
        found += [] if kind == ball else range(first, first + (3 if kind == free else 1))
    return np.array(found, int)


def _acted_on(model: MjModel) -> set[int]:
    """Root bodies of what an actuator moves."""
    kinds = load_mujoco().mjtTrn
    found = set()
    for number in range(model.nu):
        kind, target = int(model.actuator_trntype[number]), int(model.actuator_trnid[number, 0])
        if kind in (int(kinds.mjTRN_JOINT), int(kinds.mjTRN_JOINTINPARENT)):
            found.add(int(model.body_rootid[model.jnt_bodyid[target]]))
        elif kind == int(kinds.mjTRN_SITE):
            found.add(int(model.body_rootid[model.site_bodyid[target]]))
        elif kind == int(kinds.mjTRN_BODY):
            found.add(int(model.body_rootid[target]))
    return found


def _geoms(model: MjModel, parts: np.ndarray) -> np.ndarray:
    return np.flatnonzero(np.isin(model.geom_bodyid, parts))


def _shown_rgba(model: MjModel, geom: int) -> np.ndarray:
    """A geom's colour as it is drawn: its own, or its material's where its own is the default."""
    own, material = model.geom_rgba[geom], int(model.geom_matid[geom])
    return own if material < 0 or (own != [0.5, 0.5, 0.5, 1]).any() else model.mat_rgba[material]


def _colour(model: MjModel, parts: np.ndarray, size: float) -> None:
    for geom in _geoms(model, parts):
        rgba = _shown_rgba(model, geom).copy()
        hue, saturation, value = colorsys.rgb_to_hsv(*(float(c) for c in rgba[:3]))
        other = colorsys.hsv_to_rgb((hue + 0.5) % 1.0, max(saturation, 0.75), max(value, 0.7))
        rgba[:3] += size * (np.array(other, rgba.dtype) - rgba[:3])
        model.geom_rgba[geom] = rgba


def _vanish(model: MjModel, parts: np.ndarray, size: float) -> None:
    for geom in _geoms(model, parts):
        rgba = _shown_rgba(model, geom).copy()
        rgba[3] *= 1 - size
        model.geom_rgba[geom] = rgba
    if size == 1:
        geoms = _geoms(model, parts)
        model.geom_contype[geoms] = model.geom_conaffinity[geoms] = 0
        model.body_contype[parts] = model.body_conaffinity[parts] = 0  # the union over their geoms


def _mass(model: MjModel, parts: np.ndarray, size: float) -> None:
    mj, stat = load_mujoco(), model.stat
    kept = {n: copy.copy(getattr(stat, n)) for n in ("extent", "meansize", "meanmass")}
    kept["center"] = stat.center.copy()
    model.body_mass[parts] *= HEAVIER**size
    model.body_inertia[parts] *= HEAVIER**size
    mj.mj_setConst(model, mj.MjData(model))
    for name, value in kept.items():  # which setConst measures anew: near and far planes follow
        if name == "center":
            stat.center[:] = value
        else:
            setattr(stat, name, value)


def _friction(model: MjModel, parts: np.ndarray, size: float) -> None:
    dofs = np.isin(model.dof_bodyid, parts)
    model.geom_friction[_geoms(model, parts)] *= STICKIER**size
    model.dof_damping[dofs] *= STICKIER**size
    model.dof_frictionloss[dofs] *= STICKIER**size


_CHANGES: dict[str, Callable[[MjModel, np.ndarray, float], None]] = {
    "colour": _colour,
    "vanish": _vanish,
    "mass": _mass,
    "friction": _friction,
}
