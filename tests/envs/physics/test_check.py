"""A sound set passes; a broken generator is named for what it broke."""

import functools
import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from tubelet.cli.main import main
from tubelet.envs.physics import jobs as jobs_module
from tubelet.envs.physics.check import CheckConfig, check
from tubelet.envs.physics.generate import generate
from tubelet.envs.physics.jobs import GenerateConfig
from tubelet.envs.physics.layout import read_lines, write_lines, write_video


def test_a_sound_set_passes_every_check(voe_set, capsys):
    root, _ = voe_set
    assert main(["voe", "check", "--data", str(root), "--redraw", "40"]) == 0
    said = capsys.readouterr().out
    assert "passed all" in said
    told = json.loads((root / "check.json").read_text())
    assert told["passed"]
    assert {"frame multiset", "bridge", "short windows", "lossless"} <= set(told["checks"])
    assert told["facts"]["leak: single-frame probe"].startswith("AUC 0.500")


KEPT = {"permanence", "shape", "inertia", "solidity", "gravity", "containment"}
"""The principles of the sets that are broken: ten quadruplets and more are enough."""


@pytest.fixture
def broken(voe_set, tmp_path):
    """A copy of a part of the set to break: (folder of its probes, their labels)."""
    shutil.copytree(voe_set[0], tmp_path / "set")
    folder = tmp_path / "set" / "probe"
    labels = read_lines(folder / "labels.jsonl")
    records = [r for r in labels if r["kind"] == "probe" and r["principle"] in KEPT]
    for record in labels:
        if record not in records:
            (folder / "videos" / f"{record['video']}.npy").unlink()
    write_lines(folder / "labels.jsonl", records)
    write_lines(folder / "videos.jsonl", [{"video": r["video"]} for r in records])
    return folder, records


def failures(folder, redraw=0):
    report = check(CheckConfig(data=str(folder.parent), redraw=redraw))
    assert not report.passed
    assert "FAILED" in report.text()
    return {name for name, wrong in report.failures.items() if wrong}


def rewrite(folder, record, change):
    """Change the frames of one video in place."""
    frames = np.load(folder / "videos" / f"{record['video']}.npy")
    write_video(folder, record["video"], change(frames.copy()))


def one_pixel(frames):
    frames[:, 0, 0] ^= 1
    return frames


def jpeg(frames):
    out = []
    for frame in frames:
        buffer = io.BytesIO()
        Image.fromarray(frame).save(buffer, format="JPEG", quality=90)
        out.append(np.asarray(Image.open(buffer)))
    return np.stack(out)


def test_one_pixel_that_tells_is_found_in_both_designs(broken):
    folder, records = broken
    for record in records:
        if record["role"] == "impossible" and record["design"] == "splice":
            rewrite(folder, record, one_pixel)
    assert {"frame multiset", "prefix", "short windows"} <= failures(folder)


def test_one_pixel_in_factorial_quadruplets_is_found(broken):
    folder, records = broken
    for record in records:
        if record["role"] == "impossible" and record["design"] == "factorial":
            rewrite(folder, record, one_pixel)
    found = failures(folder)
    assert {"prefix", "t_observable"} <= found
    assert "frame multiset" not in found


def test_a_lossy_codec_is_found(broken):
    folder, records = broken
    for record in records:
        rewrite(folder, record, jpeg)
    # One encoder, frame by frame, keeps equal frames equal: only the states tell.
    assert failures(folder, redraw=8) == {"lossless"}


def test_an_order_that_was_not_shuffled_is_found(broken):
    folder, records = broken
    for group in {r["group"] for r in records}:
        mine = sorted((r for r in records if r["group"] == group), key=lambda r: r["role"])
        for slot, record in enumerate(reversed(mine)):
            record["slot"] = slot
    write_lines(folder / "labels.jsonl", records)
    assert failures(folder) == {"leak: slot"}


def test_a_label_in_the_file_name_is_found(broken):
    folder, records = broken
    new = {r["video"]: f"{r['role']}-{r['video']}" for r in records} | {None: None}
    for record in records:
        old = record["video"]
        record |= {key: new[record[key]] for key in ("video", "prefix_twin", "suffix_twin")}
        for kind, ending in (("videos", "npy"), ("truth", "npz")):
            (folder / kind / f"{old}.{ending}").rename(folder / kind / f"{new[old]}.{ending}")
    records.sort(key=lambda record: record["video"])
    write_lines(folder / "labels.jsonl", records)
    write_lines(folder / "videos.jsonl", [{"video": r["video"]} for r in records])
    assert failures(folder) == {"names"}


def test_time_stamps_that_tell_are_found(broken):
    folder, records = broken
    for record in records:
        if record["role"] == "impossible":
            os.utime(folder / "videos" / f"{record['video']}.npy")
    assert failures(folder) == {"time stamps", "leak: time stamp"}


def test_exchanged_labels_are_found(broken):
    folder, records = broken
    pair = [r for r in records if r["kind"] == "probe" and r["principle"] == "shape"][:1]
    for record in records:
        if record["group"] == pair[0]["group"] and record["recipe"] in ("A", "AB"):
            record["role"] = "possible" if record["recipe"] == "AB" else "impossible"
    write_lines(folder / "labels.jsonl", records)
    assert "frame multiset" in failures(folder)


def test_a_claimed_bridge_that_is_too_long_is_found(broken):
    folder, records = broken
    for record in records:
        for cut in record["cuts"]:
            cut["bridge"][1] += 1
            cut["length"] += 1
        if record["cuts"]:
            record["bridge"] += 1
            record["chance_window"] += 1
    write_lines(folder / "labels.jsonl", records)
    assert {"bridge", "short windows"} <= failures(folder)


def test_probes_among_the_training_videos_are_found(broken):
    folder, records = broken
    train = folder.parent / "train"
    name = read_lines(train / "labels.jsonl")[0]["video"]
    write_video(train, name, np.load(folder / "videos" / f"{records[0]['video']}.npy"))
    assert failures(folder) == {"duplicates"}


def test_missing_files_are_named(broken):
    folder, records = broken
    (folder / "videos" / f"{records[0]['video']}.npy").unlink()
    assert failures(folder) == {"files"}


def test_shadows_give_hidden_things_away(tmp_path, monkeypatch):
    """A shadow is in sight before its object: the byte-equal bridge is shorter than asked."""
    monkeypatch.setattr(jobs_module, "draw", functools.partial(jobs_module.draw, shadows=True))
    config = GenerateConfig(
        out=str(tmp_path / "set"),
        workers=1,
        train=0,
        quads=2,
        val=0,
        ood=0,
        size=48,
        principles=("permanence",),
        conditions=("occluded",),
    )
    generate(config)
    report = check(CheckConfig(data=config.out, redraw=4))
    assert report.failures["bridge"], report.text()
    assert report.failures["lossless"]


def test_a_folder_without_a_set_is_refused(tmp_path, capsys):
    assert main(["voe", "check", "--data", str(tmp_path)]) == 2
    assert "holds no set" in capsys.readouterr().err
