"""Meta's training YAMLs: every key goes somewhere, and the values are the published ones."""

from dataclasses import replace

import numpy as np
import pytest
import yaml

from tubelet.cli.main import main
from tubelet.core.config import from_toml, load_config, to_toml
from tubelet.core.errors import ConfigError
from tubelet.datasets.mixture import read_mixture
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa import presets
from tubelet.vjepa.meta_yaml import import_meta
from tubelet.vjepa.optim import learning_rate
from tubelet.vjepa.recipes import PretrainRunConfig, pretrain_encoder

VITL = """
app: vjepa
folder: /your_folder/pretrain/16.8.vitl.256px.16f
nodes: 16
tasks_per_node: 8
cpus_per_task: 16
mem_per_gpu: 220G
data:
  dataset_type: VideoDataset
  datasets: [/your_data/k710.csv, /your_data/ssv2.csv, /your_data/howto.csv]
  datasets_weights: [0.335, 0.1, 0.565]
  dataset_fpcs: [16, 16, 16]
  batch_size: 24
  tubelet_size: 2
  fps: 4
  crop_size: 256
  patch_size: 16
  pin_mem: true
  num_workers: 8
  persistent_workers: true
data_aug:
  auto_augment: false
  motion_shift: false
  random_resize_aspect_ratio: [0.75, 1.35]
  random_resize_scale: [0.3, 1.0]
  reprob: 0.0
loss:
  loss_exp: 1.0
mask:
- {aspect_ratio: [0.75, 1.5], full_complement: false, max_keep: null, max_temporal_keep: 1.0,
   num_blocks: 8, spatial_scale: [0.15, 0.15], temporal_scale: [1.0, 1.0]}
- {aspect_ratio: [0.75, 1.5], full_complement: false, max_keep: null, max_temporal_keep: 1.0,
   num_blocks: 2, spatial_scale: [0.7, 0.7], temporal_scale: [1.0, 1.0]}
meta:
  dtype: bfloat16
  eval_freq: 100
  load_checkpoint: true
  read_checkpoint: null
  save_every_freq: 50
  seed: 239
  use_sdpa: true
model:
  model_name: vit_large
  pred_depth: 12
  pred_embed_dim: 384
  pred_num_heads: 12
  uniform_power: true
  use_activation_checkpointing: true
  use_mask_tokens: true
  use_rope: true
  zero_init_mask_tokens: true
optimization:
  ema: [0.99925, 0.99925]
  epochs: 10
  final_lr: 0.000525
  final_weight_decay: 0.04
  ipe: 300
  ipe_scale: 1.25
  lr: 0.000525
  start_lr: 0.0001
  warmup: 40
  weight_decay: 0.04
"""

IJEPA = """
data:
  batch_size: 128
  color_jitter_strength: 0.0
  crop_scale: [0.3, 1.0]
  crop_size: 224
  image_folder: imagenet_full_size/061417/
  num_workers: 10
  pin_mem: true
  root_path: $your_directory
  use_color_distortion: false
  use_gaussian_blur: false
  use_horizontal_flip: false
logging: {folder: $your_logs, write_tag: jepa}
mask:
  allow_overlap: false
  aspect_ratio: [0.75, 1.5]
  enc_mask_scale: [0.85, 1.0]
  min_keep: 10
  num_enc_masks: 1
  num_pred_masks: 4
  patch_size: 14
  pred_mask_scale: [0.15, 0.2]
meta: {copy_data: false, load_checkpoint: false, model_name: vit_huge, pred_depth: 12,
  pred_emb_dim: 384, read_checkpoint: null, use_bfloat16: true}
optimization: {ema: [0.996, 1.0], epochs: 300, final_lr: 1.0e-06, final_weight_decay: 0.4,
  ipe_scale: 1.0, lr: 0.001, start_lr: 0.0002, warmup: 40, weight_decay: 0.04}
"""


def vitl():
    return yaml.safe_load(VITL)


def vitg():
    table = vitl()
    table["model"]["model_name"] = "vit_giant_xformers"
    table["optimization"]["epochs"] = 800
    return table


def cooldown():
    """ViT-g at 384 pixels."""
    table = vitg()
    table |= {"nodes": 64}
    table["data"] |= {"batch_size": 6, "dataset_fpcs": [64, 64, 64], "crop_size": 384}
    table["optimization"] |= {
        "is_anneal": True,
        "anneal_ckpt": "/your_folder/e0.pt",
        "resume_anneal": True,
        "warmup": 0,
        "epochs": 40,
        "start_lr": 0.000525,
        "final_lr": "1e-6",
    }
    return table


