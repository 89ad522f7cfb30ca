"""Whole training steps: what is timed is what it says."""

import numpy as np
import torch

from tubelet.benchmarks import speed_loop
from tubelet.benchmarks.speed_vjepa import Size
from tubelet.datasets.decode import open_video
from tubelet.datasets.synthetic.make import MovingShapesConfig, make_moving_shapes

TINY = Size("toy", 24, 2, 4, 32, 2, depth=1, predictor=(24, 1, 2))


def test_the_plain_reader_reads_the_frames_asked_for(tmp_path):
    make_moving_shapes(
        tmp_path, MovingShapesConfig(count=1, size=64, frames=30), processes=1, progress=False
    )
    (path,) = (tmp_path / "videos").glob("*.mp4")
    for numbers in ([0, 2, 4], [11, 12, 29], [20]):
        plain = speed_loop.plain_clip(str(path), numbers, 64)
        with open_video(path, "pyav") as video:
            ours = video.get_frames(np.array(numbers))
        assert torch.equal(plain, torch.from_numpy(np.asarray(ours)))
    assert speed_loop.plain_clip(str(path), [3], 32).shape == (1, 32, 32, 3)


def test_loop_and_scaling_time_both_sides():
    found = speed_loop.loop(1, (TINY,), ("fp32",), videos=1)
    (row,) = found["rows"]
    assert list(row["values"]["cpu"]) == ["plain, activations recomputed", "plain", "tubelet"]
    (row,) = speed_loop.scaling(1, (TINY,))["rows"]
    assert list(row["ratios"]) == ["plain / tubelet"]
    assert "16 tokens" in row["setting"]
