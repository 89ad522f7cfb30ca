"""Sets on disk: the same bytes for any workers, resumable, exact, and as their labels say."""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from tubelet.cli.main import main
from tubelet.core.errors import ConfigError, DatasetError
from tubelet.envs.physics import CONDITIONS, PRINCIPLES, leaks
from tubelet.envs.physics.assets import HELD_OUT_SHAPES
from tubelet.envs.physics.generate import generate, write_group
from tubelet.envs.physics.intphys_export import export
from tubelet.envs.physics.jobs import GenerateConfig, jobs
from tubelet.envs.physics.layout import read_lines, read_truth, read_video


def small(out, **changes):
    options = {"workers": 1, "train": 2, "quads": 1, "val": 0, "ood": 0, "size": 48}
    chosen = {"principles": ("permanence",), "conditions": ("occluded",), "out": str(out)}
    return GenerateConfig(**(options | chosen | changes))


def contents(root):
    """Every file of a set by its path, as digests; the marks of time aside."""
    paths = sorted(path for path in root.rglob("*") if path.is_file())
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths
    }


def groups(root, **wanted):
    found = {}
    for record in read_lines(root / "probe" / "labels.jsonl"):
        if all(record[key] == value for key, value in wanted.items()):
            found.setdefault(record["group"], {})[record["recipe"]] = record
    return [*found.values()]


def test_same_bytes_for_any_number_of_workers_and_after_an_interruption(tmp_path, capsys):
    one, two, again = (tmp_path / name for name in ("one", "two", "again"))
    generate(small(one))
    generate(small(two, workers=2))
    assert contents(one) == contents(two)
    config = small(again)
    from tubelet.envs.physics import generate as module

    module._begin(config, again)
    write_group(config, jobs(config)[0])  # as if it had been killed after the first
    write_group(config, jobs(config)[-1])
    with pytest.raises(DatasetError, match="seed = 0"):
        generate(small(again, seed=1))
    generate(config)
    assert contents(one) == contents(again)
    capsys.readouterr()
    generate(config)
    assert "is complete" in capsys.readouterr().out
    assert contents(one) == contents(again)
    with pytest.raises(DatasetError, match="another set"):
        generate(small(again, train=3))


def test_another_seed_is_another_set(tmp_path):
    generate(small(tmp_path / "a", train=1, quads=0))
    generate(small(tmp_path / "b", train=1, quads=0, seed=1))
    a, b = (
        next((tmp_path / name / "train" / "videos").iterdir()).read_bytes() for name in ("a", "b")
    )
    assert a != b


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(DatasetError, match="name another folder"):
        generate(small(tmp_path))


def test_an_impossible_cell_says_why(tmp_path, monkeypatch):
    from tubelet.envs.physics import jobs as module
    from tubelet.envs.physics.assets import Rejected

    def never(ask, rng):
        raise Rejected("the sky is green")

    monkeypatch.setitem(module.TEMPLATES, "permanence", never)
    with pytest.raises(ConfigError, match="80 x the sky is green"):
        generate(small(tmp_path / "set"))


def test_every_principle_is_there_in_both_conditions(voe_set):
    root, told = voe_set
    cells = {(g["group"], g["principle"], g["condition"]) for g in _first(root, kind="probe")}
    assert {cell[1:] for cell in cells} == {(p, c) for p in PRINCIPLES for c in CONDITIONS}
    assert told["videos"] == {"probe": 4 * (24 + 2 + 4 + 1), "train": 4}


def _first(root, **wanted):
    return [next(iter(group.values())) for group in groups(root, **wanted)]


def test_short_windows_are_a_draw_and_longer_ones_need_not_be(voe_set):
    """(W = L + 1) is chance by construction for every scorer; with one frame more, change tells."""
    root, _ = voe_set
    found, told = groups(root, kind="probe", design="splice"), 0
    for group in found:
        videos = {n: np.asarray(read_video(root / "probe", r["video"])) for n, r in group.items()}
        window = group["A"]["chance_window"]
        for extra in (0, 1):
            scores = {n: leaks.window_scores(v, window + extra, 0) for n, v in videos.items()}
            apart = []
            for scorer in scores["A"]:
                total = {name: each[scorer].sum() for name, each in scores.items()}
                apart.append(abs(total["AB"] + total["BA"] - total["A"] - total["B"]))
            if extra == 0:
                assert max(apart) < 1e-9
            else:
                told += max(apart) > 1e-6
    assert told == len(found)


def test_null_quadruplets_are_copies_and_controls_are_all_possible(voe_set):
    root, _ = voe_set
    for group in groups(root, kind="null"):
        for copy, source in (("AB", "A"), ("BA", "B")):
            one, two = (read_video(root / "probe", group[n]["video"]) for n in (copy, source))
            assert np.array_equal(one, two)
        assert group["AB"]["role"] == "impossible"
        assert group["AB"]["chance_window"] == 32
    controls = groups(root, kind="control")
    assert len(controls) == 4
    for group in controls:
        assert {r["role"] for r in group.values()} == {"possible"}
        assert sum(r["surprising"] for r in group.values()) == 2


