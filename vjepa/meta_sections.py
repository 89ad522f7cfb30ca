"""What each key of Meta's training YAMLs means here; see :mod:`.meta_yaml`."""

from __future__ import annotations

from ..core.errors import ConfigError
from ..datasets.augment import AugmentConfig
from ..datasets.clips import ClipConfig
from .encoder import EncoderConfig
from .mask_images import ImageMaskConfig
from .masked import MaskingConfig
from .masks import MaskConfig
from .meta_data import clip_config
from .meta_shared import batch_size, loop_config, optim_config, size_of
from .meta_table import Table
from .objectives.presets import ijepa, vjepa
from .positions import PositionConfig
from .predictor import PredictorConfig
from .pretrain import PretrainConfig
from .pretrain_recipe import PretrainRunConfig

_MACHINES = "how many machines a run gets is said where it is started (torchrun)"
_CLUSTER = {"cpus_per_task": _MACHINES, "mem_per_gpu": _MACHINES}
_OURS = {
    "meta.load_checkpoint": "resuming is said where a run is started (--resume)",
    "meta.read_checkpoint": "the newest checkpoint of the run folder is read",
    "data.pin_mem": "the loader decides",
}
_VIDEO_DROPPED = {
    **_CLUSTER,
    **_OURS,
    "folder": "name the run folder with --out",
    "logging.folder": "name the run folder with --out",
    "logging.write_tag": "files in a run folder have fixed names",
    "meta.eval_freq": "the published training ignores it too",
    "meta.save_every_freq": "the newest two checkpoints are kept",
    "meta.skip_batches": "a resumed run goes on at its exact step",
    "meta.use_sdpa": "attention is always fused",
    "meta.sync_gc": "garbage collection is left to Python",
    "model.use_mask_tokens": "the predictor always has mask tokens",
    "data.dataset_type": "videos are recognised by their files",
    "data.datasets": "paths of another machine: name yours with --videos (a mixture keeps weights)",
    "data.persistent_workers": "workers always persist",
    "data.num_clips": "one clip is cut per sample",
    "data.decode_one_clip": "one clip is cut per sample",
    "data.filter_short_videos": "videos that are too short are left out and listed",
    "data.clip_duration": "clips are cut by frame rate or step",
    "loss.reg_coeff": "the variance term that it weighs is off in every published file",
    "optimization.resume_anneal": "a run goes on with --resume",
    "optimization.anneal_ckpt": "name the run whose weights to start with by --start-from",
}
_IMAGES_DROPPED = {
    **_OURS,
    "logging.folder": "name the run folder with --out",
    "logging.write_tag": "files in a run folder have fixed names",
    "meta.copy_data": "data stays where it is",
    "data.root_path": "name the folder with --images",
    "data.image_folder": "name the folder with --images",
    "data.color_jitter_strength": "colours are not changed (use_color_distortion is off)",
}


def video_config(keys: Table, steps_per_epoch: int) -> PretrainRunConfig:
    """V-JEPA 1 and 2. Raises ConfigError as :func:`.meta_yaml.import_meta`."""
    keys.drop(_VIDEO_DROPPED)
    for key in ("use_silu", "use_pred_silu"):
        keys.require(f"model.{key}", False, False, "blocks have GELU, as all published ones")
    keys.get("model.wide_silu", None)
    for key in ("motion_shift", "reprob", "auto_augment"):
        keys.require(f"data_aug.{key}", False, False, "clips are cropped and flipped only")
    size = keys.whole("data.crop_size", 224)
    width, depth, heads, ratio = size_of(keys, "model.model_name")
    position = _video_position(keys)
    encoder = EncoderConfig(
        width=width,
        depth=depth,
        heads=heads,
        mlp_ratio=ratio,
        patch=keys.whole("data.patch_size", 16),
        tubelet=keys.whole("data.tubelet_size", 2),
        position=position,
    )
    predictor = PredictorConfig(
        width=keys.whole("model.pred_embed_dim", 384),
        depth=keys.whole("model.pred_depth", 12),
        heads=keys.whole("model.pred_num_heads", heads),
        zero_mask_tokens=keys.flag("model.zero_init_mask_tokens", True),
        position=position,
    )
    steps, loop = loop_config(keys, steps_per_epoch, keys.text("meta.dtype", "float32"))
    momentum = keys.pair("optimization.ema")
    train = PretrainConfig(
        encoder=encoder,
        objective=vjepa(momentum=momentum, exponent=keys.number("loss.loss_exp", 1.0)),
        predictor=predictor,
        masks=_video_masks(keys),
        optim=optim_config(keys, steps),
        loop=loop,
        batch_size=batch_size(keys),
        seed=keys.whole("meta.seed", 0),
    )
    aspect = keys.pair("data_aug.random_resize_aspect_ratio", (0.75, 4 / 3))
    scale = keys.pair("data_aug.random_resize_scale", (0.3, 1.0))
    return PretrainRunConfig(
        train=train,
        clips=clip_config(keys, size),
        augmentation=AugmentConfig(scale=scale, ratio=aspect),
        workers=keys.whole("data.num_workers", 1),
    )


