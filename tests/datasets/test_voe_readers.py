"""Readers of violation-of-expectation sets, on fixtures written in exactly their layouts."""

import csv
import gzip
import json
import struct
import zipfile

import numpy as np
import pytest
from PIL import Image

from tubelet.core.errors import ConfigError, DatasetError
from tubelet.datasets.video_writer import write_video
from tubelet.datasets.voe.inflevel import TRIALS, read_inflevel
from tubelet.datasets.voe.intphys import read_intphys, write_submission
from tubelet.datasets.voe.registry import FORMATS, open_voe

SIDE = 16


def clips(frames=6, side=SIDE, seed=0):
    """Possible A and B, and the two recombinations, cut in the middle."""
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 256, (2, frames, side, side, 3), np.uint8)
    cut = frames // 2
    return [a, b, np.concatenate([a[:cut], b[cut:]]), np.concatenate([b[:cut], a[cut:]])]


# --- our own layout -----------------------------------------------------------------------------


def tubelet_set(root, groups=2):
    folder = root / "probe"
    (folder / "videos").mkdir(parents=True)
    (folder / "truth").mkdir()
    about = {"format": "tubelet-voe", "version": 1, "fps": 12, "size": SIDE, "frames": 6}
    (root / "dataset.json").write_text(json.dumps(about))
    lines = []
    for g in range(groups):
        names = [f"{4 * g + i:016x}" for i in range(4)]
        for i, clip in enumerate(clips(seed=g)):
            np.save(folder / "videos" / f"{names[i]}.npy", clip)
            np.savez(
                folder / "truth" / f"{names[i]}.npz",
                pose=np.zeros((6, 1, 7)),
                present=np.ones((6, 1), bool),
            )
            lines.append(
                {
                    **{"video": names[i], "group": f"{g:016x}", "part": "probe", "split": "test"},
                    **{"kind": "probe", "principle": "permanence", "condition": "occluded"},
                    **{"design": "splice", "role": "possible" if i < 2 else "impossible"},
                    "prefix_twin": names[(2, 3, 0, 1)[i]],
                    "suffix_twin": names[(3, 2, 1, 0)[i]],
                    **{"t_event": 3, "t_observable": 3, "bridge": 0, "hidden": [[1, 2]]},
                }
            )
    (folder / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


def rewrite(root, change):
    """Change the label lines of our own layout."""
    path = root / "probe" / "labels.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in change(lines)))


def test_our_own_set_is_read_with_pairs_labels_and_truth(tmp_path):
    voe = open_voe(tubelet_set(tmp_path))
    assert (voe.name, len(voe.videos), len(voe.pairs), voe.refused) == ("tubelet", 8, 8, ())
    first, third = voe.videos[0], voe.videos[2]
    assert (first.possible, third.possible, third.hidden) == (True, False, ((1, 2),))
    assert first.truth.endswith(".npz")
    np.testing.assert_array_equal(first.frames.read([4, 0]), clips()[0][[4, 0]])
    prefix = {(p.possible, p.impossible) for p in voe.pairs if p.match == "prefix"}
    assert (first.name, third.name) in prefix
    assert (first.name, voe.videos[3].name) not in prefix


def test_a_quadruplet_with_a_missing_member_is_refused_and_named(tmp_path):
    root = tubelet_set(tmp_path)
    gone = sorted((root / "probe" / "videos").iterdir())[1]
    gone.unlink()
    voe = open_voe(root)
    assert len(voe.videos) == 4
    assert {gone.stem, "group 0000000000000000"} == {r.what for r in voe.refused}
    assert "3 of 4" in voe.report()


@pytest.mark.parametrize("role", [None, "", "Possible", True])
def test_a_label_is_never_guessed(tmp_path, role):
    root = tubelet_set(tmp_path)
    rewrite(root, lambda lines: [{**lines[0], "role": role}, *lines[1:]])
    voe = open_voe(root)
    assert len(voe.videos) == 4
    assert "neither possible nor impossible" in voe.refused[0].reason


def test_a_line_without_a_role_is_refused(tmp_path):
    root = tubelet_set(tmp_path)
    rewrite(root, lambda ls: [{k: v for k, v in ls[0].items() if k != "role"}, *ls[1:]])
    assert "role" in open_voe(root).refused[0].reason


def test_unequal_lengths_and_sizes_are_refused(tmp_path):
    root = tubelet_set(tmp_path)
    videos = sorted((root / "probe" / "videos").iterdir())
    np.save(videos[0], clips()[0][:5])
    np.save(videos[4], clips(side=8)[0])
    with pytest.raises(DatasetError, match="unequal lengths"):
        open_voe(root)


def test_a_truncated_file_is_refused_with_its_name(tmp_path):
    root = tubelet_set(tmp_path)
    video = sorted((root / "probe" / "videos").iterdir())[5]
    video.write_bytes(video.read_bytes()[:-100])
    assert video.stem in {r.what for r in open_voe(root).refused}


def test_an_unfinished_or_unknown_set_is_an_error(tmp_path):
    root = tubelet_set(tmp_path / "a")
    (root / "dataset.json").write_text('{"format": "tubelet-voe", "version": 2}')
    with pytest.raises(DatasetError, match="version 2"):
        open_voe(root)
    with pytest.raises(DatasetError, match="no known layout"):
        open_voe(tmp_path)
    with pytest.raises(ConfigError, match="did you mean 'intphys'"):
        open_voe(root, "intphis")
    with pytest.raises(DatasetError, match="no such folder"):
        open_voe(tmp_path / "nowhere")


# --- IntPhys -------------------------------------------------------------------------------------

# The order of the runs of a scene is shuffled before release: P, I, I, P here.
ORDER = (0, 3, 2, 1)


def intphys_scene(folder, *, labels=True, frames=6, side=SIDE, seed=0):
    made = clips(frames, side, seed)
    for run, source in enumerate(ORDER, start=1):
        scene = folder / str(run) / "scene"
        scene.mkdir(parents=True)
        for t, frame in enumerate(made[source], start=1):
            Image.fromarray(frame).save(scene / f"scene_{t:03d}.png")
        if labels:
            header = {"block_name": "O1_test", "is_possible": source < 2, "camera": "…"}
            status = {"header": header, "frames": [{"masks": {"floor": 61}}] * frames}
            (folder / str(run) / "status.json").write_text(json.dumps(status))


def read_small_intphys(root):
    return read_intphys(root, size=(SIDE, SIDE))


def test_intphys_dev_finds_pairs_in_shuffled_runs(tmp_path):
    intphys_scene(tmp_path / "O1" / "01")
    intphys_scene(tmp_path / "O3" / "01", seed=1)
    voe = read_small_intphys(tmp_path)
    assert not voe.refused
    assert [v.possible for v in voe.videos[:4]] == [True, False, False, True]
    assert {v.principle for v in voe.videos} == {"permanence", "continuity"}
    pairs = {(p.possible, p.impossible, p.match) for p in voe.pairs if p.group == "O1/01"}
    assert pairs == {
        ("O1/01/1", "O1/01/3", "prefix"),
        ("O1/01/4", "O1/01/2", "prefix"),
        ("O1/01/1", "O1/01/2", "suffix"),
        ("O1/01/4", "O1/01/3", "suffix"),
    }
    np.testing.assert_array_equal(voe.videos[0].frames.read([2]), clips()[0][2:3])


def test_intphys_test_has_no_labels_and_no_pairs(tmp_path):
    intphys_scene(tmp_path / "O2" / "0001", labels=False)
    voe = read_small_intphys(tmp_path)
    assert [v.possible for v in voe.videos] == [None] * 4
    assert voe.pairs == ()
    assert "4 videos without a label" in voe.report()


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        ("{", "no label"),
        ('{"header": {}, "frames": []}', "no label"),
        ('{"header": {"is_possible": "true"}, "frames": []}', "no truth value"),
        ('{"header": {"is_possible": true}, "frames": [{}]}', "1 frames"),
    ],
)
def test_intphys_never_takes_a_damaged_status_for_possible(tmp_path, status, reason):
    intphys_scene(tmp_path / "O1" / "01")
    intphys_scene(tmp_path / "O1" / "02", seed=1)
    (tmp_path / "O1" / "01" / "2" / "status.json").write_text(status)
    voe = read_small_intphys(tmp_path)
    assert {v.group for v in voe.videos} == {"O1/02"}
    assert any(reason in r.reason for r in voe.refused)


