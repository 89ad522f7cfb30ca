"""Skeletons: bodies that keep their bones, and NTU RGB+D's files, splits and damage."""

import numpy as np
import pytest

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets import stick_figures as figures
from tubelet.datasets.skeletons import (
    JOINTS,
    main_body,
    read_bodies,
    read_skeletons,
    resampled,
)
from tubelet.datasets.stick_figures import StickFigureConfig, generate_skeletons, pose


def clean(**more):
    return StickFigureConfig(**{"count": 9, "frames": 40, "noise": 0.0} | more)


def test_bones_keep_their_lengths():
    made = generate_skeletons(clean())
    for a, b in figures.BONES:
        length = np.linalg.norm(made.samples[:, :, a] - made.samples[:, :, b], axis=-1)
        np.testing.assert_allclose(length, length[:, :1].repeat(40, axis=1), atol=1e-5)


def test_a_figure_at_rest_stands_upright():
    lengths = np.array(figures.USUAL_LENGTHS)
    x = pose({"lean": np.zeros(1)}, lengths)[0]
    at = dict(zip(figures.JOINTS, x, strict=True))
    assert at["left ankle"][2] == pytest.approx(0)
    assert at["pelvis"] == pytest.approx([0, 0, 0.87])
    assert at["head"] == pytest.approx([0, 0, 0.87 + 0.7])
    assert at["right wrist"] == pytest.approx([0.2, 0, 0.87 + 0.5 - 0.55])
    assert at["left hip"][0] == pytest.approx(-0.1)


def test_angles_bend_where_they_say():
    lengths, quarter = np.array(figures.USUAL_LENGTHS), np.array([np.pi / 2])
    at = lambda angles, joint: pose(angles, lengths)[0][figures.JOINTS.index(joint)]  # noqa: E731
    ahead = at({"right arm": quarter}, "right wrist") - at({"right arm": quarter}, "right shoulder")
    assert ahead == pytest.approx([0, 0.55, 0], abs=1e-9)
    aside = at({"left spread": quarter}, "left wrist") - at({"left spread": quarter}, "neck")
    assert aside == pytest.approx([-0.75, 0, 0], abs=1e-9)
    bent = at({"left knee": quarter}, "left ankle") - at({"left knee": quarter}, "left knee")
    assert bent == pytest.approx([0, -0.42, 0], abs=1e-9)  # backwards
    bow = at({"lean": quarter}, "head") - at({"lean": quarter}, "pelvis")
    assert bow == pytest.approx([0, 0.7, 0], abs=1e-9)


def test_classes_move_as_they_are_called():
    config = clean(frames=60, heading=0, sway=0, bones=(1, 1), amplitude=(1, 1), tempo=(1, 1))
    made = generate_skeletons(config)
    of = {name: made.samples[i] for i, name in enumerate(made.classes)}
    ankle = lambda x: x[:, (12, 15), 2].min(axis=1)  # noqa: E731
    ahead = {name: x[-1, 0, 1] - x[0, 0, 1] for name, x in of.items()}
    assert ahead["run"] > 1.5 * ahead["walk"] > 0
    assert abs(ahead["wave"]) < 1e-5
    drop = {name: np.ptp(x[:, 0, 2]) for name, x in of.items()}
    assert max(drop, key=drop.get) in ("jump", "squat")
    lowest = {name: ankle(x) - ankle(x).min() for name, x in of.items()}
    assert lowest["jump"].max() > 0.2  # leaves the ground
    assert np.ptp(of["wave"][:, 12:, :], axis=1).shape  # legs
    assert np.abs(np.diff(of["wave"][:, 10:], axis=0)).max() < 1e-5
    assert np.ptp(of["bow"][:, 3, 2]) > 0.3
    wrists = of["jumping jack"][:, (6, 9), 2] - of["jumping jack"][:, (3,), 2]
    assert wrists.max() > 0 > wrists.min()  # above the head and below


def test_sequences_are_functions_of_seed_and_number():
    whole, part = (
        generate_skeletons(clean(noise=0.01)),
        generate_skeletons(clean(count=3, noise=0.01)),
    )
    np.testing.assert_array_equal(part.samples, whole.samples[:3])
    assert whole.samples.dtype == np.float32
    assert whole.labels.tolist() == list(range(9))
    other = generate_skeletons(clean(seed=1))
    assert np.abs(other.samples - whole.samples).max() > 0.05


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"count": 0}, "count = 0"),
        ({"fps": 0}, "fps = 0"),
        ({"bones": (0, 1)}, "bones"),
        ({"sway": -1}, "sway"),
    ],
)
def test_impossible_configs_are_refused_by_name(change, named):
    with pytest.raises(ConfigError, match=named):
        StickFigureConfig(**change)


# --- NTU RGB+D ----------------------------------------------------------------------------------


def write(path, bodies, *, joints=25):
    """A file in the published layout; ``bodies``: per frame a dict of id -> [joints, 3]."""
    lines = [str(len(bodies))]
    for frame in bodies:
        lines.append(str(len(frame)))
        for name, x in frame.items():
            lines.append(f"{name} 0 1 1 1 1 0 0.02 -0.1 2")
            lines.append(str(joints))
            for a, b, c in x:
                lines.append(f"{a} {b} {c} 277.4 191.8 1036.2 511.3 -0.2 0.01 0.97 -0.04 2")
    path.write_text("\n".join(lines) + "\n")


