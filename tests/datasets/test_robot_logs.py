"""Robot logs in robomimic's, D4RL's, Minari's and DROID's layouts: what comes out, what is refused.

The fixtures write files in these layouts, of known content.
"""

import json

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.robot_logs import LogEpisode, convert_log, open_log
from tubelet.datasets.robot_logs.convert import detect, square
from tubelet.datasets.robot_logs.droid import pose_deltas, rows_at
from tubelet.datasets.video_writer import write_video

RNG = np.random.default_rng(0)


def images(count, height=20, width=20):
    """Flat grey frames; frame t has value 10 t."""
    values = 10 * np.arange(count, dtype=np.uint8)
    return np.broadcast_to(values[:, None, None, None], (count, height, width, 3)).copy()


def actions(count, width=3):
    return np.arange(1, count * width + 1, dtype=np.float64).reshape(count, width)


def write_robomimic(path, lengths=(5, 7), *, next_obs=True, change=None):
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": 20}})
        for number, steps in enumerate(lengths):
            demo = data.create_group(f"demo_{number}")
            demo["actions"], demo["states"] = actions(steps), RNG.random((steps, 9))
            frames, pose = images(steps + 1), np.arange(2.0 * steps + 2).reshape(-1, 2)
            for name, part in (("obs", slice(0, -1)), ("next_obs", slice(1, None))):
                if name == "obs" or next_obs:
                    demo[f"{name}/agentview_image"] = frames[part]
                    demo[f"{name}/eef_pos"], demo[f"{name}/grip"] = pose[part], pose[part, 0]
            if change:
                change(demo)
    return path


def write_minari(root, lengths=(4, 6), *, dictionary=True, change=None):
    (root / "data").mkdir(parents=True)
    with h5py.File(root / "data/main_data.hdf5", "w") as file:
        file.attrs["total_episodes"] = len(lengths)
        for number, steps in enumerate(lengths):
            episode = file.create_group(f"episode_{number}")
            episode["actions"] = actions(steps)
            episode["rewards"] = np.zeros(steps)
            episode["observations" + "/camera" * dictionary] = images(steps + 1)
            if dictionary:
                episode["observations/robot/joints"] = RNG.random((steps + 1, 4))
            if change:
                change(episode)
    return root


def write_d4rl(path, lengths=(4, 1, 6), rest=2, change=None):
    steps = sum(lengths) + rest
    ends = np.cumsum(lengths) - 1
    with h5py.File(path, "w") as file:
        file["observations"] = np.arange(2.0 * steps).reshape(-1, 2)
        file["actions"], file["images"] = actions(steps), images(steps)
        file["terminals"], file["timeouts"] = np.zeros(steps, bool), np.zeros(steps, bool)
        file["terminals"][ends[0]] = True
        file["timeouts"][ends[1:]] = True
        if change:
            change(file)
    return path


def write_droid(folder, times, *, change=None, frames=None, stamped=60):
    """A recording whose mp4 is stamped 60 frames per second, whatever the capture times."""
    (folder / "recordings/MP4").mkdir(parents=True)
    count = len(times)
    turns = np.stack([np.zeros(count), np.zeros(count), np.linspace(0, 2, count)], axis=1)
    pose = np.concatenate([np.arange(3.0 * count).reshape(-1, 3) / 100, turns], axis=1)
    with h5py.File(folder / "trajectory.h5", "w") as file:
        file["observation/robot_state/cartesian_position"] = pose
        file["observation/robot_state/gripper_position"] = np.linspace(0, 1, count)
        stamps = np.round(1e3 * (1.7e9 + np.asarray(times))).astype(np.int64)
        file["observation/timestamp/cameras/17_estimated_capture"] = stamps
        if change:
            change(file)
    frames = images(count, 32, 48) if frames is None else frames
    write_video(folder / "recordings/MP4/17.mp4", frames, fps=stamped)
    (folder / "metadata_x.json").write_text(
        json.dumps({"left_mp4_path": "a/recordings/MP4/17.mp4"})
    )
    return folder


def replace(key, values):
    def change(group):
        del group[key]
        group[key] = values

    return change


