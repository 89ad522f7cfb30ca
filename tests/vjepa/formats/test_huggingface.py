"""Hugging Face folders against transformers itself: same bits out, and back in."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from tubelet.core.errors import CheckpointError, ConfigError
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.formats.checkpoint import Checkpoint
from tubelet.vjepa.formats.hf_config import IJEPA_DEFAULTS, VJEPA2_DEFAULTS
from tubelet.vjepa.formats.huggingface import read_hf, write_hf
from tubelet.vjepa.positions import Grid, PositionConfig, sincos_table
from tubelet.vjepa.predictor import MaskedPredictor, PredictorConfig

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# (width, heads, depth, predictor width, its heads, crop, patch, MLP ratio)
SIZES = {
    "narrow": (48, 3, 3, 48, 2, 32, 16, 4.0),
    "wide heads": (160, 2, 2, 72, 3, 48, 16, 4.0),
    "narrow heads": (48, 6, 2, 48, 6, 32, 16, 4.0),
    "odd ratio": (88, 4, 2, 96, 6, 32, 8, 48 / 11),
}


def vjepa2(size, folder, seed=0):
    """A transformers V-JEPA 2 with random weights, saved in ``folder``."""
    width, heads, depth, pred, pred_heads, crop, patch, ratio = SIZES[size]
    config = transformers.VJEPA2Config(
        hidden_size=width,
        num_attention_heads=heads,
        num_hidden_layers=depth,
        mlp_ratio=ratio,
        crop_size=crop,
        patch_size=patch,
        frames_per_clip=4,
        pred_hidden_size=pred,
        pred_num_attention_heads=pred_heads,
        pred_num_hidden_layers=2,
        pred_num_mask_tokens=3,
        attn_implementation="sdpa",
    )
    model = transformers.VJEPA2Model(config).eval()
    randomise(model, seed)
    model.save_pretrained(folder)
    return model


def randomise(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1, generator=generator)


def video(crop, frames=4, batch=2):
    """transformers' [B, T, C, H, W]; ours has channels last."""
    return torch.randn(batch, frames, 3, crop, crop, generator=torch.Generator().manual_seed(5))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_vjepa2_gives_the_same_bits(size, tmp_path):
    theirs = vjepa2(size, tmp_path)
    ours, report = read_hf(tmp_path)
    assert len(report.mapped) == len(theirs.state_dict())
    assert not report.dropped
    x = video(theirs.config.crop_size)
    tokens = ours.encoder(x.movedim(2, -1), normalised=True)
    assert torch.equal(tokens, theirs(x, skip_predictor=True).last_hidden_state)

    side = theirs.config.crop_size // theirs.config.patch_size
    grid, count = Grid(2, side, side), tokens.shape[1]
    everywhere = torch.arange(count).expand(2, -1)
    out = theirs(x).predictor_output.last_hidden_state
    assert torch.equal(ours.predictor(tokens, everywhere, everywhere, grid, 1), out)

    order = torch.stack([torch.randperm(count, generator=torch.manual_seed(i)) for i in range(2)])
    context, target = order[:, : count // 3].sort(1).values, order[:, count // 3 :].sort(1).values
    out = theirs(x, context_mask=[context], target_mask=[target])
    seen = tokens.gather(1, context[..., None].expand(-1, -1, tokens.shape[-1]))
    predicted = ours.predictor(seen, context, target, grid, 1)
    assert torch.equal(predicted, out.predictor_output.last_hidden_state)


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_vjepa2_out_and_in_are_inverse(size, tmp_path):
    theirs = vjepa2(size, tmp_path / "hf")
    checkpoint, _ = read_hf(tmp_path / "hf")
    report = write_hf(checkpoint, tmp_path / "out")
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "out"))
    assert before.keys() == after.keys()
    assert set(report.mapped) == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)

    loaded, faults = transformers.VJEPA2Model.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(faults[kind] for kind in faults), faults
    for key in VJEPA2_DEFAULTS:
        assert getattr(loaded.config, key) == pytest.approx(getattr(theirs.config, key))
    x = video(theirs.config.crop_size)
    assert torch.equal(loaded(x).last_hidden_state, theirs(x).last_hidden_state)

    again, _ = read_hf(tmp_path / "out")
    for name, part in checkpoint.parts().items():
        state = again.parts()[name].state_dict()
        assert part.config.heads == again.parts()[name].config.heads
        assert all(torch.equal(value, state[key]) for key, value in part.state_dict().items())


