import pytest

from tubelet.benchmarks.episodes import draw_far

from .toy import PointEnv


@pytest.fixture
def episodes():
    return draw_far(PointEnv(), 7, env_id="toy/Point-v0", seed=0, budget=15)