def test_intphys_refuses_what_is_incomplete_mixed_or_changed(tmp_path):
    names = ["good", "no-status", "gap", "no-run", "size", "recoded", "two-impossible"]
    for number, name in enumerate(names):
        intphys_scene(tmp_path / "O1" / name, seed=number)
    block = tmp_path / "O1"
    (block / "no-status" / "3" / "status.json").unlink()
    (block / "gap" / "1" / "scene" / "scene_002.png").unlink()
    (block / "no-run" / "4").rename(block / "no-run" / "5")
    Image.new("RGB", (8, 8)).save(block / "size" / "2" / "scene" / "scene_001.png")
    for t, path in enumerate(sorted((block / "recoded").glob("*/scene/*.png"))):
        Image.fromarray(np.array(Image.open(path)) ^ np.uint8(1 + t % 250)).save(path)
    for run in "14":
        path = block / "two-impossible" / run / "status.json"
        path.write_text(path.read_text().replace("true", "false"))
    voe = read_small_intphys(tmp_path)
    assert {v.group for v in voe.videos} == {"O1/good"}
    reasons = {r.what: r.reason for r in voe.refused}
    assert "some of its videos have a status.json" in reasons["O1/no-status"]
    assert "without a gap" in reasons["O1/gap/1"]
    assert "missing" in reasons["O1/no-run/4"]
    assert "not (16, 16)" in reasons["O1/size/2"]
    assert "share 0 leading frames" in reasons["O1/recoded"]
    assert "0 possible and 4 impossible" in reasons["O1/two-impossible"]


