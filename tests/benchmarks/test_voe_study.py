"""The study from nothing to tables: once through, again without work, another arm on top."""

import json

import pytest

from tubelet.benchmarks.voe_arms import ARMS, Arm, score_config, train_config
from tubelet.benchmarks.voe_study import SIZES, VoeStudyConfig, run_voe_study
from tubelet.core.errors import ConfigError


def test_every_arm_changes_one_thing_and_fits_its_videos():
    base = Arm()
    for name, change in ARMS.items():
        arm = Arm(**change)
        future = name.startswith("future masks, ")
        compared = Arm(future=True) if future else base
        assert name in ("base", "long clips") or len(change) == 1 + future
        assert (arm.trained_as == compared.trained_as) == ("window" in name or name == "base")
        scored = score_config(arm, data="d", model="m", out="o", untrained=1, threads=1)
        assert scored.windows.span <= SIZES["small"].generate.resolved().frames
        assert all(context % 2 == 0 for context in scored.windows.contexts)
        run = train_config(arm, "v", "o", seed=3, threads=1)
        assert run.train.seed == 3
        assert (run.clips.frames - 1) * run.clips.frame_step < 48


def test_small_is_what_was_asked_for():
    size = SIZES["small"].generate.resolved()
    assert size.quads >= 25
    assert len(SIZES["small"].generate.principles) == 12
    assert len(SIZES["small"].generate.conditions) == 2


def test_wrong_settings_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="half data"):
        VoeStudyConfig(arms=("half date",))
    with pytest.raises(ConfigError, match="debug"):
        VoeStudyConfig(preset="debgu")  # pyright: ignore
    (tmp_path / "study.json").write_text(json.dumps({"preset": "small"}))
    with pytest.raises(ConfigError, match="name another --out"):
        run_voe_study(VoeStudyConfig(preset="debug", out=str(tmp_path)))


@pytest.mark.slow
def test_from_nothing_to_tables_and_on_from_there(tmp_path):
    config = VoeStudyConfig(preset="debug", out=str(tmp_path))
    tables = {table.title.split(",")[0]: table for table in run_voe_study(config)}
    accuracy = tables["Pair accuracy"]
    assert {"model", "gain over copy", "copy", "ground truth", "frame difference"} <= set(
        accuracy.columns
    )
    kept = {p: p.stat().st_mtime_ns for p in (tmp_path / "stages").iterdir()}
    assert {p.stem.split("-")[0] for p in kept} == {"generate", "check", "train", "score"}
    corpus = (tmp_path / "train" / SIZES["debug"].arm.trained_as / "corpus.txt").read_text()
    assert corpus.startswith("6 videos usable, 0 of 6 bad")
    more = run_voe_study(VoeStudyConfig(preset="debug", out=str(tmp_path), arms=("half data",)))
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    arms = next(table for table in more if table.title.startswith("Arms"))
    assert arms.columns[2:] == ["base", "half data"]
    listed = next((tmp_path / "train").glob("*.txt")).read_text().splitlines()
    assert len(listed) == SIZES["debug"].generate.resolved().train // 2