def vjepa1():
    table = vitl()
    del table["model"]["use_rope"], table["data"]["fps"], table["data"]["dataset_fpcs"]
    table["data"] |= {
        "num_frames": 16,
        "sampling_rate": 4,
        "crop_size": 224,
        "num_clips": 1,
        "decode_one_clip": True,
        "filter_short_videos": False,
        "clip_duration": None,
    }
    del table["model"]["pred_num_heads"]
    table["loss"]["reg_coeff"] = 0.0
    table["logging"] = {"folder": "/your_folder", "write_tag": "jepa"}
    table["optimization"] |= {
        "clip_grad": 10.0,
        "betas": [0.9, 0.99],
        "ema": [0.998, 1.0],
        "epochs": 300,
        "final_lr": 1e-6,
        "final_weight_decay": 0.4,
        "lr": 0.000625,
        "start_lr": 0.0002,
    }
    return table


def test_vit_g_is_our_giant_preset_but_for_what_the_file_says_otherwise():
    config = import_meta(vitg()).config
    want = presets.preset("giant")
    train = config.train
    assert train.encoder == replace(want.encoder, position=train.encoder.position)
    assert train.encoder.position.pairs == "tiled"
    assert (train.predictor.width, train.predictor.depth, train.predictor.heads) == (384, 12, 12)
    assert train.predictor.zero_mask_tokens
    assert train.objective == want.objective
    assert train.masks == want.masks
    assert train.batch_size == 3072
    assert train.seed == 239
    loop = train.loop
    assert (loop.steps, loop.save_every, loop.precision) == (240_000, 300, "bf16")
    assert loop.checkpoint_blocks
    for step in (0, 5000, 12_000, 239_999):
        got = learning_rate(train.optim, step, loop.steps)
        assert got == pytest.approx(learning_rate(want.optim, step, 240_000))
    assert config.clips == replace(presets.clips("giant"), size=256)
    assert config.augmentation.ratio == (0.75, 1.35)
    assert config.workers == 8


def test_vit_l_says_that_its_warm_up_is_longer_than_the_run():
    imported = import_meta(vitl())
    train = imported.config.train
    assert (train.encoder.width, train.encoder.depth, train.loop.steps) == (1024, 24, 3000)
    assert learning_rate(train.optim, 3000, 3000) == pytest.approx(1e-4 + 4.25e-4 / 4)
    notes = "\n".join(imported.notes)
    for text in ("10 are fewer than warmup: 40", "ipe_scale: 1.25", "--videos", "--out", "3072"):
        assert text in notes
    assert imported.unknown == ()


def test_the_cool_down_ends_where_the_published_one_does():
    imported = import_meta(cooldown())
    train = imported.config.train
    assert train.loop.steps == 12_000
    assert learning_rate(train.optim, 0, 12_000) == pytest.approx(5.25e-4)
    assert learning_rate(train.optim, 12_000, 12_000) == pytest.approx(1.058e-4)
    assert imported.config.clips.frames == 64
    assert imported.config.clips.size == 384
    assert any("--start-from" in note for note in imported.notes)


def test_vjepa_1():
    train = import_meta(vjepa1()).config.train
    assert train.encoder.position.kind == "sincos"
    assert train.encoder.position.axes == "thw"
    assert train.predictor.heads == 16
    assert train.objective.target.momentum == (0.998, 1.0)
    assert train.optim == replace(
        train.optim,
        clip=10.0,
        betas=(0.9, 0.99),
        schedule="cosine",
        stretch=1.25,
        warmup_steps=12_000,
    )
    assert import_meta(vjepa1()).config.clips.frame_step == 4


def test_ijepa_needs_the_length_of_an_epoch():
    with pytest.raises(ConfigError, match="--steps-per-epoch"):
        import_meta(yaml.safe_load(IJEPA))
    imported = import_meta(yaml.safe_load(IJEPA), steps_per_epoch=625)
    config = imported.config
    assert config.train.loop.steps == 187_500
    assert config.train.encoder.patch == 14
    assert config.train.masks.style == "image"
    assert config.train.masks.image.min_keep == 10
    assert config.train.objective.regress.kind == "smooth_l1"
    assert config.train.optim.warmup_steps == 25_000
    assert config.augmentation.flip == 0
    assert "--images" in "\n".join(imported.notes)


@pytest.mark.parametrize("make", [vitl, vitg, cooldown, vjepa1])
def test_results_survive_a_file(make):
    config = import_meta(make()).config
    assert from_toml(PretrainRunConfig, to_toml(config)) == config


