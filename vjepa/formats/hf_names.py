"""What transformers calls the weights of V-JEPA 2 and I-JEPA on disk."""

from __future__ import annotations

from .keys import Entry, Shape, plain, renamed, split

TABLE = "embeddings.position_embeddings"
"""I-JEPA's position table. V-JEPA 2 has none."""

_PARTS = ("query", "key", "value")
_VJEPA2_ENCODER = {
    "patch_embed.": "encoder.embeddings.patch_embeddings.proj.",
    "blocks.": "encoder.layer.",
    "norm.": "encoder.layernorm.",
}
_VJEPA2_PREDICTOR = {
    "embed.": "predictor.embeddings.predictor_embeddings.",
    "mask_tokens": "predictor.embeddings.mask_tokens",
    "blocks.": "predictor.layer.",
    "norm.": "predictor.layernorm.",
    "proj.": "predictor.proj.",
}
_IJEPA = {
    "patch_embed.": "embeddings.patch_embeddings.projection.",
    "blocks.": "encoder.layer.",
    "norm.": "layernorm.",
}
_IJEPA_BLOCK = {
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "attn.proj.": "attention.output.dense.",
    "mlp.fc1.": "intermediate.dense.",
    "mlp.fc2.": "output.dense.",
}
_POOLER = {
    "pooler.cross_attention_block.": "pooler.cross_attention_layer.",
    "pooler.blocks.": "pooler.self_attention_layers.",
    "linear.": "classifier.",
}
_POOLER_BLOCK = {
    ".norm1.": ".layer_norm1.",
    ".norm2.": ".layer_norm2.",
    ".attn.proj.": ".self_attn.out_proj.",
    ".xattn.q.": ".cross_attn.q_proj.",
}


def vjepa2_encoder_rule(key: str, shape: Shape) -> Entry:
    """``VJEPA2Model.encoder``."""
    return _vjepa2(key, renamed(key, _VJEPA2_ENCODER), shape)


def vjepa2_predictor_rule(key: str, shape: Shape) -> Entry:
    """``VJEPA2Model.predictor``; its mask tokens are one tensor ``[K, 1, 1, W]``."""
    if key == "mask_tokens":
        return plain(key, renamed(key, _VJEPA2_PREDICTOR), shape, (shape[0], 1, 1, shape[1]))
    return _vjepa2(key, renamed(key, _VJEPA2_PREDICTOR), shape)


def vjepa2_probe_rule(key: str, shape: Shape) -> Entry:
    """``VJEPA2ForVideoClassification``'s pooler and classifier."""
    name = renamed(key, _POOLER, _POOLER_BLOCK)
    for ours, theirs, parts in (
        (".attn.qkv.", "self_attn", "qkv"),
        (".xattn.kv.", "cross_attn", "kv"),
    ):
        if ours in name:
            names = [name.replace(ours, f".{theirs}.{part}_proj.") for part in parts]
            return split(key, names, shape)
    return plain(key, name, shape)


def ijepa_rule(key: str, shape: Shape) -> Entry:
    """``IJepaModel``, whose patches are a 2-D convolution."""
    name = renamed(key, _IJEPA, _IJEPA_BLOCK if key.startswith("blocks.") else None)
    if key == "patch_embed.weight":
        return plain(key, name, shape, (*shape[:2], *shape[3:]))
    return _attention(key, name, "attn.qkv.", "attention.attention.", shape)


def _vjepa2(key: str, name: str, shape: Shape) -> Entry:
    name = name.replace("attn.proj.", "attention.proj.")
    return _attention(key, name, "attn.qkv.", "attention.", shape)


def _attention(key: str, name: str, ours: str, theirs: str, shape: Shape) -> Entry:
    """Queries, keys and values are three there."""
    if ours not in name:
        return plain(key, name, shape)
    return split(key, [name.replace(ours, f"{theirs}{part}.") for part in _PARTS], shape)