def test_impossible_videos_break_what_they_say_they_break(voe_set):
    """Ground truth against the labels: who is there, where, before and after the event."""
    root, _ = voe_set

    def things(record, which="present"):
        track, _ = read_truth(root / "probe", record["video"])
        names = [thing["name"] for thing in record["things"]]
        return track, names.index("target")

    for group in groups(root, kind="probe", principle="permanence"):
        track, n = things(group["AB"])
        assert track.present[0, n]
        assert not track.present[-1, n]
    for group in groups(root, kind="probe", principle="inertia", variant="reverse"):
        for recipe, turns in (("A", False), ("AB", True)):
            track, n = things(group[recipe])
            x = track.pose[:, n, 0]
            assert (np.sign(x[5] - x[0]) != np.sign(x[-1] - x[-6])) == turns
    for group in groups(root, kind="probe", principle="gravity", condition="visible"):
        track, n = things(group["21"])  # nothing below, and it stays up
        assert track.pose[-1, n, 2] > 1
        fallen, _ = things(group["22"])
        assert fallen.pose[-1, n, 2] < 0.6
    for group in groups(root, kind="probe", principle="solidity", condition="visible"):
        track, n = things(group["12"])  # the wall is there, and it passes
        wall = [t["name"] for t in group["12"]["things"]].index("wall")
        assert track.present[:, wall].all()
        side = np.sign(track.pose[[0, -1], n, 0] - track.pose[0, wall, 0])
        assert side[0] == -side[1]


def test_hidden_things_hide_and_bridges_are_as_long_as_asked(voe_set):
    root, _ = voe_set
    for principle in ("permanence", "shape", "colour", "identity", "occlusion"):
        for record in _first(root, kind="probe", principle=principle, condition="occluded"):
            assert record["bridge"] == record["axes"]["bridge"] == 4
            lo, hi = record["cuts"][0]["bridge"]
            assert any(a <= lo and hi <= b for a, b in record["hidden"]) or not record["hidden"]
            assert record["gap"] == record["bridge"] + 1


def test_the_ood_split_is_made_of_what_was_held_out(tmp_path):
    config = small(tmp_path / "set", quads=0, ood=1, train=3, principles=("shape",))
    generate(config)
    for record in read_lines(tmp_path / "set" / "probe" / "labels.jsonl"):
        mine = [t for t in record["things"] if t["kind"] == "object"]
        assert all(thing["held_out"] and thing["shape"] in HELD_OUT_SHAPES for thing in mine)
    for record in read_lines(tmp_path / "set" / "train" / "labels.jsonl"):
        assert not any(thing["held_out"] for thing in record["things"])


def test_export_has_the_layout_of_intphys(tmp_path):
    generate(small(tmp_path / "set", train=1))
    out = export(tmp_path / "set", tmp_path / "intphys")
    runs = sorted((out / "dev" / "O1" / "01").iterdir())
    assert [run.name for run in runs] == ["1", "2", "3", "4"]
    possible = []
    for run in runs:
        names = sorted(path.name for path in (run / "scene").iterdir())
        assert names[0] == "scene_001.png"
        assert len(names) == 32
        status = json.loads((run / "status.json").read_text())
        possible.append(status["header"]["is_possible"])
        assert len(status["frames"]) == 32
        levels = set(status["frames"][3]["masks"].values())
        mask = np.asarray(Image.open(run / "masks" / "masks_004.png"))
        assert set(np.unique(mask)) <= levels
        depth = np.asarray(Image.open(run / "depth" / "depth_001.png")).astype(int)
        assert 1000 < 65535 - depth.max() < 12000  # the nearest point: millimetres
    assert sorted(possible) == [False, False, True, True]
    records = {
        r["slot"]: r
        for r in read_lines(tmp_path / "set" / "probe" / "labels.jsonl")
        if r["kind"] == "probe"
    }
    for slot, run in enumerate(runs):
        stored = read_video(tmp_path / "set" / "probe", records[slot]["video"])
        picture = np.asarray(Image.open(run / "scene" / "scene_007.png"))
        assert np.array_equal(picture, stored[6])
    assert (out / "train" / "00001_train" / "status.json").is_file()
    with pytest.raises(DatasetError, match="not empty"):
        export(tmp_path / "set", out)


def test_render_draws_at_any_size(voe_set, tmp_path, capsys):
    root, _ = voe_set
    command = ["voe", "render", "--data", str(root), "--principle", "gravity"]
    assert main([*command, "--size", "96", "--out", str(tmp_path / "a.png")]) == 0
    assert Image.open(tmp_path / "a.png").size == (960, 4 * 96)
    assert main([*command, "--out", str(tmp_path / "a.gif")]) == 0
    with Image.open(tmp_path / "a.gif") as film:
        assert getattr(film, "n_frames", 1) > 1
    assert main(["voe", "render", "--data", str(root), "--group", "nowhere"]) == 2
    assert "holds no group" in capsys.readouterr().err