def test_unknown_keys_are_refused_or_reported():
    table = vitl()
    table["model"]["pred_dept"] = 12
    table["optimisation"] = {"lr": 1.0}
    with pytest.raises(ConfigError, match=r"did you mean 'model.pred_depth'.*--allow-unknown"):
        import_meta(table)
    unknown = import_meta(table, allow_unknown=True).unknown
    assert [key.split(";")[0] for key in unknown] == ["model.pred_dept", "optimisation.lr"]


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("model", {"use_silu": True}, "model.use_silu"),
        ("model", {"model_name": "vit_enormous"}, "vit_enormous"),
        ("data", {"dataset_fpcs": [16, 64]}, "2 lengths for 3 weights"),
        ("data", {"dataset_fpcs": [16, 64, "a"]}, "not a list of clip lengths"),
        ("data", {"dataset_fpcs": []}, "not a list of clip lengths"),
        ("data", {"datasets_weights": [1, 1]}, "2 weights for 3 data.datasets"),
        ("data", {"datasets_weights": [1, 0, 1]}, "not a list of positive numbers"),
        ("data", {"batch_size": "many"}, "not a number"),
        ("data", {"batch_size": 1.5}, "not a whole number"),
        ("data_aug", {"reprob": 0.25}, "data_aug.reprob"),
        ("optimization", {"ema": 0.9}, "not a list of two numbers"),
    ],
)
def test_what_cannot_be_trained_here_is_an_error(section, change, message):
    table = vitl()
    table[section] |= change
    with pytest.raises(ConfigError, match=message):
        import_meta(table)


def test_datasets_of_several_lengths_become_buckets_with_their_weights():
    table = vitl()
    table["data"]["dataset_fpcs"] = [16, 64, 16]
    imported = import_meta(table)
    found = {(n, fps): share for n, fps, share in imported.config.clips.buckets}
    assert found == {(16, 4.0): pytest.approx(0.9), (64, 4.0): pytest.approx(0.1)}
    assert any("clips.buckets" in note for note in imported.notes)
    del table["data"]["datasets_weights"]
    found = {n: share for n, _, share in import_meta(table).config.clips.buckets}
    assert found[16] == 2 * found[64]
    table["data"]["sampling_rate"] = table["data"].pop("fps")
    with pytest.raises(ConfigError, match=r"several lengths need data\.fps"):
        import_meta(table)


def test_the_datasets_become_a_mixture(tmp_path):
    path = tmp_path / "mix.toml"
    table = vitl()
    path.write_text(import_meta(table).mixture)
    parts = [(part["videos"], part["weight"]) for part in read_mixture(path)]
    assert parts == list(
        zip(table["data"]["datasets"], table["data"]["datasets_weights"], strict=True)
    )
    table["data"] |= {"datasets": ['/a "b"\\c.csv'], "datasets_weights": None, "dataset_fpcs": [16]}
    path.write_text(import_meta(table).mixture)
    assert read_mixture(path)[0]["videos"] == '/a "b"\\c.csv'
    assert import_meta(vjepa1() | {"app": "vjepa"}).config.clips.buckets == ()


def test_other_apps_and_masks_are_errors():
    with pytest.raises(ConfigError, match="vjepa_droid"):
        import_meta(vitl() | {"app": "vjepa_droid"})
    table = vitl()
    table["mask"] = table["mask"][:1]
    with pytest.raises(ConfigError, match="two kinds"):
        import_meta(table)
    table = vitl()
    table["mask"][0]["num_block"] = 3
    with pytest.raises(ConfigError, match=r"mask\[0\] has unknown keys: num_block"):
        import_meta(table)


def test_the_misspelt_mlp_ratio_is_repeated_and_said():
    table = vitl()
    table["model"]["model_name"] = "vit_gigantic_xformers"
    imported = import_meta(table)
    assert imported.config.train.encoder.mlp_ratio == 4.0
    assert any("mpl_ratio" in note for note in imported.notes)


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [", "\udcff"])
def test_files_that_are_no_table(tmp_path, capsys, text):
    (tmp_path / "bad.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert main(["convert-config", str(tmp_path / "bad.yaml"), str(tmp_path / "out.toml")]) == 2
    assert "bad.yaml" in capsys.readouterr().err
    assert not (tmp_path / "out.toml").exists()


def test_the_command_writes_a_config_that_trains_when_scaled_down(tmp_path, capsys):
    (tmp_path / "vitl.yaml").write_text(VITL)
    out = tmp_path / "vitl.toml"
    command = ["convert-config", str(tmp_path / "vitl.yaml"), str(out)]
    assert main(command) == 0
    assert "wrote" in capsys.readouterr().out
    assert main(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    config = load_config(PretrainRunConfig, out)
    assert len(read_mixture(tmp_path / "vitl.mixture.toml")) == 3
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 255, (40, 32, 32, 3), dtype=np.uint8)
    write_video(tmp_path / "videos" / "a.mp4", frames, fps=10)
    train = config.train
    encoder = replace(train.encoder, width=48, depth=1, heads=3, patch=8)
    predictor = replace(train.predictor, width=24, depth=1, heads=2)
    small = replace(
        train,
        encoder=encoder,
        predictor=predictor,
        batch_size=2,
        loop=replace(train.loop, steps=2, report_every=1, save_every=2, precision="fp32"),
    )
    pretrain_encoder(
        replace(
            config,
            videos=str(tmp_path / "videos"),
            out=str(tmp_path / "run"),
            train=small,
            clips=replace(config.clips, size=32, frames=8),
            workers=0,
            device="cpu",
        )
    )
    assert (tmp_path / "run" / "checkpoints" / "latest").exists()