def test_a_submission_is_one_line_per_video_in_a_zip(tmp_path):
    scores = {
        f"O1/0001/{run}": value for run, value in zip("3142", (0, 0.25, 0.9751, 1), strict=True)
    }
    write_submission(tmp_path / "s.zip", scores)
    with zipfile.ZipFile(tmp_path / "s.zip") as file:
        assert file.namelist() == ["answer.txt"]
        text = file.read("answer.txt").decode()
    assert text == "O1/0001/1 0.25\nO1/0001/2 1\nO1/0001/3 0\nO1/0001/4 0.9751\n"
    with pytest.raises(DatasetError, match=r"\[0, 1\]"):
        write_submission(tmp_path / "s.zip", {**scores, "O1/0001/1": 1.5})
    with pytest.raises(DatasetError, match="O1/0002/2"):
        write_submission(tmp_path / "s.zip", {**scores, "O1/0002/1": 0.5})


# --- videos: GRASP, InfLevel, IntPhys 2 ----------------------------------------------------------


def film(path, frames=6, seed=0, fps=50, side=SIDE):
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, clips(frames, side, seed)[0], fps=fps)


def test_grasp_pairs_by_index_and_counts_what_is_wrong(tmp_path):
    for prop in ("GravitySupport", "ObjectPermanence2"):
        for kind in ("P", "IP"):
            for number in range(3):
                film(tmp_path / f"{kind}_{prop}" / f"{number:03d}.mp4", seed=number)
    (tmp_path / "IP_GravitySupport" / "000.mp4").unlink()
    (tmp_path / "P_GravitySupport" / "001.mp4").write_bytes(b"no video")
    film(tmp_path / "P_ObjectPermanence2" / "000.mp4", frames=8)
    film(tmp_path / "P_ObjectPermanence2" / "001.mp4", fps=25)
    voe = open_voe(tmp_path)
    assert voe.name == "grasp"
    assert [p.group for p in voe.pairs] == ["GravitySupport/002", "ObjectPermanence2/002"]
    assert voe.videos[0].possible is True
    assert voe.videos[0].tags["concepts"] == ["gravity", "support"]
    assert voe.videos[2].tags["concepts"] == ["permanence"]
    reasons = {r.what: r.reason for r in voe.refused}
    assert "missing" in reasons["GravitySupport/000"]
    assert "001.mp4" in reasons["GravitySupport/001"]
    assert "unequal lengths" in reasons["ObjectPermanence2/000"]
    assert "coded differently" in reasons["ObjectPermanence2/001"]


