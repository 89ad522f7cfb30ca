"""Settings of scoring and of its reports. Nothing heavy is imported here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from ...core.errors import ConfigError
from ...datasets.voe.record import Match
from .metrics import Aggregate
from .windows import WindowConfig

if TYPE_CHECKING:
    from .store import VoeRun

Distance = Literal["l1", "l2", "cos"]


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How losses become one number per video."""

    aggregate: Aggregate = "avg"
    """avg, max, or late: the maximum from the first window in which the two videos differ."""
    context: int = 0
    """Length of the context in sampled frames; 0: filtered, the least over contexts."""
    match: Match = "prefix"
    """Pairs that are compared; sets with "all" pairs have no other."""
    strict_ties: bool = False
    """Count a tie as wrong, as Meta's evaluation does, not as one half."""

    def number(self, run: VoeRun) -> int | None:
        """The context's number in the run. Raises ConfigError if it was not scored."""
        if self.context == 0:
            return None
        if self.context not in run.config.contexts:
            raise ConfigError(
                f"context = {self.context} was not scored: 0 (filtered) or one of "
                f"{run.config.contexts}"
            )
        return run.config.contexts.index(self.context)


@dataclass(frozen=True, kw_only=True)
class ScoreConfig:
    """Measure a model's surprise at possible and impossible videos, beside its baselines."""

    data: str = ""
    """Folder of the set."""
    layout: str = "auto"
    """tubelet, intphys, grasp, inflevel, intphys2, physical-concepts, or what the folder looks
    like."""
    model: str = ""
    """A run of `tubelet pretrain` or `tubelet train`, a converted checkpoint, Meta's file or a
    Hugging Face folder; empty: baselines of pixels alone."""
    kind: Literal["auto", "masked", "world", "transformers"] = "auto"
    """What the model is used as: see the documentation."""
    out: str = "runs/voe"
    """Run folder."""
    resume: bool = False
    """Go on with that folder: scorers whose losses are there are not run again."""
    windows: WindowConfig = field(default_factory=WindowConfig)
    """Which frames are looked at."""
    reading: Reading = field(default_factory=Reading)
    """How losses become one number per video in the main table."""
    choose: Literal["fixed", "val"] = "fixed"
    """val: context and aggregate are those that are best for the model on the split val, and the
    tables are of all other splits."""
    size: int = 0
    """Side of the square that frames are resized to, in pixels; 0: as they are."""
    distance: Distance = "l1"
    """Between predicted and true latents."""
    which: str = ""
    """Of Meta's files: one encoder (target_encoder, encoder) for context and targets both; empty:
    each its own."""
    mask_index: int = 0
    """Mask token that stands for the future. Of V-JEPA 2's only 0 was trained."""
    actions: Literal["logged", "zero"] = "zero"
    """Of world models."""
    horizon: int = 0
    """Model steps that a world model imagines; 0: to the end of the window."""
    critic: float = 0.0
    """Weight beta of the critic, of runs with discriminative feedback: a further row, whose
    surprise is the error less beta times the critic's view of what came. 0: no such row."""
    untrained: int = 10
    """Untrained models of the same architecture, a seed each."""
    splits: tuple[str, ...] = ()
    """Splits to score; empty: all but training's."""
    kinds: tuple[str, ...] = ()
    """Kinds of groups (probe, null, control, pair); empty: all."""
    groups: int = 0
    """Groups of each principle and condition at most; 0: all."""
    gallery: int = 2
    """Hits, and misses, whose frames and token losses are kept for films; 0: none."""
    batch: int = 8
    """Windows per forward pass."""
    device: str = "auto"
    """cpu, cuda, …"""
    threads: int = 0
    """Threads of torch; 0: its own choice."""

    def __post_init__(self) -> None:
        for name in ("size", "horizon", "untrained", "groups", "gallery", "threads", "mask_index"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be 0 or more")
        if self.batch < 1:
            raise ConfigError(f"batch = {self.batch}: must be at least 1")
        if not 0 <= self.critic < float("inf"):
            raise ConfigError(f"critic = {self.critic}: must be 0 (none) or more, and finite")


@dataclass(frozen=True, kw_only=True)
class PerturbConfig:
    """Is a world model surprised when something happens in its environment that cannot?"""

    model: str = ""
    """Run folder of `tubelet train`."""
    env: str = ""
    """Environment id; empty: the one whose trajectories the model was trained on."""
    camera: str = ""
    """The scene's camera; empty: as with env."""
    out: str = "runs/perturb"
    """Run folder."""
    resume: bool = False
    """Go on with that folder."""
    kinds: tuple[Literal["teleport", "colour", "vanish", "mass", "friction"], ...] = (
        *("teleport", "colour", "vanish"),
        *("mass", "friction"),
    )
    """What happens: to be seen at once (teleport, colour, vanish), or in motion only (mass,
    friction)."""
    thing: str = ""
    """Body that it happens to; empty: the first that is pushed, or else what moves by itself."""
    size: float = 1.0
    """Of the change, from 0 (nothing) to 1."""
    episodes: int = 50
    """Episodes, each with every kind of change."""
    steps: int = 40
    """Environment steps of an episode; the change comes in its middle third."""
    seed: int = 0
    """Seed of the episodes; none of those that were collected."""
    horizon: int = 2
    """Model steps that are imagined from each moment, under the logged actions."""
    reading: Reading = field(default_factory=Reading)
    """How losses become one number per episode; its match is not used: both have a table."""
    distance: Distance = "l1"
    """Between predicted and true latents."""
    untrained: int = 10
    """Untrained models of the same architecture, a seed each."""
    batch: int = 64
    """Windows per forward pass."""
    device: str = "auto"
    """cpu, cuda, …"""
    threads: int = 0
    """Threads of torch; 0: its own choice."""

    def __post_init__(self) -> None:
        least = {"episodes": 1, "steps": 3, "horizon": 1, "untrained": 0, "batch": 1, "threads": 0}
        for name, low in least.items():
            if getattr(self, name) < low:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least {low}")
        if not 0 < self.size <= 1:
            raise ConfigError(f"size = {self.size}: must be above 0 and at most 1")
        if not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ConfigError(f"kinds = {self.kinds}: name at least one change, each once")


@dataclass(frozen=True, kw_only=True)
class ReportConfig:
    """Show what `tubelet voe score` measured; nothing is scored again."""

    runs: tuple[str, ...] = ()
    """Folders of scoring runs."""
    out: str = "voe.html"
    """The page."""
    reading: Reading = field(default_factory=Reading)
    """How losses become one number per video."""
    curves: int = 6
    """Pairs whose surprise is drawn over time."""

    def __post_init__(self) -> None:
        if not self.runs:
            raise ConfigError("runs = (): name at least one folder of `tubelet voe score`")
