"""The objectives of published methods, as data: each is an :class:`ObjectiveConfig`.

>>> preset("vjepa2").target.momentum
(0.99925, 0.99925)
>>> preset("vjepa3")
Traceback (most recent call last):
tubelet.core.errors.ConfigError: unknown objective 'vjepa3'; did you mean 'vjepa2'? (objectives: ...
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ...core.config import did_you_mean
from ...core.errors import ConfigError
from .centred import CentredConfig
from .feedback import FeedbackConfig, Kind
from .objective import ObjectiveConfig
from .regress import ContextConfig, MultistepConfig, RegressConfig, ViewsConfig
from .sigreg import SigregConfig
from .targets import TargetConfig
from .temporal import IdmConfig, TempsimConfig
from .vicreg import VicregConfig


def ijepa(*, momentum: tuple[float, float] = (0.996, 1.0)) -> ObjectiveConfig:
    """I-JEPA, arXiv 2301.08243: smooth L1 to layer-normed tokens of a moving average, 0.996 to 1.

    The paper writes an L2 loss; the released training uses smooth L1 with beta 1, as here.
    """
    return ObjectiveConfig(
        target=TargetConfig(momentum=momentum, norm="layer"),
        regress=RegressConfig(kind="smooth_l1", beta=1.0),
    )


def vjepa(
    *, momentum: tuple[float, float] = (0.998, 1.0), exponent: float = 1.0
) -> ObjectiveConfig:
    """V-JEPA, arXiv 2404.08471: L1 to layer-normed tokens of a moving average, 0.998 to 1.

    ``exponent`` 2 asks for the mean rather than the median, which on scenes that are mostly still
    background is the background itself. Short runs need a faster teacher (less momentum).
    """
    return ObjectiveConfig(
        target=TargetConfig(momentum=momentum, norm="layer"),
        regress=RegressConfig(kind="lp", exponent=exponent),
    )


def vjepa2(
    *, momentum: tuple[float, float] = (0.99925, 0.99925), exponent: float = 1.0
) -> ObjectiveConfig:
    """V-JEPA 2, arXiv 2506.09985: :func:`vjepa` with a constant momentum of 0.99925."""
    return vjepa(momentum=momentum, exponent=exponent)


def vjepa2_1(*, images: bool = False) -> ObjectiveConfig:
    """V-JEPA 2.1, arXiv 2603.14482: four levels, each layer-normed, and a loss on visible tokens.

    The latter weighs 0.5 (0.7 for images), after a warm-up from step 15,000 to 30,000.
    """
    return ObjectiveConfig(
        target=TargetConfig(momentum=(0.99925, 0.99925), norm="layer", levels=4),
        regress=RegressConfig(kind="lp", exponent=1.0),
        context=ContextConfig(weight=0.7 if images else 0.5, warmup=(15_000, 30_000)),
    )


def lejepa(*, lam: float = 0.05, slices: int = 1024) -> ObjectiveConfig:
    """LeJEPA, arXiv 2511.08544: ``(1 - lam) views + lam SIGReg``, no teacher, no stop-gradient.

    SIGReg (times N) is per view. Sources differ: the paper has lam 0.05 and 256 slices on 17 nodes
    over [-5, 5] (here ``nodes=9, t_max=5``); the released code [0, 3] with 17 nodes and 1024
    slices, as here; its minimal example lam 0.02 and 256 slices.
    """
    return ObjectiveConfig(
        target=TargetConfig(kind="shared"),
        views=ViewsConfig(weight=1 - lam),
        sigreg=SigregConfig(on="views", weight=lam, slices=slices),
    )


def levjepa(*, lam: float = 0.05, slices: int = 1024) -> ObjectiveConfig:
    """LeV-JEPA, arXiv 2608.27395: LeJEPA's two terms on views of a video (crops, dropped tokens).

    No moving average. Its lam and slices were not available: LeJEPA's stand in for them.
    """
    return lejepa(lam=lam, slices=slices)


def salt() -> ObjectiveConfig:
    """SALT, arXiv 2509.24317, second stage: V-JEPA's loss to the tokens of a frozen teacher.

    The teacher comes from pixel reconstruction under the same masks. That its tokens are
    layer-normed and the exponent is 1 follows V-JEPA; we could not check either for SALT.
    """
    return ObjectiveConfig(
        target=TargetConfig(kind="frozen", norm="layer"),
        regress=RegressConfig(kind="lp", exponent=1.0),
    )


def lewm(*, lam: float = 0.09) -> ObjectiveConfig:
    """LeWM, arXiv 2603.19312: squared error one step ahead and SIGReg per time step.

    Targets are the encoder's own latents, with gradient. The paper says lam 0.1, its code 0.09.
    """
    return ObjectiveConfig(
        target=TargetConfig(kind="shared"),
        regress=RegressConfig(kind="l2"),
        sigreg=SigregConfig(on="sequence", weight=lam, slices=1024),
    )


def pldm() -> ObjectiveConfig:
    """PLDM, arXiv 2502.14819: rollout error, variance, covariance, slowness, inverse dynamics.

    Weights of the eb_jepa release for Two Rooms (std 16, cov 8, similarity 12, inverse dynamics 1).
    They are tuned per environment: another release has std 18, cov 12, std over time 0.7, and the
    maze of the paper std 29.4, cov 17.9, std over time 2.9, inverse dynamics 4.8. Whether targets
    carry gradients differs too; here they do.
    """
    return ObjectiveConfig(
        target=TargetConfig(kind="shared"),
        multistep=MultistepConfig(kind="l2"),
        vicreg=VicregConfig(on="sequence", std=16, cov=8, inv=0, cov_norm="pairs"),
        tempsim=TempsimConfig(kind="l2", weight=12),
        idm=IdmConfig(weight=1),
    )


def cjepa(*, weight: float = 0.001) -> ObjectiveConfig:
    """C-JEPA (contrastive), arXiv 2410.19560: I-JEPA and VICReg on the means of predicted blocks.

    VICReg's 25, 25, 1 are its own paper's, and the small weight of the whole is from memory: C-JEPA
    says which we could not check. Not the object-level "Causal-JEPA", arXiv 2602.11389.
    """
    base = ijepa()
    return ObjectiveConfig(
        target=base.target,
        regress=base.regress,
        vicreg=VicregConfig(on="means", weight=weight, std=25, cov=2, inv=25, cov_norm="dim"),
    )


def jedi(
    *, momentum: tuple[float, float] = (0.99925, 0.99925), kind: Kind = "both"
) -> ObjectiveConfig:
    """JeDi-JEPA: V-JEPA 2 with discriminative feedback on its predictions. A reading of a press
    description, the only source: no paper, code or numbers exist; see :mod:`.feedback`."""
    return replace(vjepa2(momentum=momentum), feedback=FeedbackConfig(kind=kind))


def pointjepa(*, momentum: tuple[float, float] = (0.9995, 0.99999)) -> ObjectiveConfig:
    """Point-JEPA, arXiv 2404.16432: smooth L1 (beta 2) to layer-normed tokens of a moving average,
    0.9995 to 0.99999. Its masks, tokens and positions are in :mod:`tubelet.vjepa.modalities`."""
    return ObjectiveConfig(
        target=TargetConfig(momentum=momentum, norm="layer"),
        regress=RegressConfig(kind="smooth_l1", beta=2.0),
    )


def sjepa(*, momentum: tuple[float, float] = (0.9995, 1.0)) -> ObjectiveConfig:
    """S-JEPA, ECCV 2024: cross-entropy to centred, sharpened tokens of a moving average.

    No official code; its momentum and temperatures were not available: the momentum here is
    Point-JEPA's and the temperatures are DINO's.
    """
    return ObjectiveConfig(target=TargetConfig(momentum=momentum), centred=CentredConfig())


PRESETS: dict[str, Callable[[], ObjectiveConfig]] = {
    "ijepa": ijepa,
    "vjepa": vjepa,
    "vjepa2": vjepa2,
    "vjepa2.1": vjepa2_1,
    "lejepa": lejepa,
    "levjepa": levjepa,
    "salt": salt,
    "lewm": lewm,
    "pldm": pldm,
    "cjepa": cjepa,
    "jedi": jedi,
    "pointjepa": pointjepa,
    "sjepa": sjepa,
}


def preset(name: str) -> ObjectiveConfig:
    """The objective called ``name``. Raises ConfigError with the nearest name."""
    if name not in PRESETS:
        hint = did_you_mean(name, PRESETS)
        raise ConfigError(f"unknown objective {name!r}{hint} (objectives: {', '.join(PRESETS)})")
    return PRESETS[name]()