def test_inflevel_compares_every_possible_with_every_impossible_trial(tmp_path):
    for principle, trials in TRIALS.items():
        for number, trial in enumerate(trials):
            name = f"left__toy__tube__ball__{trial}__LR.mp4"
            film(tmp_path / principle / name, frames=6 + number)
    film(tmp_path / "gravity" / "left__toy__tube__cube__ui.mp4")
    film(tmp_path / "gravity" / "left__toy__tube__cube__vv.mp4")
    voe = read_inflevel(tmp_path)
    labels = {v.tags["trial"]: v.possible for v in voe.videos if v.principle == "gravity"}
    assert labels == {"ui": True, "cv": True, "uv": False, "ci": False}
    labels = {v.tags["trial"]: v.possible for v in voe.videos if v.principle == "continuity"}
    assert labels == {"vv": True, "ii": True, "vi": False, "iv": False}
    assert len(voe.pairs) == 3 * 4
    assert {v.frames.count - v.first for v in voe.videos} == {6}
    reasons = {r.what: r.reason for r in voe.refused}
    assert "one each of" in reasons["gravity/left/tube/cube"]
    assert "the name is not" in reasons["gravity/left__toy__tube__cube__vv.mp4"]


def intphys2(root, scenes=2, labels=True, images=False):
    types = ("1_Possible", "1_Impossible", "2_Possible", "2_Impossible")
    columns = "SceneIndex,name,file_name,game_name,condition,env,type,occluder,Difficulty,Camera"
    rows = []
    for scene in range(scenes):
        for number, kind in enumerate(types):
            file = f"{scene}{number}abc.mp4"
            if images:
                folder = root / "Images" / f"{scene}{number}abc"
                folder.mkdir(parents=True)
                for t, frame in enumerate(clips()[0]):
                    Image.fromarray(frame).save(folder / f"{t:05d}.png")
            else:
                film(root / "Videos" / file, seed=number)
            values = [scene, f"s{scene}", f"Videos/{file}", "g", "continuity", "None_0"]
            rows.append([*values, kind if labels else "", "wall", "Hard", "Fixed"])
    name = "labels.csv" if images else "metadata.csv"
    with open(root / name, "w", newline="") as file:
        header = columns.replace("file_name", "filename") if images else columns
        csv.writer(file).writerows([header.split(","), *rows])


@pytest.mark.parametrize("images", [False, True])
def test_intphys2_as_released_and_as_frames(tmp_path, images):
    intphys2(tmp_path, images=images)
    voe = open_voe(tmp_path)
    assert (voe.name, len(voe.videos), len(voe.pairs), voe.refused) == ("intphys2", 8, 4, ())
    assert (voe.pairs[0].possible, voe.pairs[0].impossible) == ("00abc", "01abc")
    assert (voe.videos[0].principle, voe.videos[0].condition) == ("continuity", "Hard")
    assert voe.videos[0].frames.read([0, 5]).shape == (2, SIDE, SIDE, 3)