def test_robomimic_with_the_last_outcome(tmp_path):
    log = open_log(write_robomimic(tmp_path / "image.hdf5"))
    assert (log.fps, log.num_episodes) == (20, 2)
    episode = log.episode(1)
    assert np.array_equal(episode.pixels, images(8))
    assert np.array_equal(episode.action, [*actions(7), [0, 0, 0]])
    assert episode.proprio.shape == (8, 3)  # eef_pos and grip
    assert np.array_equal(episode.proprio[:, 0], 2 * np.arange(8))


def test_robomimic_without_the_last_outcome_drops_the_last_action(tmp_path):
    log = open_log(write_robomimic(tmp_path / "a.hdf5", next_obs=False), proprio=("grip",))
    episode = log.episode(0)
    assert np.array_equal(episode.action, [*actions(5)[:-1], [0, 0, 0]])
    assert episode.pixels.shape[0] == 5
    assert episode.proprio.shape == (5, 1)
    assert episode.state.shape == (5, 9)  # the simulator's


def test_demonstrations_are_in_the_order_of_their_numbers(tmp_path):
    log = open_log(write_robomimic(tmp_path / "a.hdf5", lengths=range(2, 14)))
    assert [len(log.episode(k).pixels) for k in range(12)] == list(range(3, 15))


@pytest.mark.parametrize("dictionary", [True, False])
def test_minari(tmp_path, dictionary):
    root = write_minari(tmp_path / "set-v0", dictionary=dictionary)
    for path in (root, root / "data", root / "data/main_data.hdf5"):
        log = open_log(path, fps=10)
        assert log.num_episodes == 2
    episode = log.episode(1)
    assert np.array_equal(episode.pixels, images(7))
    assert np.array_equal(episode.action, [*actions(6), [0, 0, 0]])
    assert episode.proprio.shape == (7, 4 if dictionary else 1)


def test_d4rl_splits_at_terminals_and_timeouts(tmp_path):
    log = open_log(write_d4rl(tmp_path / "a.hdf5"), fps=25)
    assert log.num_episodes == 2  # the one of a single step and the unfinished rest are left out
    episode = log.episode(1)
    assert np.array_equal(episode.pixels, images(13)[5:11])
    assert np.array_equal(episode.action, [*actions(13)[5:10], [0, 0, 0]])
    assert np.array_equal(episode.proprio[:, 0], 2 * np.arange(5, 11))


def test_droid_takes_time_from_the_captures_and_not_from_the_video(tmp_path):
    """15 frames per second in a file that says 60: at 5 per second every third frame is used."""
    folder = write_droid(tmp_path / "lab/recording", np.arange(16) / 15)
    episode = open_log(tmp_path, fps=5).episode(0)
    assert len(episode.pixels) == 6
    assert np.abs(episode.pixels.astype(int) - images(16, 32, 48)[::3]).max() <= 3
    with h5py.File(folder / "trajectory.h5") as file:
        pose = file["observation/robot_state/cartesian_position"][::3]
    np.testing.assert_allclose(episode.state[:, :6], pose)
    np.testing.assert_allclose(episode.action[:-1, :3], np.diff(pose[:, :3], axis=0), atol=1e-6)
    np.testing.assert_allclose(episode.action[:-1, 5], 2 / 5, atol=1e-6)  # 2 rad in 5 steps
    np.testing.assert_allclose(episode.action[:-1, 6], 1 / 5, atol=1e-6)


def test_pose_deltas_compose_to_the_next_pose():
    state = np.concatenate(
        [RNG.random((6, 3)), RNG.uniform(-1.4, 1.4, (6, 3)), RNG.random((6, 1))], axis=1
    )
    action = pose_deltas(state)
    assert not action[-1].any()
    for before, delta, after in zip(state[:-1], action[:-1], state[1:], strict=True):
        turned = Rotation.from_euler("xyz", delta[3:6]) * Rotation.from_euler("xyz", before[3:6])
        expected = Rotation.from_euler("xyz", after[3:6]).as_matrix()
        np.testing.assert_allclose(turned.as_matrix(), expected, atol=1e-12)
        np.testing.assert_allclose(before[[0, 1, 2, 6]] + delta[[0, 1, 2, 6]], after[[0, 1, 2, 6]])