def test_defaults_that_a_config_leaves_out_are_transformers_own():
    ours = {"vjepa2": VJEPA2_DEFAULTS, "ijepa": IJEPA_DEFAULTS}
    theirs = {"vjepa2": transformers.VJEPA2Config(), "ijepa": transformers.IJepaConfig()}
    for kind, defaults in ours.items():
        assert defaults == {key: getattr(theirs[kind], key) for key in defaults}


def ijepa(folder, eps=1e-6):
    config = transformers.IJepaConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=192,
        image_size=56,
        patch_size=14,
        layer_norm_eps=eps,
        attn_implementation="sdpa",
    )
    model = transformers.IJepaModel(config).eval()
    randomise(model, 1)
    table = sincos_table(Grid(1, 4, 4), 48, axes="wh")
    model.embeddings.position_embeddings.data = table.unsqueeze(0).clone()
    model.save_pretrained(folder)
    return model


@torch.no_grad()
def test_ijepa_gives_the_same_bits_and_goes_back(tmp_path):
    theirs = ijepa(tmp_path / "hf")
    ours, report = read_hf(tmp_path / "hf")
    assert list(report.regenerated) == [f"{tmp_path / 'hf'}: embeddings.position_embeddings"]
    x = video(56, frames=1)
    tokens = ours.encoder(x.movedim(2, -1), normalised=True)
    torch.testing.assert_close(tokens, theirs(x[:, 0]).last_hidden_state, rtol=1e-6, atol=1e-6)
    assert torch.equal(tokens, theirs(x[:, 0]).last_hidden_state)

    write_hf(ours, tmp_path / "out")
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    loaded, faults = transformers.IJepaModel.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(faults[kind] for kind in faults), faults
    assert torch.equal(loaded(x[:, 0]).last_hidden_state, theirs(x[:, 0]).last_hidden_state)


def classifier(size, folder, labels=5):
    theirs = vjepa2(size, folder)
    names = {i: f"class {i}" for i in range(labels)}
    config = transformers.VJEPA2Config(
        **{**theirs.config.to_dict(), "id2label": names, "num_pooler_layers": 2}
    )
    config._attn_implementation = "sdpa"
    model = transformers.VJEPA2ForVideoClassification(config).eval()
    randomise(model, 3)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_classification_gives_the_same_bits_and_goes_back(size, tmp_path):
    theirs = classifier(size, tmp_path / "hf")
    ours, report = read_hf(tmp_path / "hf")
    assert ours.probe.config.heads == theirs.config.num_attention_heads
    assert ours.provenance.labels == tuple(f"class {i}" for i in range(5))
    assert any("eps 1e-06" in note for note in report.notes)
    x = video(theirs.config.crop_size)
    logits = ours.probe(ours.encoder(x.movedim(2, -1), normalised=True))
    assert torch.equal(logits, theirs(x).logits)

    write_hf(ours, tmp_path / "out")
    before, after = (load_file(tmp_path / f / "model.safetensors") for f in ("hf", "out"))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    loaded, faults = transformers.VJEPA2ForVideoClassification.from_pretrained(
        tmp_path / "out", output_loading_info=True
    )
    assert not any(faults[kind] for kind in faults), faults
    assert torch.equal(loaded(x).logits, theirs(x).logits)
    assert loaded.config.id2label == theirs.config.id2label


@torch.no_grad()
def test_how_transformers_classifiers_differ_from_the_published_is_named(tmp_path):
    theirs = classifier("wide heads", tmp_path / "hf")  # 2 heads in the encoder
    trained, report = read_hf(tmp_path / "hf", probe_as="published")
    assert (trained.probe.config.heads, trained.probe.config.eps) == (16, 1e-5)
    assert "eps 1e-05, 16 heads" in report.notes[-1]
    x = video(theirs.config.crop_size)
    logits = trained.probe(trained.encoder(x.movedim(2, -1), normalised=True))
    assert not torch.allclose(logits, theirs(x).logits, atol=1e-4)
    with pytest.raises(CheckpointError, match=r"16 heads.*the encoder's 2, another function"):
        write_hf(trained, tmp_path / "out")
    report = write_hf(trained, tmp_path / "out", accept_heads=True)
    assert any("another function" in note for note in report.notes)
    assert any("eps 1e-05" in note for note in report.notes)


