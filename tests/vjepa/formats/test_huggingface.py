"""Hugging Face folders against transformers itself: same bits out, and back in."""

import pytest
import torch
from safetensors.torch import load_file

from tubelet.vjepa.formats.hf_config import IJEPA_DEFAULTS, VJEPA2_DEFAULTS
from tubelet.vjepa.formats.huggingface import read_hf, write_hf
from tubelet.vjepa.positions import Grid, sincos_table

transformers = pytest.importorskip("transformers")
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# (width, heads, depth, predictor width, its heads, crop, patch, MLP ratio)
SIZES = {
    "narrow": (48, 3, 3, 48, 2, 32, 16, 4.0),
    "wide heads": (160, 2, 2, 72, 3, 48, 16, 4.0),
    "odd ratio": (88, 4, 2, 96, 12, 32, 8, 48 / 11),
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
