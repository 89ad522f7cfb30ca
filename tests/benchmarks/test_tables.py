import dataclasses
import io
import json

import numpy as np
import pytest
from rich.console import Console

from tubelet.benchmarks.floors import no_action, uniform_random
from tubelet.benchmarks.goal_reaching import evaluate
from tubelet.benchmarks.stats import mcnemar_exact, wilson_interval
from tubelet.benchmarks.tables import leaderboard, print_leaderboard
from tubelet.core.errors import ConfigError

from .toy import GreedyAgent, PointEnv


@pytest.fixture
def results(episodes):
    def play(agent, name, **kwargs):
        return evaluate(PointEnv, agent, episodes, name=name, **kwargs)

    return [
        play(no_action(15, 2), "no action", role="floor"),
        play(uniform_random(15, 2, seed=0), "random", role="floor"),
        play(GreedyAgent(), "greedy", seed=0),
        play(GreedyAgent(3), "greedy", seed=1),
    ]


def test_rows_pool_seeds_and_carry_intervals(results):
    board = leaderboard(results, title="Toy", baseline="no action")
    assert board.rows[0].name == "greedy"
    greedy = board.rows[0]
    assert (greedy.n, greedy.seeds) == (14, (0, 1))
    assert greedy.at_end == wilson_interval(14, 14)
    assert greedy.beats_floors
    assert greedy.versus == mcnemar_exact([True] * 14, [False] * 14)
    floors = {row.name: row for row in board.rows[1:]}
    assert floors["no action"].versus is None
    assert floors["no action"].beats_floors is None
    assert floors["no action"].solved_at_reset == 0
    json.dumps(board.to_json(), allow_nan=False)


def test_overlapping_intervals_do_not_beat_a_floor(results):
    floor = dataclasses.replace(results[2], name="strong floor", role="floor")
    board = leaderboard([results[2], floor], title="Toy")
    assert board.rows[0].beats_floors is False


def test_cells_fit_the_columns_and_print(results):
    oracle = dataclasses.replace(results[2], name="oracle [bold]", role="ceiling", privileged=True)
    board = leaderboard([*results, oracle], title="Toy", baseline="random")
    assert all(len(cells) == len(board.columns()) for cells in board.cells())
    assert board.rows[0].role == "ceiling"
    console = Console(width=250, record=True, file=io.StringIO())
    print_leaderboard(board, console)
    text = console.export_text()
    assert "oracle [bold] (sees the simulator's state)" in text
    assert "100 % [65, 100]" in text  # 7 of 7
    assert board.episodes_sha256[:12] in text


def test_results_that_do_not_belong_together_are_refused(results):
    other = dataclasses.replace(results[0], episodes_sha256="0" * 64, name="other")
    with pytest.raises(ConfigError, match="different episode sets"):
        leaderboard([results[0], other], title="Toy")
    with pytest.raises(ConfigError, match="same seed twice"):
        leaderboard([results[2], results[2]], title="Toy")
    with pytest.raises(ConfigError, match="greeedy"):
        leaderboard(results, title="Toy", baseline="greeedy")
    with pytest.raises(ConfigError, match="at least one"):
        leaderboard([], title="Toy")


def test_median_distance_is_of_the_final_step(results):
    board = leaderboard(results[:1], title="Toy")
    expected = np.median(results[0].distance["position"][:, -1])
    assert board.rows[0].distance["position"] == pytest.approx(expected)
