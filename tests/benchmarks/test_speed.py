import json

import pytest

from tubelet.benchmarks import speed


def test_interleaved_takes_turns_and_compares_with_the_first():
    order = []
    work = {
        "slow": lambda: order.append("slow") or sum(range(200_000)),
        "fast": lambda: order.append("fast"),
    }
    timed = speed.interleaved(work, 4)
    assert order == ["slow", "fast"] + ["slow", "fast", "fast", "slow"] * 2  # warm-up first
    assert timed["repeats"] == 4
    assert timed["ratio"]["slow"] == 1
    assert timed["ratio"]["fast"] == pytest.approx(
        timed["cpu"]["slow"] / max(timed["cpu"]["fast"], 1e-9)
    )
    assert set(timed["wall"]) == {"slow", "fast"}


def test_render_benchmark_writes_what_it_prints(tmp_path, capsys):
    assert speed.main(["render", "--repeats", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "speed_render.json").read_text())
    assert set(result["values"]["cpu"]) == {"mujoco.Renderer, default quality", "tubelet"}
    assert f"ratio {result['ratio']['cpu']:.1f}" in capsys.readouterr().out
    assert result["machine"]["cores"] >= 1


def test_rollout_benchmark_compares_equal_results():
    result = speed.rollout(horizon=2, candidates=3, grid=2, repeats=1)
    assert result["largest_difference"] < 1e-5
    assert set(result["values"]["wall"]) == {"recomputed", "cached"}