def ijepa_config(keys: Table, steps_per_epoch: int) -> PretrainRunConfig:
    """I-JEPA. Raises ConfigError as :func:`.meta_yaml.import_meta`."""
    keys.drop(_IMAGES_DROPPED)
    for key in ("use_color_distortion", "use_gaussian_blur"):
        keys.require(f"data.{key}", False, False, "images are cropped and flipped only")
    keys.require("mask.num_enc_masks", 1, 1, "there is one context per image")
    keys.require("mask.allow_overlap", False, False, "targets are taken out of the context")
    width, depth, heads, ratio = size_of(keys, "meta.model_name")
    position = PositionConfig(kind="sincos", axes="wh")
    mixed = "bfloat16" if keys.flag("meta.use_bfloat16", False) else "float32"
    steps, loop = loop_config(keys, steps_per_epoch, mixed)
    train = PretrainConfig(
        encoder=EncoderConfig(
            width=width,
            depth=depth,
            heads=heads,
            mlp_ratio=ratio,
            patch=keys.whole("mask.patch_size"),
            tubelet=1,
            position=position,
        ),
        objective=ijepa(momentum=keys.pair("optimization.ema")),
        predictor=PredictorConfig(
            width=keys.whole("meta.pred_emb_dim", 384),
            depth=keys.whole("meta.pred_depth", 12),
            heads=heads,
            mask_tokens=1,
            position=position,
        ),
        masks=MaskingConfig(
            style="image",
            image=ImageMaskConfig(
                targets=keys.whole("mask.num_pred_masks", 4),
                target_scale=keys.pair("mask.pred_mask_scale", (0.15, 0.2)),
                target_aspect=keys.pair("mask.aspect_ratio", (0.75, 1.5)),
                context_scale=keys.pair("mask.enc_mask_scale", (0.85, 1.0)),
                min_keep=keys.whole("mask.min_keep", 10),
            ),
        ),
        optim=optim_config(keys, steps),
        loop=loop,
        batch_size=batch_size(keys),
    )
    flip = 0.5 if keys.flag("data.use_horizontal_flip", False) else 0.0
    scale = keys.pair("data.crop_scale", (0.3, 1.0))
    return PretrainRunConfig(
        train=train,
        clips=ClipConfig(frames=1, size=keys.whole("data.crop_size", 224)),
        augmentation=AugmentConfig(scale=scale, ratio=(3 / 4, 4 / 3), flip=flip),
        workers=keys.whole("data.num_workers", 1),
    )


def _video_position(keys: Table) -> PositionConfig:
    uniform = keys.flag("model.uniform_power", False)
    if keys.flag("model.use_rope", False) or keys.text("model.model_name").endswith("_rope"):
        keys.note(
            'model.use_rope: pairs = "tiled", as the published weights; "interleaved" is the '
            "rotation proper (V-JEPA 2.1)"
        )
        return PositionConfig(pairs="tiled")
    return PositionConfig(kind="sincos", axes="thw" if uniform else "thw_uneven")


def _video_masks(keys: Table) -> MaskingConfig:
    kinds = keys.get("mask")
    if not isinstance(kinds, list) or len(kinds) != 2:
        raise ConfigError(f"mask: {kinds!r} cannot be imported: two kinds are trained together")
    keys.note(
        'mask: lengths are equalised without losing tokens (equalise = "border"); the published '
        'collator cuts the end of clips off ("truncate")'
    )
    short, long = (_video_mask(kind, i) for i, kind in enumerate(kinds))
    return MaskingConfig(short=short, long=long)


def _video_mask(kind: object, number: int) -> MaskConfig:
    if not isinstance(kind, dict):
        raise ConfigError(f"mask[{number}]: {kind!r} is not a table")
    keys = Table(kind)
    complement = keys.flag("full_complement", False)
    other = keys.flag("pred_full_complement", False)
    if complement and other:
        raise ConfigError(f"mask[{number}]: full_complement and pred_full_complement: set one")
    low, high = _range(keys, "temporal_scale", 1.0)
    scale = _range(keys, "spatial_scale", 0.2)
    if scale[0] != scale[1]:
        raise ConfigError(f"mask[{number}].spatial_scale: {scale}: blocks have one area here")
    most = keys.get("max_keep", None)
    config = MaskConfig(
        blocks=keys.whole("num_blocks", 1),
        scale=scale[0],
        aspect=_range(keys, "aspect_ratio", 1.0),
        temporal_scale=(low, high),
        max_temporal_keep=keys.number("max_temporal_keep", 1.0),
        max_keep=None if most is None else keys.whole("max_keep"),
        inverse=keys.flag("inv_block", False),
        equalise="truncate" if complement or other else "border",
        leftover="target" if complement else "context" if other else "drop",
    )
    if unread := keys.unread():
        raise ConfigError(f"mask[{number}] has unknown keys: {', '.join(unread)}")
    return config


def _range(keys: Table, key: str, default: float) -> tuple[float, float]:
    value = keys.get(key, default)
    if isinstance(value, list):
        return keys.pair(key)
    number = keys.number(key, default)
    return number, number
