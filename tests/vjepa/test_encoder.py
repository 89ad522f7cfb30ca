"""The tubelet encoder against straightforward oracles."""

import pytest
import torch
import torch.nn.functional as F

from tubelet.core.errors import ConfigError
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.positions import SINCOS, Grid, PositionConfig

ROPE = PositionConfig()


def make(position=ROPE, **changes):
    settings = {"width": 24, "depth": 2, "heads": 2, "patch": 4, "tubelet": 2}
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(position=position, **{**settings, **changes}))
    with torch.no_grad():  # far from the small initial weights, so that attention matters
        for parameter in encoder.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return encoder.eval()


def clip(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


POSITIONS = pytest.mark.parametrize("position", [ROPE, SINCOS], ids=["rope", "sincos"])


def test_patch_embedding_is_the_convolution_of_the_normalised_clip():
    encoder = make()
    c = encoder.config
    video = clip(2, 4, 8, 12)
    pixels = (video.float() / 255 - torch.tensor(c.pixel_mean)) / torch.tensor(c.pixel_std)
    wanted = F.conv3d(
        pixels.permute(0, 4, 1, 2, 3),
        encoder.patch_embed.weight,
        encoder.patch_embed.bias,
        stride=(c.tubelet, c.patch, c.patch),
    )
    got = encoder._linear(encoder.patch_embed, encoder.patchify(video, c.grid(4, 8, 12)))
    assert torch.allclose(got, wanted.flatten(2).transpose(1, 2), atol=1e-4)


@POSITIONS
def test_keeping_every_token_is_keeping_none_out(position):
    encoder, video = make(position), clip(2, 4, 8, 12)
    every = torch.arange(12).expand(2, -1)
    assert torch.allclose(encoder(video, keep=every), encoder(video), atol=1e-5)


@POSITIONS
def test_tokens_come_in_the_order_of_keep(position):
    encoder, video = make(position), clip(2, 4, 8, 8)
    keep = torch.tensor([[0, 3, 5, 6], [1, 2, 4, 7]])
    order = torch.tensor([2, 0, 3, 1])
    got, shuffled = encoder(video, keep=keep), encoder(video, keep=keep[:, order])
    assert torch.allclose(shuffled, got[:, order], atol=1e-5)


@POSITIONS
def test_tokens_left_out_have_no_influence(position):
    encoder, video = make(position), clip(1, 4, 8, 8)
    keep = torch.tensor([[0, 3, 5, 6]])  # tokens 0..3 are the first two frames
    other = video.clone()
    other[:, :2, :4, 4:] = 255 - other[:, :2, :4, 4:]  # token 1
    assert torch.equal(encoder(other, keep=keep), encoder(video, keep=keep))
    assert not torch.allclose(encoder(other), encoder(video), atol=1e-3)


@POSITIONS
def test_clips_of_a_batch_do_not_meet(position):
    encoder, video = make(position), clip(3, 2, 8, 8)
    alone = torch.cat([encoder(video[i : i + 1]) for i in range(3)])
    assert torch.allclose(encoder(video), alone, atol=1e-5)


@POSITIONS
def test_position_matters(position):
    encoder = make(position)
    video = clip(1, 2, 8, 8)
    swapped = torch.cat([video[:, :, :, 4:], video[:, :, :, :4]], dim=3)
    tokens, other = encoder(video), encoder(swapped)
    assert not torch.allclose(tokens[:, [1, 0, 3, 2]], other, atol=1e-2)


@pytest.mark.parametrize(
    ("shape", "grid"),
    [((2, 4, 4), (1, 1, 1)), ((6, 8, 20), (3, 2, 5)), ((2, 40, 4), (1, 10, 1))],
)
def test_any_size_the_tubelet_divides(shape, grid):
    encoder = make()
    assert encoder.config.grid(*shape) == Grid(*grid)
    assert encoder(clip(1, *shape)).shape == (1, Grid(*grid).size, 24)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 8, 8), "frames = 3 .* nearest valid frames: 4"),
        ((2, 9, 8), "height = 9 .* nearest valid height: 8"),
        ((2, 8, 11), "width = 11 .* nearest valid width: 12"),
        ((1, 8, 8), "frames = 1 .* nearest valid frames: 2"),
        ((2, 8, 1), "width = 1 .* nearest valid width: 4"),
    ],
)
def test_other_sizes_are_refused_naming_the_nearest(shape, message):
    with pytest.raises(ConfigError, match=message):
        make()(clip(1, *shape))


@pytest.mark.parametrize(
    "video",
    [torch.zeros(1, 2, 8, 8, 3), torch.zeros(2, 8, 8, 3).byte(), torch.zeros(1, 3, 2, 8, 8).byte()],
)
def test_only_uint8_clips_with_channels_last(video):
    with pytest.raises(ConfigError, match="uint8"):
        make()(video)


