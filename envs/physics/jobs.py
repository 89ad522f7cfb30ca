"""What a set consists of: its presets, its cells, and the axes of difficulty of each group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from ...core.config import did_you_mean
from ...core.errors import ConfigError
from ...core.rng import numpy_generator, stream_seed
from . import CONDITIONS, PRINCIPLES
from .assets import Rejected
from .contacts import collision, solidity
from .containers import containment
from .controls import CONTROLS, control, gap_pair
from .freeform import freeform
from .ledges import gravity, support
from .motions import continuity, inertia
from .plan import Ask, Plan
from .quadruplet import Drawn, draw
from .swaps import swap

TEMPLATES: dict[str, Callable[[Ask, np.random.Generator], Plan]] = {
    "permanence": swap,
    "continuity": continuity,
    "shape": swap,
    "colour": swap,
    "identity": swap,
    "solidity": solidity,
    "support": support,
    "gravity": gravity,
    "inertia": inertia,
    "collision": collision,
    "containment": containment,
    "occlusion": swap,
}
NULL_PRINCIPLES = ("permanence", "shape", "colour", "continuity")
"""Principles whose splices null quadruplets are made of, by turns."""
BRIDGES = (4, 1, 8, 16)
ATTEMPTS = 80
"""Scenes drawn for one group before giving up."""
FPS = 16


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much there is of everything."""

    train: int
    frames: int
    size: int
    quads: int
    """Per principle and condition in the test split; val and ood beside them."""
    val: int
    ood: int


PRESETS = {
    "smoke": Size(train=64, frames=32, size=64, quads=2, val=1, ood=1),
    "small": Size(train=2000, frames=48, size=64, quads=25, val=5, ood=5),
    "base": Size(train=20000, frames=64, size=128, quads=100, val=20, ood=20),
}


@dataclass(frozen=True, kw_only=True)
class GenerateConfig:
    """Generate violation-of-expectation videos: quadruplets, and possible videos for training.

    Physics is simulated and always legal; impossible videos are recombinations. The same command
    again goes on where an interrupted one stopped. Same seed, same bytes, whatever the workers.
    """

    out: str = "runs/voe"
    """Folder of the set."""
    preset: str = "smoke"
    """smoke (seconds to minutes), small (a laptop study) or base (a publishable benchmark)."""
    seed: int = 0
    """Seed of everything."""
    workers: int = 0
    """Processes; 0 is one per core. Does not change the result."""
    principles: tuple[str, ...] = PRINCIPLES
    """Which principles the quadruplets are about."""
    conditions: tuple[str, ...] = CONDITIONS
    """visible, occluded or both."""
    train: int | None = None
    """Training videos; default: the preset's."""
    frames: int | None = None
    """Frames per video, at least 32; default: the preset's."""
    size: int | None = None
    """Height and width in pixels, at least 48; default: the preset's."""
    quads: int | None = None
    """Test quadruplets per principle and condition (and per control); default: the preset's."""
    val: int | None = None
    """Quadruplets per cell to choose settings on; default: the preset's."""
    ood: int | None = None
    """Quadruplets per cell of held-out shapes, colours and occluders; default: the preset's."""
    export: str = ""
    """intphys: also write the folder layout of IntPhys 2019 into OUT-intphys."""

    def __post_init__(self) -> None:
        for name, value, known in [
            ("preset", self.preset, tuple(PRESETS)),
            ("export", self.export, ("", "intphys")),
            *(("principles", p, PRINCIPLES) for p in self.principles),
            *(("conditions", c, CONDITIONS) for c in self.conditions),
        ]:
            if value not in known:
                hint = did_you_mean(value, known)
                raise ConfigError(f"{name} = {value!r}{hint}: must be one of {', '.join(known)}")
        least = {"train": 0, "frames": 32, "size": 48, "quads": 0, "val": 0, "ood": 0, "workers": 0}
        for name, low in least.items():
            value = getattr(self, name)
            if value is not None and value < low:
                raise ConfigError(f"{name} = {value}: must be at least {low}")

    def resolved(self) -> Size:
        """The preset with what was set explicitly."""
        given = {name: getattr(self, name) for name in asdict(PRESETS[self.preset])}
        return Size(
            **(asdict(PRESETS[self.preset]) | {k: v for k, v in given.items() if v is not None})
        )

    def same_set(self) -> dict:
        """What must be equal for two commands to make the same set."""
        chosen = {"principles": [*self.principles], "conditions": [*self.conditions]}
        return asdict(self.resolved()) | chosen | {"seed": self.seed, "fps": FPS}


