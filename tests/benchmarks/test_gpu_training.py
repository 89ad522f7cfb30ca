"""The accelerator script of training steps runs where there is none, at toy size."""

import json

import pytest

from tubelet.benchmarks import gpu_training
from tubelet.vjepa import blocks


@pytest.mark.slow
def test_all_alternatives_start_at_one_loss_and_are_measured(tmp_path):
    found = gpu_training.run(
        gpu_training.Config(out=str(tmp_path), device="cpu", tiny=True, repeats=1)
    )
    assert found == json.loads((tmp_path / "gpu_training.json").read_text())
    (size,) = [
        value for value in found.values() if isinstance(value, dict) and "step_flops" in value
    ]
    rows = size["alternatives"]
    assert set(rows) == set(gpu_training.VARIANTS)
    first = rows["plain"]["first_loss"]
    for row in rows.values():
        assert row["first_loss"] == pytest.approx(first, abs=2e-3)
        assert row["seconds"] > 0
        assert row["mfu"] is None  # no GPU whose peak is known
    assert rows["plain, activations recomputed"]["times_as_fast_as_plain_recomputed"] == 1


def test_the_kernel_of_variable_lengths_comes_back():
    before = blocks._varlen
    with gpu_training._calls_per_set():
        assert blocks._varlen is not before
    assert blocks._varlen is before
