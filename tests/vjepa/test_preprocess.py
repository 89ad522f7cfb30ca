"""Evaluation transforms against Pillow, torch's interpolation, NumPy and transformers."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tubelet.core.config import from_toml, to_toml
from tubelet.core.errors import ConfigError
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.preprocess import PRESETS, PreprocessConfig, normalised, preprocess

MEAN, STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])


def noise(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (*shape, 3), dtype=torch.uint8, generator=generator)


def smooth(frames, height, width):
    t = torch.arange(frames)[:, None, None, None]
    y, x = torch.linspace(0, 6, height)[:, None, None], torch.linspace(0, 9, width)[:, None]
    waves = torch.sin(3 * y + t + torch.arange(3)) + torch.cos(0.8 * x * y + torch.arange(3))
    return ((waves + 2) * 63).to(torch.uint8)


def pillow(frame, height, width):
    resized = Image.fromarray(frame.numpy()).resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized))


def bilinear(frame, height, width):
    """Bilinear interpolation without antialiasing, from its definition in float64."""

    def axis(length, size):
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.minimum(np.floor(at).astype(int), max(length - 2, 0))
        return low, np.minimum(low + 1, length - 1), at - low

    x = frame.numpy().astype(np.float64)
    low, high, part = axis(x.shape[0], height)
    x = x[low] * (1 - part)[:, None, None] + x[high] * part[:, None, None]
    low, high, part = axis(x.shape[1], width)
    return x[:, low] * (1 - part)[:, None] + x[:, high] * part[:, None]


def steps(a, b):
    """Largest and mean difference in steps of 255."""
    difference = (a.int() - b.int()).abs()
    return difference.max().item(), difference.float().mean().item()


# --- resizing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "frame", [noise(240, 320), smooth(1, 240, 320)[0]], ids=["noise", "smooth"]
)
@pytest.mark.parametrize("crop", [128, 224, 320])
def test_the_image_transform_is_pillows_to_the_bit(frame, crop):
    """Resize of the short side, centre crop and normalisation, frame by frame."""
    short = int(crop * 256 / 224)
    resized = pillow(frame, short, short * 320 // 240)
    top, left = (round((size - crop) / 2) for size in resized.shape[:2])
    wanted = resized[top : top + crop, left : left + crop]
    config = PRESETS["image"](crop=crop)
    assert torch.equal(preprocess(frame[None], config)[0], wanted)
    pixels = (wanted.numpy() / 255 - MEAN) / STD
    assert np.allclose(normalised(frame[None], config)[0], pixels, atol=1e-6)


@pytest.mark.parametrize("size", [(90, 120), (120, 90), (64, 64), (40, 130)])
def test_the_video_transform_interpolates_without_antialiasing(size):
    video = noise(3, *size)
    got = preprocess(video, PRESETS["vjepa"](crop=56))
    scale = 64 / min(size)
    height, width = (int(scale * side + 1e-9) for side in size)
    top, left = (round((side - 56) / 2) for side in (height, width))
    for frame, wanted in zip(got, video, strict=True):
        wanted = bilinear(wanted, height, width)[top : top + 56, left : left + 56]
        away = np.abs(frame.numpy() - wanted)
        assert away.max() < 0.5 + 1e-3  # the nearest integer, ties and float32 aside


def test_what_antialiasing_changes():
    """The measured differences that the module's text states."""
    video = {"noise": noise(1, 480, 640), "smooth": smooth(1, 480, 640)}
    plain, anti = PRESETS["vjepa"](crop=256), PRESETS["image"](crop=256)
    most, mean = steps(*(preprocess(video["noise"], c) for c in (plain, anti)))
    assert 18 < mean < 26
    most, mean = steps(*(preprocess(video["smooth"], c) for c in (plain, anti)))
    assert most <= 3
    assert mean < 0.4
    small = noise(1, 100, 140)  # enlarging: the same filter, other rounding
    assert steps(*(preprocess(small, c) for c in (plain, anti)))[0] <= 1