@dataclass(frozen=True)
class Job:
    """One group to make: a quadruplet, or a training video."""

    part: str
    split: str
    kind: str
    principle: str
    condition: str
    number: int

    @property
    def names(self) -> tuple[str | int, ...]:
        """The names of its random stream."""
        return "voe", self.split, self.kind, self.principle, self.condition, self.number


def jobs(config: GenerateConfig) -> list[Job]:
    """All groups of a set, in order."""
    size = config.resolved()
    cells = [(p, c) for p in config.principles for c in config.conditions]
    found = [
        Job("probe", split, "probe", principle, condition, number)
        for split, count in (("test", size.quads), ("val", size.val), ("ood", size.ood))
        for principle, condition in cells
        for number in range(count)
    ]
    if size.quads and "permanence" in config.principles:
        found += [
            Job("probe", "test", "null", NULL_PRINCIPLES[n % 4], condition, n)
            for condition in config.conditions
            for n in range(size.quads)
        ]
        found += [
            Job("probe", "test", "control", event, "visible", n)
            for event in CONTROLS
            for n in range(size.quads)
        ]
    if size.quads and "continuity" in config.principles:
        found += [
            Job("probe", "test", "pair", "continuity", "occluded", n) for n in range(size.quads)
        ]
    found += [Job("train", "train", "freeform", "freeform", "mixed", n) for n in range(size.train)]
    return found


def ask_of(config: GenerateConfig, job: Job) -> Ask:
    """The axes of difficulty take turns with the number, each against the others."""
    size, n = config.resolved(), job.number
    bridges = [bridge for bridge in BRIDGES if bridge <= size.frames - 24]
    bridge = bridges[(n // 2) % len(bridges)]
    twice = n % 5 == 4 and 30 + 2 * bridge <= size.frames
    swaps = TEMPLATES.get(job.principle) is swap and job.condition == "occluded"
    swaps = swaps and job.kind == "probe" and job.principle not in ("identity", "occlusion")
    return Ask(
        principle=job.principle,
        condition=job.condition,
        number=n,
        frames=size.frames,
        fps=FPS,
        size=size.size,
        held_out=job.split == "ood",
        bridge=bridge,
        events=2 if twice and swaps else 1,
        distractors=(n + n // 3) % 3,
        moving=n % 4 == 3,
    )


def plan_of(job: Job, ask: Ask, rng: np.random.Generator) -> Plan:
    """A drawn scene for the job, mirrored in every other group."""
    if job.kind == "freeform":
        return freeform(ask, rng)
    if job.kind == "control":
        plan = control(ask, rng)
    elif job.kind == "pair":
        plan = gap_pair(ask, rng)
    else:
        plan = TEMPLATES[job.principle](ask, rng)
    if job.kind == "null":
        plan = Plan(**{**vars(plan), "cuts": (), "exact": False, "variant": f"null-{plan.variant}"})
    mirror = (job.number + job.number // 2) % 2 == 1
    return plan.mirrored() if mirror else plan


def make(config: GenerateConfig, job: Job) -> tuple[Ask, Plan, Drawn, int]:
    """The first drawn scene that keeps the rules, and how many did not.

    Raises:
        ConfigError: ``ATTEMPTS`` scenes in a row broke a rule; the message counts the reasons.
    """
    ask, reasons = ask_of(config, job), {}
    for attempt in range(ATTEMPTS):
        rng = numpy_generator(config.seed, *job.names, attempt)
        try:
            plan = plan_of(job, ask, rng)
            return ask, plan, draw(ask, plan), attempt
        except Rejected as reason:
            reasons[str(reason)] = reasons.get(str(reason), 0) + 1
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.items())
    raise ConfigError(
        f"no scene for {job} in {ATTEMPTS} attempts at {ask.frames} frames of {ask.size} pixels "
        f"({told}): use more frames or pixels, or another seed"
    )


def name_of(seed: int, *names: str | int) -> str:
    """16 hexadecimal digits that tell nothing."""
    return f"{stream_seed(seed, 'name', *names):016x}"