@pytest.mark.parametrize(
    "bad",
    [
        {"width": 25},
        {"depth": 0},
        {"patch": 0},
        {"width": 24, "heads": 12},  # two channels a head: no room for three axes
    ],
)
def test_impossible_configs(bad):
    with pytest.raises(ConfigError):
        EncoderConfig(**{"width": 24, "heads": 2, **bad})


def test_output_is_layer_normed_and_initialisation_draws_depth_scaled_outputs():
    encoder = TubeletEncoder(EncoderConfig(width=96, depth=4, heads=3, patch=4))
    tokens = encoder(clip(1, 2, 8, 8))
    assert torch.allclose(tokens.mean(-1), torch.zeros(1, 4), atol=1e-5)
    assert torch.allclose(tokens.std(-1, unbiased=False), torch.ones(1, 4), atol=1e-3)
    stds = [block.mlp.fc2.weight.std().item() for block in encoder.blocks]
    for i, std in enumerate(stds, start=1):
        assert std == pytest.approx(0.02 / (2 * i) ** 0.5, rel=0.05)


def test_pixel_constants_are_not_part_of_the_weights():
    assert not any(name.startswith("pixel") for name in make().state_dict())


# --- what the members of the family add -------------------------------------------------------


@POSITIONS
def test_packing_selections_is_encoding_each(position):
    encoder, video = make(position), clip(2, 4, 8, 12)
    keeps = [torch.tensor([[0, 3, 11], [2, 5, 7]]), torch.tensor([[1, 2, 4, 6, 10]] * 2)]
    packed = encoder.packed(video, keeps)
    for got, keep in zip(packed, keeps, strict=True):
        assert torch.allclose(got, encoder(video, keep), atol=1e-5)
    sum(x.square().sum() for x in packed).backward()
    assert all(p.grad is not None for p in encoder.parameters())


def test_normalised_clips_give_the_tokens_of_their_bytes():
    encoder, video = make(), clip(2, 4, 8, 12)
    c = encoder.config
    pixels = (video.float() / 255 - torch.tensor(c.pixel_mean)) / torch.tensor(c.pixel_std)
    keep = torch.tensor([[1, 4], [0, 11]])
    assert torch.allclose(encoder(pixels, normalised=True), encoder(video), atol=1e-4)
    assert torch.allclose(encoder(pixels, keep, normalised=True), encoder(video, keep), atol=1e-4)


def test_levels_are_the_normed_tokens_after_their_blocks():
    encoder, video = make(depth=3, levels=(1, 3)), clip(2, 4, 8, 12)
    tokens = []
    for block in encoder.blocks:
        block.register_forward_hook(lambda _m, _i, out: tokens.append(out))
    both = encoder(video, all_levels=True)
    assert both.shape == (2, 12, 48)
    assert torch.equal(both[..., :24], encoder.norms[0](tokens[0]))
    assert torch.equal(both[..., 24:], encoder.norms[1](tokens[2]))
    assert torch.equal(encoder(video), both[..., 24:])


@pytest.mark.parametrize("levels", [(1,), (2, 1, 3), (0, 3), (1, 1, 3), (1, 4)])
def test_impossible_levels_are_refused(levels):
    with pytest.raises(ConfigError, match=r"levels = \("):
        EncoderConfig(width=24, depth=3, heads=2, levels=levels)


def test_an_image_has_its_own_tokenizer_and_mark():
    encoder = make(image_patches=True, modality=True)
    image, video = clip(2, 1, 8, 12), clip(2, 2, 8, 12)
    assert encoder(image).shape == encoder(video).shape == (2, 6, 24)
    before = encoder(image), encoder(video)
    with torch.no_grad():
        encoder.image_mark.add_(1.0 + torch.arange(24))
        encoder.image_embed.weight.mul_(2)
    assert not torch.allclose(encoder(image), before[0])
    assert torch.equal(encoder(video), before[1])
    with pytest.raises(ConfigError, match="frames = 1"):
        make()(image)


def test_an_image_model_takes_single_frames():
    encoder = make(PositionConfig(kind="sincos", axes="wh"), tubelet=1)
    assert encoder(clip(2, 1, 8, 12)).shape == (2, 6, 24)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@POSITIONS
def test_casting_the_module_works_in_low_precision(dtype, position):
    encoder, video = make(position), clip(1, 4, 8, 8)
    full = encoder(video)
    half = encoder.to(dtype)(video)
    assert half.dtype == dtype
    assert (half.float() - full).abs().mean() < 0.05


def test_bytes_are_not_taken_for_normalised_pixels():
    with pytest.raises(ConfigError, match="floating"):
        make()(clip(1, 2, 8, 8), normalised=True)