def test_trained_with_another_eps_only_is_close(tmp_path):
    classifier("narrow", tmp_path / "hf")
    ours, _ = read_hf(tmp_path / "hf")
    same = read_hf(tmp_path / "hf")[0].probe
    for module in same.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    with torch.no_grad():
        tokens = torch.randn(2, 8, 48, generator=torch.manual_seed(0))
        gap = (same(tokens) - ours.probe(tokens)).abs().max()
    assert 0 < gap < 1e-3


def edit(folder, **changes):
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({k: v for k, v in config.items() if v is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 96}, r"does not fit its config.json.*\[48\] in the file, \[96\] wanted"),
        ({"num_hidden_layers": 2}, r"\d+ unexpected: encoder.layer.2.attention.key.bias"),
        ({"num_hidden_layers": 4}, r"16 missing: encoder.layer.3.attention.key.bias"),
        (
            {"pred_num_mask_tokens": 10},
            r"mask_tokens: \[3, 1, 1, 48\] in the file, \[10, 1, 1, 48\]",
        ),
        ({"num_attention_heads": 5}, r"not divisible by heads = 5"),
        ({"hidden_size": "48"}, r"hidden_size = '48' is no int"),
        ({"qkv_bias": False}, r"qkv_bias = False"),
        ({"layer_norm_eps": 1e-5}, r"layer_norm_eps = 1e-05"),
        ({"model_type": "vit"}, r"model_type = 'vit': only"),
        ({"model_type": ...}, r"model_type = None"),
    ],
)
def test_a_config_that_disagrees_with_the_weights(changes, message, tmp_path):
    vjepa2("narrow", tmp_path)
    edit(tmp_path, **changes)
    with pytest.raises(CheckpointError, match=message):
        read_hf(tmp_path)


def test_a_name_that_is_not_the_configs(tmp_path):
    vjepa2("narrow", tmp_path)
    with pytest.raises(CheckpointError, match=r"is not vjepa2-l: its config.json is that of no"):
        read_hf(tmp_path, name="vjepa2-l")
    with pytest.raises(ConfigError, match="did you mean"):
        read_hf(tmp_path, name="vjepa2-X")


def test_shards(tmp_path):
    model = vjepa2("narrow", tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="100KB")
    shards = sorted((tmp_path / "many").glob("*.safetensors"))
    assert len(shards) > 1
    one, many = (read_hf(tmp_path / f)[0].encoder.state_dict() for f in ("one", "many"))
    assert all(torch.equal(one[key], many[key]) for key in one)
    lost = shards[-1].rename(tmp_path / "lost")
    missing = f"1 of {len(shards)} shards are missing: {shards[-1].name}"
    with pytest.raises(CheckpointError, match=missing):
        read_hf(tmp_path / "many")
    tensors = load_file(lost)
    first = sorted(tensors)[0]
    del tensors[first]
    save_file(tensors, shards[-1])
    with pytest.raises(CheckpointError, match=f"disagree on 1 keys: {first}"):
        read_hf(tmp_path / "many")


def test_no_weights_in_the_folder_names_what_is_there(tmp_path):
    vjepa2("narrow", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"neither model.safetensors nor .*config.json"):
        read_hf(tmp_path)


def test_ijepas_other_eps_is_named(tmp_path):
    ijepa(tmp_path, eps=1e-12)
    assert "trained with 1e-6" in read_hf(tmp_path)[1].notes[0]


def test_learned_positions_are_no_ijepa(tmp_path):
    ijepa(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["embeddings.position_embeddings"] += 0.1
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"position_embeddings is not the wh .* up to 0.1"):
        read_hf(tmp_path)


def test_what_transformers_does_not_have_is_not_written(tmp_path):
    encoder = EncoderConfig(width=48, depth=2, heads=2, position=PositionConfig(span=16))
    plain = Checkpoint(TubeletEncoder(encoder))
    with pytest.raises(CheckpointError, match=r"an encoder and a masked predictor.*has encoder"):
        write_hf(plain, tmp_path / "out", crop=32)
    predictor = MaskedPredictor(
        PredictorConfig(width=48, depth=1, heads=2, context_head=True), latent_dim=48
    )
    both = Checkpoint(TubeletEncoder(encoder), predictor)
    with pytest.raises(CheckpointError, match=r"encoder.position.*predictor.context_head = True"):
        write_hf(both, tmp_path / "out", crop=32)
    vjepa2("narrow", tmp_path / "hf")
    good = read_hf(tmp_path / "hf")[0]
    with pytest.raises(CheckpointError, match=r"crop = 40: give .* a multiple of 16"):
        write_hf(good, tmp_path / "out", crop=40)
    assert not (tmp_path / "out").exists()
