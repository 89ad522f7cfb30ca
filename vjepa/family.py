"""The published members of the V-JEPA family, as data: what each is, and where its weights are.

>>> from tubelet.vjepa.family import member
>>> member("vjepa2-l").encoder.depth
24
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.config import did_you_mean
from ..core.errors import ConfigError
from .action_predictor import ActionPredictorConfig, vjepa2_ac
from .encoder import EncoderConfig
from .positions import PositionConfig
from .predictor import PredictorConfig


@dataclass(frozen=True, kw_only=True)
class Member:
    """One published model."""

    name: str
    """Name here."""
    encoder: EncoderConfig
    """Its encoder."""
    predictor: PredictorConfig | None = None
    """Its masked predictor."""
    actions: ActionPredictorConfig | None = None
    """Its action-conditioned predictor (V-JEPA 2-AC)."""
    action_dim: int = 7
    """Width of its actions, where it has any."""
    files: tuple[str, ...]
    """Published file names, below dl.fbaipublicfiles.com."""
    repos: tuple[str, ...] = ()
    """Hugging Face repositories with the same weights."""
    which: str = "target_encoder"
    """The sub-dict of the file that evaluations use."""
    prefix: str = "module.backbone."
    """What every key in the file starts with."""
    crop: int = 256
    """Side of the evaluation crop, after a resize of the short side to crop * 256 / 224."""
    frames: int = 64
    """Frames of a clip that it was last trained on; 1 for images."""


# Size -> (width, depth, heads, mlp_ratio).
_SIZES = {
    "b": (768, 12, 12, 4.0),
    "l": (1024, 24, 16, 4.0),
    "h": (1280, 32, 16, 4.0),
    "g": (1408, 40, 22, 48 / 11),
    "G": (1664, 48, 26, 64 / 13),
}
_TILED = PositionConfig(pairs="tiled")
_NORMALISED = PositionConfig(span=16)


def _encoder(size: str, position: PositionConfig, **more: Any) -> EncoderConfig:
    width, depth, heads, ratio = _SIZES[size]
    shape = {"width": width, "depth": depth, "heads": heads, "mlp_ratio": ratio}
    return EncoderConfig(**shape | more, position=position)


def _ijepa(name: str, size: str, patch: int, crop: int, **where: Any) -> Member:
    side = crop // patch
    position = PositionConfig(kind="sincos", axes="wh", native=(1, side, side))
    encoder = _encoder(size, position, tubelet=1, patch=patch, heads=16)
    predictor = PredictorConfig(
        depth=16 if size == "g" else 12, heads=16, mask_tokens=1, position=position
    )
    return Member(
        name=name,
        encoder=encoder,
        predictor=predictor,
        prefix="module.",
        crop=crop,
        frames=1,
        **where,
    )


def _vjepa1(name: str, size: str, crop: int, file: str) -> Member:
    position = PositionConfig(kind="sincos", native=(8, crop // 16, crop // 16))
    return Member(
        name=name,
        encoder=_encoder(size, position),
        predictor=PredictorConfig(
            heads=16, mask_tokens=2, zero_mask_tokens=True, position=position
        ),
        files=(file,),
        crop=crop,
        frames=16,
    )


def _vjepa2(name: str, size: str, crop: int, file: str, *repos: str) -> Member:
    return Member(
        name=name,
        encoder=_encoder(size, _TILED),
        predictor=PredictorConfig(mask_tokens=10, zero_mask_tokens=True, position=_TILED),
        files=(file, "original/model.pth"),
        repos=repos,
        crop=crop,
    )


def _vjepa21(
    name: str, size: str, levels: tuple[int, ...], file: str, *, distilled: bool
) -> Member:
    predictor = PredictorConfig(
        depth=12 if distilled else 24,
        mask_tokens=8,
        zero_mask_tokens=True,
        position=_NORMALISED,
        levels=1 if distilled else 4,
        target_width=1664 if distilled else 0,
        context_head=True,
        modality=True,
    )
    return Member(
        name=name,
        encoder=_encoder(size, _NORMALISED, levels=levels, image_patches=True, modality=True),
        predictor=predictor,
        files=(file,),
        which="ema_encoder" if distilled else "target_encoder",
        crop=384,
    )


def _hub(end: str) -> str:
    return f"facebook/{end}"


_H14 = {
    "files": ("IN1K-vit.h.14-300e.pth.tar", "IN22K-vit.h.14-900e.pth.tar"),
    "repos": (_hub("ijepa_vith14_1k"), _hub("ijepa_vith14_22k")),
}
_H16 = {"files": ("IN1K-vit.h.16-448px-300e.pth.tar",), "repos": (_hub("ijepa_vith16_1k"),)}
_G16 = {"files": ("IN22K-vit.g.16-600e.pth.tar",), "repos": (_hub("ijepa_vitg16_22k"),)}

FAMILY: dict[str, Member] = {
    m.name: m
    for m in (
        _ijepa("ijepa-h14", "h", 14, 224, **_H14),
        _ijepa("ijepa-h16-448", "h", 16, 448, **_H16),
        _ijepa("ijepa-g16", "g", 16, 224, **_G16),
        _vjepa1("vjepa-l16", "l", 224, "vitl16.pth.tar"),
        _vjepa1("vjepa-h16", "h", 224, "vith16.pth.tar"),
        _vjepa1("vjepa-h16-384", "h", 384, "vith16-384.pth.tar"),
        _vjepa2("vjepa2-l", "l", 256, "vitl.pt", _hub("vjepa2-vitl-fpc64-256")),
        _vjepa2("vjepa2-h", "h", 256, "vith.pt", _hub("vjepa2-vith-fpc64-256")),
        _vjepa2("vjepa2-g", "g", 256, "vitg.pt", _hub("vjepa2-vitg-fpc64-256")),
        _vjepa2("vjepa2-g-384", "g", 384, "vitg-384.pt", _hub("vjepa2-vitg-fpc64-384")),
        Member(
            name="vjepa2-ac-g",
            encoder=_encoder("g", _TILED),
            actions=vjepa2_ac(),
            files=("vjepa2-ac-vitg.pt",),
            which="encoder",
            prefix="module.",
            frames=8,
        ),
        _vjepa21(
            "vjepa2.1-b-384", "b", (3, 6, 9, 12), "vjepa2_1_vitb_dist_vitG_384.pt", distilled=True
        ),
        _vjepa21(
            "vjepa2.1-l-384", "l", (6, 12, 18, 24), "vjepa2_1_vitl_dist_vitG_384.pt", distilled=True
        ),
        _vjepa21("vjepa2.1-g-384", "g", (10, 20, 30, 40), "vjepa2_1_vitg_384.pt", distilled=False),
        _vjepa21("vjepa2.1-G-384", "G", (12, 24, 38, 48), "vjepa2_1_vitG_384.pt", distilled=False),
    )
}
"""Name -> member. V-JEPA 2.1's predictors scale positions like its encoders, as in training."""


def member(name: str) -> Member:
    """The member called ``name``. Raises ConfigError naming the nearest."""
    if name not in FAMILY:
        known = ", ".join(FAMILY)
        raise ConfigError(f"no family member {name!r}{did_you_mean(name, FAMILY)} (known: {known})")
    return FAMILY[name]