# --- Hugging Face ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(90, 121), (140, 90), (75, 75)])
@pytest.mark.parametrize("cpu", ["AVX2", "AVX512"])
def test_the_hugging_face_transform_follows_its_own_sizes_and_arithmetic(size, cpu, monkeypatch):
    """Its steps one by one: its rule for the size, the call torchvision makes for uint8 on such a
    CPU, its crop and its fused normalisation."""
    transforms = pytest.importorskip("transformers.image_transforms")
    video = noise(3, *size)
    planes = video.permute(0, 3, 1, 2).contiguous()
    short = int(56 * 256 / 224)
    height, width = transforms.get_resize_output_image_size(
        planes[0].numpy(), size=short, default_to_square=False, input_data_format="channels_first"
    )
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    x = planes if cpu == "AVX2" else planes.float()
    x = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True)
    x = x.round().to(torch.uint8) if cpu != "AVX2" else x
    top, left = int((height - 56) / 2.0), int((width - 56) / 2.0)
    x = x[..., top : top + 56, left : left + 56]
    mean, std = (torch.tensor(v) * (1.0 / (1 / 255)) for v in (MEAN.tolist(), STD.tolist()))
    wanted = (x.float() - mean[:, None, None]) / std[:, None, None]
    config = PRESETS["hf-vjepa2"](crop=56)
    assert torch.equal(preprocess(video, config), x.permute(0, 2, 3, 1))
    assert torch.equal(normalised(video, config).movedim(-1, -3), wanted)


@pytest.mark.parametrize("preset", ["hf-vjepa2", "hf-ijepa"])
def test_the_hugging_face_transforms_against_the_processors(preset):
    pytest.importorskip("torchvision", reason="transformers' processors need torchvision")
    import transformers

    video = noise(4, 90, 121)
    if preset == "hf-vjepa2":
        processor = transformers.VJEPA2VideoProcessor(crop_size=56)
        wanted = processor(video.numpy(), return_tensors="pt")["pixel_values_videos"][0]
    else:
        processor = transformers.ViTImageProcessor(size={"height": 56, "width": 56})
        frames = [frame.numpy() for frame in video]
        wanted = processor(frames, return_tensors="pt")["pixel_values"]
    assert torch.equal(normalised(video, PRESETS[preset](crop=56)).movedim(-1, -3), wanted)


@pytest.mark.parametrize(
    "frame", [noise(240, 320), smooth(1, 240, 320)[0]], ids=["noise", "smooth"]
)
@pytest.mark.parametrize(("cpu", "share"), [("AVX2", 0.01), ("AVX512", 0.25)])
def test_torchvisions_resize_is_pillows_within_one_step(frame, cpu, share, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: cpu)
    like_pillow = PreprocessConfig(crop=128, short_side=130, like="pillow")  # even margins
    like_torch = PreprocessConfig(crop=128, short_side=130, like="torchvision")
    got, wanted = (preprocess(frame[None], c) for c in (like_torch, like_pillow))
    most, mean = steps(got[..., 1:-1, 1:-1, :], wanted[..., 1:-1, 1:-1, :])
    assert most <= 1
    assert mean < share


def test_the_image_port_of_hugging_face_squashes_and_does_not_use_imagenets_statistics():
    frame = noise(1, 60, 90)
    got = normalised(frame, PRESETS["hf-ijepa"](crop=30))
    assert torch.allclose(
        got, preprocess(frame, PRESETS["hf-ijepa"](crop=30)) / 127.5 - 1, atol=1e-6
    )
    assert (
        steps(preprocess(frame, PRESETS["hf-ijepa"](crop=30))[0], pillow(frame[0], 30, 30))[0] <= 1
    )


# --- crops -----------------------------------------------------------------------------------


