"""Numbers of violation of expectation: hand-computed cases, and Meta's archive layout."""

import csv
import math

import numpy as np
import pytest
import torch

from tubelet.benchmarks.voe.judge import (
    auroc_interval,
    holm,
    judged,
    over_seeds,
    paired,
    permutation_p,
    sign_test,
)
from tubelet.benchmarks.voe.meta_archive import check, main, performance, read_raw
from tubelet.benchmarks.voe.metrics import (
    auroc,
    by_chance,
    compare,
    frame_curve,
    late_windows,
    surprise,
    timing,
    window_losses,
)
from tubelet.core.errors import CheckpointError, ConfigError, DatasetError

NAN = math.nan


def test_window_losses_average_steps_and_filter_takes_the_least_context():
    losses = np.array([[[NAN, 1, 3], [NAN, 5, 7]], [[NAN, NAN, 1], [NAN, NAN, 9]]])
    np.testing.assert_array_equal(window_losses(losses, 0), [2, 6])
    np.testing.assert_array_equal(window_losses(losses, 1), [1, 9])
    np.testing.assert_array_equal(window_losses(losses, None), [1, 6])
    absent = window_losses(np.full((2, 3, 4), NAN), None)
    assert np.isnan(absent).all()


def test_aggregates_by_hand():
    windows = np.array([1.0, 4.0, 2.0, NAN])
    assert surprise(windows, "avg") == pytest.approx(7 / 3)
    assert surprise(windows, "max") == 4
    assert surprise(windows, "late", np.array([False, False, True, True])) == 2
    assert math.isnan(surprise(windows, "late", np.zeros(4, bool)))
    with pytest.raises(ConfigError, match="median"):
        surprise(windows, "median")  # pyright: ignore


def test_late_windows_begin_with_the_first_that_differs():
    a, b = np.array([1, 2, 3, 4, 0]), np.array([1, 2, 9, 4, 0])
    np.testing.assert_array_equal(late_windows(a, b), [False, False, True, True, True])


def test_ties_count_one_half_unless_strict():
    assert [compare(1, 2), compare(2, 1), compare(1, 1)] == [1, 0, 0.5]
    assert compare(1, 1, strict=True) == 0
    assert math.isnan(compare(NAN, 1))


def test_auroc_by_hand_and_against_its_definition():
    assert auroc([3, 1], [2, 0]) == 0.75
    assert auroc([1, 1], [1, 1]) == 0.5
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 30), rng.integers(0, 5, 20)
    each = [(x > y) + 0.5 * (x == y) for x in a for y in b]
    assert auroc(a, b) == pytest.approx(np.mean(each))


def test_same_windows_equally_often_is_chance_by_construction():
    a, b = np.array([1, 2, 2]), np.array([3, 4, 5])
    assert by_chance({True: [a, b], False: [np.array([1, 4, 2]), np.array([3, 2, 5])]})
    assert not by_chance({True: [a, b], False: [np.array([1, 4, 4]), np.array([3, 2, 5])]})


def test_curves_give_each_frame_the_mean_of_its_windows():
    losses = np.array([[NAN, 1.0], [NAN, 3.0]])  # steps of 2 sampled frames, stride 1, skip 2
    found = frame_curve(losses, step=2, stride=1, skip=2, first=1, frames=12)
    expected = [NAN] * 5 + [1, 1, 2, 2, 3, 3] + [NAN]
    np.testing.assert_array_equal(found, expected)


def test_timing_finds_the_peak_or_calls_a_false_alarm():
    possible, impossible = np.zeros(20), np.zeros(20)
    impossible[11] = 1
    assert timing(possible, impossible, 10, 2) == (1, 0, 11)
    assert timing(possible, impossible, 15, 2) == (0, 1, 11)
    assert timing(possible, impossible, 5, 2) == (0, 0, 11)
    assert timing(possible, possible, 5, 2)[2] is None


