"""One small set with every cell of the probes, shared by the tests that only read it."""

import contextlib
import io

import pytest

from tubelet.envs.physics.generate import generate
from tubelet.envs.physics.jobs import GenerateConfig


@pytest.fixture(scope="session")
def voe_set(tmp_path_factory):
    """(folder, dataset.json) of one test quadruplet per cell, and four training videos."""
    out = tmp_path_factory.mktemp("voe") / "set"
    config = GenerateConfig(out=str(out), workers=1, train=4, quads=1, val=0, ood=0, size=64)
    with contextlib.redirect_stdout(io.StringIO()):
        return out, generate(config)
