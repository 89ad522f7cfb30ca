"""Rates and shares of known answers."""

import pytest

from tubelet.core.errors import ConfigError
from tubelet.core.pace import PEAKS, Pace, peak_flops, rate
from tubelet.core.progress import progress


def test_rates_are_quotients_and_unknown_ones_are_left_out():
    full = Pace(samples=8, flops=3e12, peak=1e14)
    assert full.scalars(steps=20, seconds=10.0, waited=2.5) == pytest.approx(
        {
            "pace/steps_per_second": 2.0,
            "pace/clips_per_second": 16.0,
            "pace/flops_per_second": 6e12,
            "pace/mfu": 0.06,
            "pace/wait_share": 0.25,
        }
    )
    assert set(Pace().scalars(steps=1, seconds=1, waited=0)) == {
        "pace/steps_per_second",
        "pace/wait_share",
    }
    assert "pace/mfu" not in Pace(flops=1e9).scalars(steps=1, seconds=1, waited=0)


def test_nothing_done_yet_is_no_error():
    assert Pace(samples=2).scalars(steps=0, seconds=0.0, waited=0.0)["pace/wait_share"] == 0
    assert rate(0, 0.0) == "–"


@pytest.mark.parametrize(
    ("flops", "said"), [(2e15, "2.0 PFLOP/s"), (5e9, "5.0 GFLOP/s"), (12.0, "12.0 FLOP/s")]
)
def test_operations_have_a_prefix(flops, said):
    assert said in Pace(flops=flops).text(steps=1, seconds=1.0, waited=0)


def test_slow_steps_are_told_in_seconds():
    text = Pace(samples=4).text(steps=2, seconds=10.0, waited=5.0)
    assert text == "5.0 s each  0.8 clips/s  waits 50 %"
    assert rate(3, 1.0) == "3.0/s"
    assert rate(3, 1.0, "steps") == "3.0 steps/s"


@pytest.mark.parametrize(
    ("name", "precision", "peak"),
    [
        ("NVIDIA H100 80GB HBM3", "bf16", 989e12),
        ("NVIDIA H100 PCIe", "bf16", 756e12),
        ("NVIDIA A100-SXM4-80GB", "bf16", 312e12),
        ("NVIDIA A100-SXM4-80GB", "fp32", 19.5e12),
        ("NVIDIA L40S", "bf16", 362e12),
        ("NVIDIA L4", "bf16", 121e12),
        ("NVIDIA GB200", "bf16", None),
        ("AMD EPYC 7B13", "fp32", None),
        ("", "fp32", None),
    ],
)
def test_peaks_are_of_the_very_device_or_none(name, precision, peak):
    assert peak_flops(name, precision) == peak
    assert all(bf16 > fp32 for bf16, fp32 in PEAKS.values())


def test_the_bar_shows_the_pace(capsys):
    bar = progress(4, "train", pace=Pace(samples=2, flops=1e6))
    for _ in bar:
        bar.waited(0.001)
        bar.note("loss 1")
    said = capsys.readouterr().err
    assert "train  4/4" in said
    assert "clips/s" in said
    assert "FLOP/s" in said
    assert "waits" in said
    assert "MFU" not in said


def test_impossible_paces_are_refused():
    with pytest.raises(ConfigError, match=r"samples = -1.*peak = 0"):
        Pace(samples=-1, peak=0)