def test_intphys2_held_out_has_no_labels_and_missing_videos_are_named(tmp_path):
    intphys2(tmp_path, labels=False)
    voe = open_voe(tmp_path)
    assert {v.possible for v in voe.videos} == {None}
    assert voe.pairs == ()
    (tmp_path / "Videos" / "12abc.mp4").unlink()
    voe = open_voe(tmp_path)
    assert {v.group for v in voe.videos} == {"0"}
    assert any("12abc" in r.what for r in voe.refused)


def test_intphys2_debug_renders_are_groups_of_their_own(tmp_path):
    intphys2(tmp_path, scenes=1)
    table = tmp_path / "metadata.csv"
    lines = table.read_text().splitlines()
    again = []
    for line in lines[1:]:
        copy = line.replace("abc.mp4", "def.mp4")
        again.append(copy)
        file = copy.split(",")[2]
        film(tmp_path / file)
    table.write_text("\n".join([*lines, *again]) + "\n")
    voe = open_voe(tmp_path)
    assert set(voe.groups()) == {"0", "0.1"}
    assert len(voe.pairs) == 4


# --- Physical Concepts ---------------------------------------------------------------------------


def field(number, payload):
    """A length-delimited protocol buffer field."""
    return varint(number << 3 | 2) + varint(len(payload)) + payload


def varint(value):
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def example(features):
    entries = b""
    for key, value in features.items():
        if isinstance(value, bytes):
            inner = field(1, field(1, value))
        else:
            inner = field(2, field(1, np.asarray(value, "<f4").tobytes()))
        entries += field(1, field(1, key.encode()) + field(2, inner))
    return field(1, entries)


def record(payload):
    return struct.pack("<QI", len(payload), 0) + payload + struct.pack("<I", 0)


def quadruplet(seed):
    made = np.stack(clips(15, 64, seed))
    return {
        "possible_image": made[:2].tobytes(),
        "possible_camera_pose": np.zeros(2 * 15 * 6),
        "impossible_image": made[2:].tobytes(),
        "impossible_mask": bytes(2 * 15 * 64 * 64),
    }


def test_physical_concepts_records_are_quadruplets(tmp_path):
    for number in range(2):
        path = tmp_path / "probes" / "continuity" / f"data.tfrecord-0000{number}-of-00020"
        path.parent.mkdir(parents=True, exist_ok=True)
        broken = {k: v for k, v in quadruplet(9).items() if k != "impossible_image"}
        parts = [quadruplet(2 * number), broken, quadruplet(2 * number + 1)]
        path.write_bytes(gzip.compress(b"".join(record(example(p)) for p in parts), 1))
    voe = open_voe(tmp_path)
    assert voe.name == "physical-concepts"
    assert list(voe.groups()) == [f"continuity/0000{n}/000{m}" for n in (0, 1) for m in (0, 2)]
    assert len(voe.pairs) == 4 * 4
    video = voe.groups()["continuity/00001/0002"][1]
    np.testing.assert_array_equal(video.frames.read([14, 3]), clips(15, 64, 3)[1][[14, 3]])
    pair = next(p for p in voe.pairs if p.match == "prefix")
    assert (pair.possible[-2:], pair.impossible[-2:]) == ("p1", "i1")
    assert all("impossible_image" in r.reason for r in voe.refused)
    assert len(voe.refused) == 2


def test_a_cut_off_shard_is_refused_but_what_was_whole_is_read(tmp_path):
    path = tmp_path / "solidity" / "data.tfrecord-00000-of-00020"
    path.parent.mkdir()
    whole = record(example(quadruplet(0)))
    path.write_bytes(gzip.compress(whole + whole[:1000], 1))
    voe = open_voe(tmp_path)
    assert len(voe.videos) == 4
    assert "cut off" in voe.refused[0].reason


def test_every_layout_says_how_it_is_recognised(tmp_path):
    assert [name for name, (fits, _) in FORMATS.items() if fits(tmp_path)] == []