def coordinates(height, width):
    """A clip of one frame whose first two channels are the row and the column."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack([y, x, 0 * x], -1)[None].to(torch.uint8)


@pytest.mark.parametrize(
    ("like", "margin", "left"),
    [("opencv", 3, 2), ("opencv", 5, 2), ("pillow", 3, 2), ("torchvision", 3, 1)],
)
def test_an_odd_margin_is_halved_as_each_library_does(like, margin, left):
    config = PreprocessConfig(crop=40, short_side=40, like=like)
    assert preprocess(coordinates(40, 40 + margin), config)[0, 0, 0, 1] == left


@pytest.mark.parametrize("tall", [False, True])
def test_views_lie_along_the_long_side(tall):
    clip = coordinates(100, 40) if tall else coordinates(40, 100)
    got = preprocess(clip.expand(2, 4, -1, -1, -1), PRESETS["vjepa-views"](crop=40))
    assert got.shape == (2, 3, 4, 40, 40, 3)
    corners = got[1, :, 2, 0, 0, :2].tolist()
    starts = [0, 30, 60]
    assert corners == [[s, 0] if tall else [0, s] for s in starts]


def test_views_of_a_square_are_all_the_same():
    got = preprocess(noise(2, 40, 40), PRESETS["vjepa-views"](crop=40, views=2))
    assert torch.equal(got[0], got[1])


@pytest.mark.parametrize(
    ("size", "top", "left", "height", "width"),
    [
        ((180, 320), 0, 38, 180, 243),  # 16:9, as robot cameras: 1.35 * 180 wide
        ((90, 100), 0, 0, 90, 100),  # inside the aspects: all of it
        ((200, 90), 40, 0, 120, 90),  # tall: 90 / 0.75 high
    ],
)
def test_the_robot_transform_squashes_the_middle(size, top, left, height, width):
    config = PRESETS["vjepa2-ac"](crop=64)
    video = noise(2, *size)
    part = video[:, top : top + height, left : left + width]
    wanted = np.stack([bilinear(frame, 64, 64) for frame in part])
    pixels = normalised(video, config).double().numpy() * STD * 255 + MEAN * 255
    assert np.abs(pixels - wanted).max() < 1e-3  # not rounded, as published
    assert np.abs(preprocess(video, config).numpy() - wanted).max() < 0.5 + 1e-3


# --- shapes, encoder, errors -----------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_batches_are_their_clips(name):
    video = noise(2, 3, 50, 70)
    config = PRESETS[name](crop=32)
    for function, dtype in ((preprocess, torch.uint8), (normalised, torch.float32)):
        got = function(video, config)
        assert got.dtype == dtype
        assert got.shape[-4:] == (3, 32, 32, 3)
        assert torch.equal(got, torch.stack([function(clip, config) for clip in video]))


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_a_constant_clip_stays_constant(name):
    video = torch.full((1, 37, 53, 3), 200, dtype=torch.uint8)
    assert (preprocess(video, PRESETS[name](crop=32)) == 200).all()


def test_the_encoder_takes_either_form():
    torch.manual_seed(0)
    encoder = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=8))
    video, config = noise(1, 2, 50, 70), PRESETS["vjepa2"](crop=32)
    with torch.no_grad():
        tokens = encoder(preprocess(video, config))
        assert torch.allclose(
            encoder(normalised(video, config), normalised=True), tokens, atol=1e-4
        )


@pytest.mark.parametrize(("name", "crop", "short"), [("vjepa2", 256, 292), ("vjepa2", 384, 438)])
def test_the_familys_short_side(name, crop, short):
    assert PRESETS[name](crop=crop).resized_short_side == short


def test_the_config_survives_a_file():
    for preset in PRESETS.values():
        assert from_toml(PreprocessConfig, to_toml(preset())) == preset()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"crop": 0}, "crop = 0"),
        ({"short_side": 255}, "short_side = 255: must be at least crop = 256"),
        ({"views": 1}, "views = 1: must be 2 or more"),
        ({"aspect": (2.0, 1.0)}, "aspect = "),
        ({"kind": "random"}, "kind = 'random': choose"),
        ({"like": "cv2"}, "like = 'cv2': choose opencv"),
        ({"pixel_std": (1.0, 0.0, 1.0)}, "pixel_std = "),
    ],
)
def test_impossible_configs_are_refused(changes, said):
    with pytest.raises(ConfigError, match=said):
        PreprocessConfig(**changes)


@pytest.mark.parametrize(
    "video",
    [
        torch.zeros(2, 8, 8, 3),
        torch.zeros(2, 3, 8, 8, dtype=torch.uint8),
        torch.zeros(8, 8, 3, dtype=torch.uint8),
        torch.zeros(0, 8, 8, 3, dtype=torch.uint8),
    ],
    ids=["float", "channels first", "one frame", "empty"],
)
def test_other_inputs_are_refused(video):
    with pytest.raises(ConfigError, match=r"video must be uint8 \[T, H, W, 3\]"):
        preprocess(video, PRESETS["vjepa"]())
