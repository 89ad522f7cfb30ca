"""transformers' ``config.json`` of V-JEPA 2 and I-JEPA, and our configs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ...core.errors import CheckpointError, ConfigError
from ..attentive import AttentiveConfig
from ..encoder import EncoderConfig
from ..positions import PositionConfig
from ..predictor import PredictorConfig

# What transformers leaves out of the file where it is the default.
VJEPA2_DEFAULTS: dict[str, Any] = {
    "patch_size": 16,
    "crop_size": 256,
    "frames_per_clip": 64,
    "tubelet_size": 2,
    "hidden_size": 1024,
    "in_chans": 3,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "mlp_ratio": 4.0,
    "layer_norm_eps": 1e-6,
    "qkv_bias": True,
    "hidden_act": "gelu",
    "num_pooler_layers": 3,
    "pred_hidden_size": 384,
    "pred_num_attention_heads": 12,
    "pred_num_hidden_layers": 12,
    "pred_num_mask_tokens": 10,
    "pred_zero_init_mask_tokens": True,
    "pred_mlp_ratio": 4.0,
}
IJEPA_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "intermediate_size": 3072,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-12,
    "image_size": 224,
    "patch_size": 16,
    "num_channels": 3,
    "qkv_bias": True,
}
# What every model of the family has, and our modules take for granted.
_FIXED = {"in_chans": 3, "num_channels": 3, "qkv_bias": True, "hidden_act": "gelu"}


def vjepa2_configs(config: Mapping[str, Any], source: str) -> tuple[EncoderConfig, PredictorConfig]:
    """Our configs of a ``VJEPA2Config``. Raises CheckpointError for what V-JEPA 2 is not."""
    c = _checked(config, VJEPA2_DEFAULTS, source)
    if c["layer_norm_eps"] != 1e-6:
        raise CheckpointError(f"{source}: layer_norm_eps = {c['layer_norm_eps']}; it must be 1e-6")
    position = PositionConfig(pairs="tiled")
    try:
        return EncoderConfig(
            width=c["hidden_size"],
            depth=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            mlp_ratio=float(c["mlp_ratio"]),
            patch=c["patch_size"],
            tubelet=c["tubelet_size"],
            position=position,
        ), PredictorConfig(
            width=c["pred_hidden_size"],
            depth=c["pred_num_hidden_layers"],
            heads=c["pred_num_attention_heads"],
            mlp_ratio=float(c["pred_mlp_ratio"]),
            mask_tokens=c["pred_num_mask_tokens"],
            zero_mask_tokens=c["pred_zero_init_mask_tokens"],
            position=position,
        )
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error


def vjepa2_probe(
    config: Mapping[str, Any], encoder: EncoderConfig, classes: int, published: bool
) -> AttentiveConfig:
    """The config of a ``VJEPA2ForVideoClassification``'s pooler and classifier: the function that
    transformers computes, or else the one that Meta's probes were trained as."""
    return AttentiveConfig(
        width=encoder.width,
        classes=(classes,),
        depth=config.get("num_pooler_layers", VJEPA2_DEFAULTS["num_pooler_layers"]) + 1,
        heads=16 if published else encoder.heads,
        eps=1e-5 if published else 1e-6,
    )


def vjepa2_probe_json(probe: AttentiveConfig, labels: Sequence[str]) -> dict[str, Any]:
    """What a probe adds to the ``VJEPA2Config``. Raises CheckpointError for what it cannot say."""
    same = {
        "probe.version": (probe.version, "v2"),
        "probe.mlp_ratio": (probe.mlp_ratio, 4.0),
        "number of probe.classes": (len(probe.classes), 1),
    }
    _refuse(same, "VJEPA2ForVideoClassification")
    names = list(labels) or [f"LABEL_{i}" for i in range(probe.classes[0])]
    if len(names) != probe.classes[0]:
        raise CheckpointError(f"{len(names)} labels for {probe.classes[0]} classes")
    return {
        "architectures": ["VJEPA2ForVideoClassification"],
        "num_pooler_layers": probe.depth - 1,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
    }


