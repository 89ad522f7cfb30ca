"""The examples of docs/environments.md run, in the order in which they stand."""

import re
import runpy
from pathlib import Path

import gymnasium
import numpy as np

from tubelet.envs.collect import CollectConfig, collect
from tubelet.envs.policies import PolicyMix

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "environments.md"
LEFT_OUT = ("trajectories = collect(CollectConfig(", "Pendulum-v1")
"""600 episodes; an environment that needs pygame."""


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mix = PolicyMix(noise=0, held=0)
    small = CollectConfig(out="runs/reacher", episodes=4, steps=22, workers=1, policy=mix)
    collect(small)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    example = runpy.run_path(str(ROOT / "examples" / "bring_your_own_environment.py"))
    keys = ("GoalEnv", "MODEL", "SCENE", "mujoco")
    names = {"gymnasium": gymnasium, **{key: example[key] for key in keys}}
    recorded = {
        "pixels": np.zeros((5, 64, 64, 3), np.uint8),
        "proprio": np.zeros((5, 4), np.float32),
        "state": np.zeros((5, 8)),
        "action": np.zeros((5, 2), np.float32),
    }
    ran = 0
    for number, block in enumerate(blocks):
        if any(text in block for text in LEFT_OUT):
            continue
        saved = {key: names[key] for key in ("env", "goal") if key in names}
        own = names | recorded if "TrajectoryWriter" in block else names
        exec(compile(block, f"{PAGE.name}[{number}]", "exec"), own)
        if "wrap(" in block:
            names |= saved  # the examples below go on with the reacher
        ran += 1
    assert ran >= 9
    assert names["actions"].shape == (1, 5, 2)
    assert names["Swing"](render_obs=False).reset(seed=0)[1]["success"] in (True, False)
