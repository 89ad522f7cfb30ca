"""The examples of docs/world_models.md run, in the order in which they stand."""

import re
from pathlib import Path

import numpy as np
import torch

from tubelet.datasets.trajectories import TrajectoryWriter
from tubelet.datasets.video_writer import write_video

PAGE = Path(__file__).resolve().parents[2] / "docs" / "world_models.md"


def frames(number, length=40):
    """A bright square on its way over a grey ground: uint8 [length, 64, 64, 3]."""
    out = np.full((length, 64, 64, 3), 60 + 10 * number, np.uint8)
    for t in range(length):
        out[t, 8 * number : 8 * number + 12, t : t + 12] = 220
    return out


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    writer = TrajectoryWriter.create(
        tmp_path / "trajectories",
        fps=10,
        image_size=64,
        proprio_dim=2,
        state_dim=2,
        action_dim=2,
        metadata={},
        task="move",
    )
    rng = np.random.default_rng(0)
    for number in range(4):
        write_video(tmp_path / "videos" / f"{number}.mp4", frames(number), fps=10)
        action = rng.uniform(-1, 1, (40, 2)).astype(np.float32)
        action[-1] = 0
        still = np.zeros((40, 2))
        writer.add_episode(
            number,
            pixels=frames(number),
            proprio=still.astype(np.float32),
            state=still,
            action=action,
        )
    writer.finalize()
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) >= 8
    names: dict[str, object] = {}
    for number, block in enumerate(blocks):
        exec(compile(block, f"{PAGE.name}[{number}]", "exec"), names)
    plan = names["plan"]
    assert isinstance(plan.actions, torch.Tensor)
    assert plan.actions.shape == (1, 4, 10)
    assert names["step"] == 20
    assert str(names["path"]).endswith("step-00000020")