@settings(max_examples=50)
@given(st.lists(st.floats(0.03, 0.12), min_size=10, max_size=40))
def test_rows_are_the_nearest_captures(gaps):
    times = 5.0 + np.cumsum(gaps)
    rows = rows_at(times, 4, "x")
    instants = times[0] + np.arange(len(rows)) / 4
    nearest = np.abs(times[:, None] - instants).min(0)
    np.testing.assert_allclose(np.abs(times[rows] - instants), nearest, atol=1e-12)
    assert instants[-1] <= times[-1] + 1e-6 < instants[-1] + 0.25 + 2e-6
    assert (np.diff(rows) > 0).all()


@pytest.mark.parametrize(
    ("write", "options"),
    [
        (lambda root: write_robomimic(root / "a.hdf5"), {}),
        (lambda root: write_minari(root / "m"), {"fps": 10}),
        (lambda root: write_d4rl(root / "d.hdf5"), {"fps": 10}),
        (lambda root: write_droid(root / "r", np.arange(12) / 15).parent, {"fps": 5}),
    ],
    ids=["robomimic", "minari", "d4rl", "droid"],
)
def test_conversion_gives_a_trajectory_set(tmp_path, write, options):
    source = tmp_path / "source"
    source.mkdir()
    log = open_log(write(source), **options)
    converted = convert_log(log, tmp_path / "set", image_size=16, task="lift")
    assert converted.num_episodes == log.num_episodes
    assert converted.fps == log.fps
    assert converted.metadata["format"] in ("robomimic", "minari", "d4rl", "droid")
    for number in range(log.num_episodes):
        episode = log.episode(number)
        part = converted.slice(number, 0, len(episode.pixels))
        assert np.array_equal(part["action"], episode.action)
        assert np.array_equal(part["proprio"], episode.proprio)
        assert np.array_equal(part["state"], episode.state)
        assert np.abs(part["pixels"].astype(int) - square(episode.pixels, 16)).max() <= 3
    assert len(convert_log(log, tmp_path / "set", image_size=16, task="lift").arrays()["action"])


def test_frames_are_cropped_to_their_middle_square():
    frames = np.zeros((2, 4, 8, 3), np.uint8)
    frames[:, :, 2:6] = 200
    assert (square(frames, 4) == 200).all()
    assert square(frames, 2).shape == (2, 2, 2, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("actions", np.full((5, 3), np.nan)), "action is NaN or infinite in 5 rows"),
        (replace("actions", [[0, 0, 0]] * 4 + [[0, np.inf, 0]]), "action is NaN or infinite"),
        (replace("obs/eef_pos", np.full((5, 2), np.inf)), "proprio is NaN or infinite"),
        (replace("actions", np.zeros((9, 3))), "6 images, actions .9, 3."),
        (replace("obs/grip", np.zeros(3)), "6 images.*'grip': 4"),
        (lambda demo: demo.__delitem__("actions"), "no array 'actions'"),
    ],
)
def test_damaged_robomimic_episodes_are_refused(tmp_path, change, message):
    log = open_log(write_robomimic(tmp_path / "a.hdf5", (5,), change=change))
    with pytest.raises(DatasetError, match=message):
        log.episode(0)


def test_missing_images_are_named(tmp_path):
    def drop(demo):
        del demo["obs/agentview_image"]

    path = write_robomimic(tmp_path / "a.hdf5", change=drop)
    with pytest.raises(DatasetError, match=r"holds no images .* only eef_pos, grip"):
        open_log(path)
    path = write_d4rl(tmp_path / "d.hdf5", change=lambda file: file.__delitem__("images"))
    with pytest.raises(DatasetError, match="holds no images"):
        open_log(path, fps=10)


def test_several_cameras_need_a_choice(tmp_path):
    path = write_robomimic(
        tmp_path / "a.hdf5",
        (5,),
        next_obs=False,
        change=lambda d: d.create_dataset("obs/wrist", data=images(5)),
    )
    with pytest.raises(DatasetError, match="choose one as camera from agentview_image, wrist"):
        open_log(path)
    with pytest.raises(DatasetError, match="'front' is not among agentview_image, wrist"):
        open_log(path, camera="front")
    assert open_log(path, camera="wrist").episode(0).pixels.shape[0] == 5
    with pytest.raises(DatasetError, match="no vectors elbow: choose proprio from eef_pos, grip"):
        open_log(path, camera="wrist", proprio=("elbow",))


