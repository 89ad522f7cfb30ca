"""Pictures of clips: every pixel of what is shown, seen and hidden."""

import io
import json
from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from PIL import Image

from tubelet.benchmarks.clip_pictures import (
    SIDE,
    example_clip,
    feature_pictures,
    mask_strip,
    masked_frames,
    strip,
)
from tubelet.core.errors import DatasetError
from tubelet.datasets.clips import ClipConfig
from tubelet.datasets.video_writer import write_video
from tubelet.vjepa.encoder import EncoderConfig, TubeletEncoder
from tubelet.vjepa.positions import Grid
from tubelet.vjepa.presets import debug
from tubelet.vjepa.pretrain import with_objective
from tubelet.vjepa.pretrain_recipe import PretrainRunConfig


def clip(frames=4, side=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (frames, side, side, 3), dtype=torch.uint8, generator=generator)


def test_seen_tokens_are_as_they_are_and_hidden_ones_tinted():
    video, grid = clip(), Grid(2, 4, 4)
    shown = masked_frames(video, grid, torch.tensor([0, 21]), torch.tensor([5]))
    assert np.array_equal(shown[:2, :8, :8], video[:2, :8, :8])  # token 0: first two frames
    assert np.array_equal(shown[2:, 8:16, 8:16], video[2:, 8:16, 8:16])  # 21: second row, column
    tint = np.rint(0.3 * video[:2, 8:16, 8:16].numpy() + 0.7 * np.array([59, 139, 208]))
    assert np.abs(shown[:2, 8:16, 8:16] - tint).max() <= 1
    rest = shown[2:, :8, :8]
    assert np.array_equal(rest[..., 0], rest[..., 1])
    assert np.array_equal(rest[..., 0], rest[..., 2])


def picture(content):
    return np.array(Image.open(io.BytesIO(content)))


def test_a_strip_has_a_row_for_each_film_and_a_column_for_each_moment():
    video = clip(frames=8).numpy()
    image = picture(strip([video, 255 - video], Grid(4, 4, 4)))
    side = SIDE // 32 * 32
    assert image.shape == (2 * (side + 4), 4 * (side + 4), 3)
    factor = SIDE // 32
    assert np.array_equal(image[:side:factor, :side:factor], video[0])
    second = image[:side:factor, side + 4 : 2 * side + 4 : factor]
    assert np.array_equal(second, video[2])  # the first frame of the second tubelet
    assert np.array_equal(image[side + 4 : -4 : factor, :side:factor], 255 - video[0])


@pytest.mark.parametrize(
    ("objective", "frames", "kinds"), [("vjepa2", 4, 2), ("ijepa", 1, 1), ("vjepa2.1", 4, 2)]
)
def test_masks_are_shown_by_kind(objective, frames, kinds):
    base = debug()
    base = replace(base, encoder=replace(base.encoder, depth=4))
    image, names = mask_strip(clip(frames), with_objective(base, objective))
    assert len(names) == kinds
    assert picture(image).shape[0] == (1 + kinds) * (SIDE + 4)


def test_features_come_as_a_strip_and_a_film():
    encoder = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=8)).eval()
    image, film = feature_pictures(encoder, clip())
    assert picture(image).shape == (2 * (SIDE + 4), 2 * (SIDE + 4), 3)
    with av.open(io.BytesIO(film)) as container:
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert [frame.shape for frame in frames] == [(SIDE, 2 * SIDE, 3)] * 4
    one = TubeletEncoder(EncoderConfig(width=24, depth=1, heads=2, patch=8, tubelet=1)).eval()
    assert feature_pictures(one, clip(1))[1] is None


def test_the_example_is_the_first_file_that_gives_a_clip(tmp_path):
    config = PretrainRunConfig(
        videos="films", clips=ClipConfig(frames=4, size=32), train=debug(), augment=False
    )
    with pytest.raises(DatasetError, match="keeps no index"):
        example_clip(tmp_path, config)
    write_video(tmp_path / "short.mp4", np.zeros((2, 32, 32, 3), np.uint8), fps=10)
    levels = np.arange(0, 90, 10, dtype=np.uint8)[:, None, None, None]
    write_video(tmp_path / "good.mp4", np.broadcast_to(levels, (9, 32, 32, 3)), fps=10)
    lines = [{"format": "tubelet-video-index"}, {"path": "bad.mp4", "reason": "empty"}]
    names = ("missing.mp4", "short.mp4")
    lines += [{"path": str(tmp_path / name)} for name in names]
    index = tmp_path / ".corpus.jsonl"
    index.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DatasetError, match=r"first 2 files .*short.mp4: too short"):
        example_clip(tmp_path, config)
    index.write_text(index.read_text() + json.dumps({"path": str(tmp_path / "good.mp4")}) + "\n")
    found = example_clip(tmp_path, config)
    assert found.path.endswith("good.mp4")
    assert found.video.shape == (4, 32, 32, 3)
    assert abs(int(found.video[0, 0, 0, 0]) - 30) <= 3  # 6 clips begin at 0 … 5: the middle one