def body(seed, frames=6, moves=1.0):
    return np.random.default_rng(seed).normal(scale=moves, size=(frames, 25, 3))


def test_bodies_are_read_frame_by_frame(tmp_path):
    one, two = body(0), body(1)
    frames = [{"7205": one[t]} | ({"7206": two[t]} if t >= 2 else {}) for t in range(6)]
    write(tmp_path / "S001C001P001R001A001.skeleton", frames)
    found = read_bodies(tmp_path / "S001C001P001R001A001.skeleton")
    np.testing.assert_allclose(found["7205"], one, rtol=1e-6)
    np.testing.assert_allclose(found["7206"], two[2:], rtol=1e-6)


def test_of_two_bodies_the_one_that_moves_is_taken(tmp_path):
    still, lively = body(0, moves=0.01), body(1)
    frames = [{"1": still[t], "2": lively[t]} for t in range(6)]
    path = tmp_path / "S001C002P001R001A013.skeleton"
    write(path, frames)
    np.testing.assert_allclose(main_body(read_bodies(path)), lively, rtol=1e-6)


def test_a_folder_is_read_with_its_splits(tmp_path):
    for camera, performer, action in ((1, 1, 1), (2, 3, 1), (3, 1, 2), (1, 3, 2)):
        name = f"S001C{camera:03d}P{performer:03d}R002A{action:03d}.skeleton"
        write(tmp_path / name, [{"1": x} for x in body(10 * camera + performer)])
    whole = read_skeletons(tmp_path, frames=8)
    assert whole.samples.shape == (4, 8, 25, 3)
    assert whole.classes == ("A001", "A002")
    assert sorted(whole.labels.tolist()) == [0, 0, 1, 1]
    assert set(whole.groups["repetition"].tolist()) == {2}
    assert read_skeletons(tmp_path, split="xsub-train").groups["performer"].tolist() == [1, 1]
    assert read_skeletons(tmp_path, split="xsub-test").groups["performer"].tolist() == [3, 3]
    assert set(read_skeletons(tmp_path, split="xview-train").groups["camera"]) == {2, 3}
    assert set(read_skeletons(tmp_path, split="xview-test").groups["camera"]) == {1}
    with pytest.raises(ConfigError, match="split = 'xsub'"):
        read_skeletons(tmp_path, split="xsub")


def test_resampling_interpolates_turns_the_axes_and_moves_to_the_origin():
    """The camera's (right, up, away) become (right, ahead, up); what comes nearer goes ahead."""
    x = np.zeros((3, 2, 3), np.float32)
    x[:, 0] = [[1, 5, 4], [1, 5, 4], [1, 5, 4]]
    x[:, 1] = [[1, 5, 4], [3, 6, 3], [5, 9, 2]]
    found = resampled(x, 5)
    assert not found[:, 0].any()
    expected = [[0, 0, 0], [1, 0.5, 0.5], [2, 1, 1], [3, 1.5, 2.5], [4, 2, 4]]
    np.testing.assert_allclose(found[:, 1], expected, atol=1e-6)
    np.testing.assert_allclose(resampled(x[:1], 4), 0)


def test_nan_joints_are_refused_by_name(tmp_path):
    good, bad = body(0), body(1)
    bad[3, 5, 1] = np.nan
    write(tmp_path / "S001C001P001R001A001.skeleton", [{"1": x} for x in good])
    write(tmp_path / "S001C001P001R001A002.skeleton", [{"1": x} for x in bad])
    message = r"S001C001P001R001A002.*joint 5 \(left elbow\) is no number in frame 3"
    with pytest.raises(DatasetError, match=message):
        read_skeletons(tmp_path)
    found = read_skeletons(tmp_path, max_bad_share=0.5)
    assert found.names == ("S001C001P001R001A001",)
    assert len(found.refused) == 1
    assert found.groups["action"].tolist() == [1]
    with pytest.raises(DatasetError, match="joint 5 is no number in frame 3"):
        resampled(bad, 4)
    assert JOINTS[5] == "left elbow"


def test_damaged_files_are_refused_by_line(tmp_path):
    path = tmp_path / "S001C001P001R001A001.skeleton"
    write(path, [{"1": x} for x in body(0)])
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:40]))
    with pytest.raises(DatasetError, match="ends after line 40: it is truncated"):
        read_bodies(path)
    path.write_text("\n".join([lines[0], "two", *lines[2:]]))
    with pytest.raises(DatasetError, match="line 2: 'two' is no number of bodies"):
        read_bodies(path)
    path.write_text("\n".join([*lines[:4], "0.1 0.2", *lines[5:]]))
    with pytest.raises(DatasetError, match="line 5: 2 values, at least 11 expected"):
        read_bodies(path)
    path.write_text("2\n0\n0\n")
    with pytest.raises(DatasetError, match="no body in any frame"):
        read_bodies(path)
    with pytest.raises(DatasetError, match=r"has no .skeleton file of split 'all'"):
        read_skeletons(tmp_path / "none")