def test_rates_that_nobody_says_must_be_given(tmp_path):
    with pytest.raises(DatasetError, match="give fps"):
        open_log(write_minari(tmp_path / "m"))
    with pytest.raises(DatasetError, match="give fps"):
        open_log(write_d4rl(tmp_path / "d.hdf5"))
    path = write_robomimic(tmp_path / "a.hdf5")
    with h5py.File(path, "a") as file:
        file["data"].attrs["env_args"] = "{}"
    with pytest.raises(DatasetError, match="give fps"):
        open_log(path)
    assert open_log(path, fps=12).fps == 12


def test_d4rl_of_unequal_lengths_or_without_ends_is_refused(tmp_path):
    path = write_d4rl(tmp_path / "a.hdf5", change=replace("images", images(5)))
    with pytest.raises(DatasetError, match="5 images for 13 actions"):
        open_log(path, fps=10)
    path = write_d4rl(tmp_path / "b.hdf5", lengths=(1, 1), rest=4)
    with pytest.raises(DatasetError, match="end an episode of two steps"):
        open_log(path, fps=10)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (replace("observation/robot_state/cartesian_position", np.zeros((3, 6))), "3 poses, 12 gr"),
        (replace("observation/robot_state/gripper_position", np.full(12, np.nan)), "NaN"),
        (
            lambda f: f.__delitem__("observation/timestamp/cameras"),
            "has no capture times of camera",
        ),
        (lambda f: f.__delitem__("observation/robot_state"), "no array 'cartesian_position'"),
        (replace("observation/timestamp/cameras/17_estimated_capture", np.zeros(12)), "increase"),
    ],
)
def test_damaged_droid_recordings_are_refused(tmp_path, change, message):
    write_droid(tmp_path / "r", np.arange(12) / 15, change=change)
    with pytest.raises(DatasetError, match=message):
        open_log(tmp_path).episode(0)


def test_droid_gaps_missing_videos_and_short_videos_are_refused(tmp_path):
    times = np.arange(12) / 15
    gap = write_droid(tmp_path / "gap", np.where(times > 0.4, times + 1, times))
    with pytest.raises(DatasetError, match="has a gap"):
        open_log(gap).episode(0)
    short = write_droid(tmp_path / "short", times, frames=images(9, 32, 48))
    with pytest.raises(DatasetError, match="9 frames for 12 recorded poses"):
        open_log(short).episode(0)
    (short / "recordings/MP4/17.mp4").unlink()
    with pytest.raises(DatasetError, match="has no images of this camera"):
        open_log(short).episode(0)
    with pytest.raises(DatasetError, match="no metadata with wrist_mp4_path"):
        open_log(short, camera="wrist").episode(0)


def test_what_is_no_log_is_refused(tmp_path):
    for name, content in (("text.hdf5", b"hello"), ("empty.hdf5", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DatasetError, match="cannot be read as HDF5"):
            open_log(tmp_path / name)
    with pytest.raises(DatasetError, match="does not exist"):
        open_log(tmp_path / "absent")
    (tmp_path / "folder").mkdir()
    with pytest.raises(DatasetError, match="none of robomimic, d4rl, minari, droid"):
        detect(tmp_path / "folder")
    with pytest.raises(ConfigError, match="kind = 'rlds'"):
        open_log(tmp_path, "rlds")


def test_episodes_of_other_widths_are_refused(tmp_path):
    def widen(demo):
        if demo.name.endswith("1"):
            replace("actions", actions(7, 4))(demo)

    log = open_log(write_robomimic(tmp_path / "a.hdf5", change=widen))
    with pytest.raises(DatasetError, match="'action': 4"):
        convert_log(log, tmp_path / "set", image_size=16)


def test_an_episode_is_checked_when_built():
    parts = {"proprio": np.zeros((3, 2)), "action": np.ones((3, 2)), "state": np.zeros((3, 2))}
    with pytest.raises(DatasetError, match="must be zeros"):
        LogEpisode(name="x", pixels=images(3), **parts)
    with pytest.raises(DatasetError, match="uint8"):
        LogEpisode(name="x", pixels=images(3) / 255.0, **parts)
    with pytest.raises(DatasetError, match="two at least"):
        LogEpisode(name="x", pixels=images(1), **parts)
