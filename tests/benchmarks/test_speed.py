import json
import sys

import pytest

from tubelet.benchmarks import speed, speed_vjepa, timing
from tubelet.core.errors import TubeletError

TINY = speed_vjepa.Size("tiny", 48, 2, 4, 32, 2, depth=1, predictor=(36, 1, 3))


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


def test_the_ratio_of_medians_and_its_interval():
    exact = timing.ratio_of_medians([2.0, 4.0, 6.0], [2.0, 2.0, 2.0])
    assert (exact.value, exact.low, exact.high) == (2, 1, 3)
    paired = timing.ratio_of_medians([3.0, 30.0], [1.0, 10.0])  # a busy round slows both
    assert (paired.low, paired.high) == (3, 3)
    with pytest.raises(ValueError, match="equal non-empty"):
        timing.ratio_of_medians([1.0], [])


def test_encoder_benchmark_compares_equal_bits():
    (row,) = speed_vjepa.encoder(repeats=2, sizes=(TINY,), threads=(1,))["rows"]
    assert set(row["values"]["cpu"]) == {"transformers", "tubelet"}
    ratio = row["ratios"]["transformers / tubelet"]
    assert ratio["low"] <= ratio["value"] <= ratio["high"]


def test_encoder_benchmark_refuses_other_bits(monkeypatch):
    changed = speed_vjepa._their_names
    monkeypatch.setattr(
        speed_vjepa, "_their_names", lambda w: {k: v * 1.001 for k, v in changed(w).items()}
    )
    with pytest.raises(TubeletError, match="outputs differ"):
        speed_vjepa.encoder(repeats=1, sizes=(TINY,), threads=(1,))


def test_encoder_benchmark_without_transformers_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TubeletError, match="pip install"):
        speed_vjepa.encoder(repeats=1, sizes=(TINY,), threads=(1,))


def test_training_benchmark_starts_from_equal_losses_and_profiles():
    result = speed_vjepa.train_step(repeats=1, sizes=(TINY,), threads=(1,))
    row, low = result["rows"]
    assert row["largest_difference"] < 1e-5
    assert low["setting"].endswith("bf16, 1 thread")
    assert list(row["values"]["cpu"]) == ["plain, activations recomputed", "plain", "tubelet"]
    assert list(row["ratios"])[1] == "plain / tubelet"
    table = speed.profile_table(result["profile"])
    assert "addmm" in table
    assert table.startswith("plain, fp32\n")


def test_mask_benchmark_checks_what_it_times(monkeypatch):
    rows = speed.masks(repeats=1, batch=2)["rows"]
    assert [set(row["values"]["cpu"]) for row in rows] == [{"median", "95th percentile"}] * 2
    from tubelet.vjepa import masks

    whole = masks.sample_masks

    def lossy(*args, **options):
        drawn = whole(*args, **options)
        return type(drawn)(drawn.context[:, 1:], drawn.target)

    monkeypatch.setattr(masks, "sample_masks", lossy)
    with pytest.raises(TubeletError, match="lost"):
        speed.masks(repeats=1, batch=2)