def test_an_accuracy_of_one_has_wilsons_interval_over_groups():
    found = judged([1.0] * 20, [str(i // 2) for i in range(20)])
    assert (found.estimate.value, found.estimate.high, found.groups) == (1, 1, 10)
    assert found.estimate.low == pytest.approx(10 / (10 + 1.959964**2), abs=1e-4)
    assert found.p == pytest.approx(2 / 2**10)


def test_the_bootstrap_resamples_groups_not_pairs():
    groups = [str(i // 2) for i in range(40)]
    alike = np.repeat(np.arange(20) % 2, 2).astype(float)  # both pairs of a group agree
    opposed = np.arange(40) % 2 * 1.0  # each group has one of each: no spread between groups
    wide, narrow = judged(alike.tolist(), groups), judged(opposed.tolist(), groups)
    assert wide.estimate.value == narrow.estimate.value == 0.5
    assert narrow.estimate.low == narrow.estimate.high == 0.5
    assert wide.estimate.high - wide.estimate.low == pytest.approx(
        2 * 1.96 * 0.5 / 20**0.5, rel=0.1
    )


def test_unknown_values_are_refused():
    with pytest.raises(ConfigError, match="1 unknown"):
        judged([1.0, NAN], ["a", "b"])


def test_sign_test_and_holm_by_hand():
    assert sign_test([1, 1, 1, -1, 0], list("abcde")) == pytest.approx(2 * 5 / 16)
    assert sign_test([0, 0], list("ab")) == 1
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )


def test_paired_differences_are_narrower_than_their_parts():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2, 100).astype(float)
    better = np.where(rng.random(100) < 0.1, 1.0, base)
    groups = [str(i) for i in range(100)]
    gain = paired(better, base, groups).estimate
    assert gain.value == pytest.approx((better - base).mean())
    assert 0 <= gain.low <= gain.value <= gain.high < 0.2


def test_seeds_widen_the_interval():
    rng = np.random.default_rng(0)
    groups = [str(i) for i in range(50)]
    values = rng.integers(0, 2, (10, 50)).astype(float)
    shifted = values.copy()
    shifted[:5] = 1.0
    same, spread = over_seeds(values, groups), over_seeds(shifted, groups)
    assert spread.value == pytest.approx(shifted.mean())
    assert spread.high - spread.low > same.high - same.low


def test_auroc_interval_holds_the_value_and_permutation_sees_an_effect():
    rng = np.random.default_rng(1)
    groups = [str(i // 4) for i in range(80)]
    positive = np.tile([False, False, True, True], 20)
    scores = rng.normal(size=80) + 1.5 * positive
    found = auroc_interval(scores, positive, groups)
    assert found.low < found.value < found.high
    assert permutation_p(scores, positive, groups, draws=199) == pytest.approx(1 / 200)
    assert permutation_p(rng.normal(size=80), positive, groups, draws=199) > 0.01


# --- Meta's archive ------------------------------------------------------------------------------


def archive(root, shift=0.0):
    """Two blocks in the released layout, with numbers worked out by hand."""
    folder = root / "vit-l-rope-howto" / "intphys"
    (folder / "raw_surprises").mkdir(parents=True)
    # movies P, I, P, I; contexts 2 and 4; three windows. Context 2: the first pair ties in max.
    losses = torch.tensor(
        [
            [[1.0, 5.0, 1.0], [2.0, 2.0, 2.0]],
            [[2.0, 5.0, 1.0], [3.0, 3.0, 3.0]],
            [[4.0, 4.0, 4.0], [9.0, 9.0, 9.0]],
            [[1.0, 1.0, 6.0], [1.0, 1.0, 1.0]],
        ]
    )
    stored = {"losses": losses, "labels": torch.tensor([1, 0, 1, 0]), "context_lengths": [2, 4]}
    for block in ("O1", "O2"):
        torch.save(stored, folder / "raw_surprises" / f"{block}_16frames.pth")
    header = ["Block", "Context length(s)", "Frame skip", "Relative Accuracy (avg)"]
    header += ["Relative Accuracy (max)", "AUROC (avg)"]
    rows = [
        ["O1", "2", 2, 50 + shift, 50, 0.5],
        ["O1", "4", 2, 50, 50, 0.25],
        ["O1", "Filtered", 2, 50, 50, 0.25],
        ["O2", "2", 2, 50, 50, 0.5],
    ]
    with open(folder / "performance.csv", "w", newline="") as file:
        csv.writer(file, delimiter=";").writerows([header, *rows])
    return folder


def test_metas_numbers_come_out_again_and_a_changed_one_is_found(tmp_path, capsys):
    archive(tmp_path / "a")
    rows = list(check(tmp_path / "a"))
    assert len(rows) == 4 * 3
    wrong = [row for row in rows if abs(row[2] - row[3]) > 0.01]
    assert wrong == []
    archive(tmp_path / "b", shift=3.33)
    assert main(str(tmp_path / "b")) == 1
    assert "11 of 12" in capsys.readouterr().out


def test_ties_decide_which_accuracy_it_is(tmp_path):
    raw = read_raw(archive(tmp_path) / "raw_surprises" / "O1_16frames.pth")
    assert performance(raw, 0)["Relative Accuracy (max)"] == 50
    assert performance(raw, 0, strict=False)["Relative Accuracy (max)"] == 75


def test_padding_can_be_left_out(tmp_path):
    file = archive(tmp_path) / "raw_surprises" / "O1_16frames.pth"
    stored = torch.load(file, weights_only=True)
    stored["losses"][:, :, 2] = 0
    torch.save(stored, file)
    assert np.isnan(read_raw(file, drop_padding=True).losses[:, :, 2]).all()


def test_damaged_or_foreign_archives_are_named(tmp_path):
    folder = archive(tmp_path)
    file = folder / "raw_surprises" / "O1_16frames.pth"
    torch.save({"losses": torch.zeros(4, 2, 3), "context_lengths": [2, 4]}, file)
    with pytest.raises(DatasetError, match="labels"):
        read_raw(file)
    torch.save({"losses": torch.zeros(4, 2, 3), "labels": torch.tensor([1, 0, 1, 0])}, file)
    with pytest.raises(DatasetError, match="context_lengths"):
        read_raw(file)
    file.write_bytes(b"no")
    with pytest.raises(CheckpointError):
        read_raw(file)
    file.unlink()
    with pytest.raises(DatasetError, match="0 files of surprises for block 'O1'"):
        list(check(tmp_path))
