"""What Meta calls the weights of each of our modules."""

from __future__ import annotations

from torch import nn

from ...core.errors import CheckpointError
from ..action_predictor import ActionPredictor, ActionPredictorConfig, vjepa2_ac
from ..encoder import EncoderConfig, TubeletEncoder
from ..predictor import MaskedPredictor, PredictorConfig
from .keys import Entry, Rule, Shape, plain, renamed, split

_PREDICTOR = {
    "embed.": "predictor_embed.",
    "blocks.": "predictor_blocks.",
    "norm.": "predictor_norm.",
    "proj.": "predictor_proj.",
    "context_proj.": "predictor_proj_context.",
}
_ACTIONS = {
    "embed.": "predictor_embed.",
    "act.": "action_encoder.",
    "state.": "state_encoder.",
    "extrinsics.": "extrinsics_encoder.",
    "blocks.": "predictor_blocks.",
    "norm.": "predictor_norm.",
    "head.": "predictor_proj.",
}
_ENCODER = {
    "patch_embed.": "patch_embed.proj.",
    "image_embed.": "patch_embed_img.proj.",
    "norms.": "norms_block.",
}
_MARKS = {"video_mark": "video_mod_embed", "image_mark": "img_mod_embed"}


def rule_of(module: nn.Module) -> Rule:
    """Meta's names for the weights of one of our modules. Raises CheckpointError for what Meta's
    models do not have."""
    if isinstance(module, TubeletEncoder):
        return _encoder_rule(module.config)
    if isinstance(module, MaskedPredictor):
        return _predictor_rule(module.config)
    if isinstance(module, ActionPredictor):
        return _actions_rule(module.config)
    return plain_rule  # probes bear the published names


def plain_rule(key: str, shape: Shape) -> Entry:
    """The same name there as here."""
    return plain(key, key, shape)


def _encoder_rule(c: EncoderConfig) -> Rule:
    def rule(key: str, shape: Shape) -> Entry:
        if key in _MARKS:
            return plain(key, _MARKS[key], shape, (1, 1, *shape))
        name = renamed(key, _ENCODER)
        if key == "patch_embed.weight" and c.tubelet == 1:  # a 2-D convolution
            return plain(key, name, shape, (*shape[:2], *shape[3:]))
        return plain(key, name, shape)

    return rule


def _predictor_rule(c: PredictorConfig) -> Rule:
    def rule(key: str, shape: Shape) -> Entry:
        if key in _MARKS:
            return plain(key, _MARKS[key], shape, (1, 1, *shape))
        if key == "mask_tokens":
            image = c.position.kind == "sincos" and c.position.axes in ("hw", "wh")
            names = ["mask_token"] if image else [f"mask_tokens.{k}" for k in range(shape[0])]
            return split(key, names, shape, (1, 1, shape[1]))
        return plain(key, renamed(key, _PREDICTOR), shape)

    return rule


def _actions_rule(c: ActionPredictorConfig) -> Rule:
    published = vjepa2_ac()
    for name in ("conditioning", "action_encoder", "place", "residual", "position", "normalise"):
        if getattr(c, name) != getattr(published, name):
            raise CheckpointError(
                f"an action-conditioned predictor with {name} = {getattr(c, name)} is none that "
                f"Meta's format knows; V-JEPA 2-AC has {getattr(published, name)}"
            )
    return lambda key, shape: plain(key, renamed(key, _ACTIONS), shape)


def table_key(module: nn.Module) -> str:
    """What Meta calls a module's position table."""
    return "pos_embed" if isinstance(module, TubeletEncoder) else "predictor_pos_embed"