def vjepa2_json(
    encoder: EncoderConfig, predictor: PredictorConfig, crop: int, frames: int
) -> dict[str, Any]:
    """The ``VJEPA2Config`` of a V-JEPA 2. Raises CheckpointError for what it cannot say."""
    wanted = PositionConfig(pairs="tiled")
    same = {
        "encoder.position": (encoder.position, wanted),
        "predictor.position": (predictor.position, wanted),
        "encoder.levels": (encoder.levels, ()),
        "encoder.image_patches": (encoder.image_patches, False),
        "encoder.modality": (encoder.modality, False),
        "predictor.levels": (predictor.levels, 1),
        "predictor.context_head": (predictor.context_head, False),
        "predictor.modality": (predictor.modality, False),
        "predictor.target_width": (predictor.target_width or encoder.width, encoder.width),
    }
    _refuse(same, "VJEPA2Model")
    if crop < 1 or crop % encoder.patch:
        raise CheckpointError(
            f"crop = {crop}: give the side of the clips, a multiple of {encoder.patch}, for which "
            "transformers is to place tokens"
        )
    return {
        "architectures": ["VJEPA2Model"],
        "model_type": "vjepa2",
        "dtype": "float32",
        **VJEPA2_DEFAULTS,
        "patch_size": encoder.patch,
        "crop_size": crop,
        "frames_per_clip": frames or VJEPA2_DEFAULTS["frames_per_clip"],
        "tubelet_size": encoder.tubelet,
        "hidden_size": encoder.width,
        "num_attention_heads": encoder.heads,
        "num_hidden_layers": encoder.depth,
        "mlp_ratio": _ratio(encoder.width, encoder.mlp_ratio),
        "pred_hidden_size": predictor.width,
        "pred_num_attention_heads": predictor.heads,
        "pred_num_hidden_layers": predictor.depth,
        "pred_num_mask_tokens": predictor.mask_tokens,
        "pred_zero_init_mask_tokens": predictor.zero_mask_tokens,
        "pred_mlp_ratio": _ratio(predictor.width, predictor.mlp_ratio),
    }


def ijepa_config(config: Mapping[str, Any], source: str) -> EncoderConfig:
    """Our config of an ``IJepaConfig``. Raises CheckpointError for what I-JEPA is not."""
    c = _checked(config, IJEPA_DEFAULTS, source)
    if c["layer_norm_eps"] not in (1e-6, 1e-12):
        raise CheckpointError(f"{source}: layer_norm_eps = {c['layer_norm_eps']}; it must be 1e-6")
    side = c["image_size"] // max(1, c["patch_size"])
    try:
        return EncoderConfig(
            width=c["hidden_size"],
            depth=c["num_hidden_layers"],
            heads=c["num_attention_heads"],
            mlp_ratio=c["intermediate_size"] / max(1, c["hidden_size"]),
            patch=c["patch_size"],
            tubelet=1,
            position=PositionConfig(kind="sincos", axes="wh", native=(1, side, side)),
        )
    except ConfigError as error:
        raise CheckpointError(f"{source}: {error}") from error


def ijepa_json(encoder: EncoderConfig) -> dict[str, Any]:
    """The ``IJepaConfig`` of an I-JEPA encoder. Raises CheckpointError for what it cannot say."""
    native = encoder.position.native or (0, 0, 0)
    same = {
        "encoder.position.kind": (encoder.position.kind, "sincos"),
        "encoder.position.axes": (encoder.position.axes, "wh"),
        "encoder.position.native": (native, (1, max(1, native[1]), max(1, native[1]))),
        "encoder.tubelet": (encoder.tubelet, 1),
        "encoder.levels": (encoder.levels, ()),
        "encoder.modality": (encoder.modality, False),
    }
    _refuse(same, "IJepaModel")
    return {
        "architectures": ["IJepaModel"],
        "model_type": "ijepa",
        "dtype": "float32",
        **IJEPA_DEFAULTS,
        "layer_norm_eps": 1e-6,
        "hidden_size": encoder.width,
        "num_hidden_layers": encoder.depth,
        "num_attention_heads": encoder.heads,
        "intermediate_size": round(encoder.width * encoder.mlp_ratio),
        "image_size": native[1] * encoder.patch,
        "patch_size": encoder.patch,
    }


def _checked(config: Mapping[str, Any], defaults: Mapping[str, Any], source: str) -> dict[str, Any]:
    """``config`` with its defaults. Raises CheckpointError naming ill-typed and other values."""
    c = {key: config.get(key, default) for key, default in defaults.items()}
    for key, value in c.items():
        if isinstance(value, list | tuple) and len(set(value)) == 1:
            c[key] = value = value[0]  # a square, said twice
        kind = type(defaults[key])
        if type(value) is not kind and not (kind is float and type(value) is int):
            raise CheckpointError(f"{source}: {key} = {value!r} is no {kind.__name__}")
        if key in _FIXED and value != _FIXED[key]:
            raise CheckpointError(
                f"{source}: {key} = {value!r}; the family has {_FIXED[key]!r} and nothing else is "
                "implemented"
            )
    return c


def _refuse(same: Mapping[str, tuple[Any, Any]], what: str) -> None:
    odd = [f"{key} = {value} (it has {w})" for key, (value, w) in same.items() if value != w]
    if odd:
        raise CheckpointError(f"transformers' {what} cannot be this model: {'; '.join(odd)}")


def _ratio(width: int, ratio: float) -> float:
    """``ratio`` such that ``int(width * ratio)``, as transformers computes, is what we round to."""
    ratio = float(ratio)
    hidden = round(width * ratio)
    if int(width * ratio) != hidden:
        ratio = hidden / width
    return ratio if int(width * ratio) == hidden else math.nextafter(ratio, math.inf)
