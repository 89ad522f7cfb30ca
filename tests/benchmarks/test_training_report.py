"""The page of a training run, as text and in a real browser."""

import json
import math

import numpy as np
import pytest

from tubelet.benchmarks.run_report import build_report
from tubelet.benchmarks.training_report import explain, group_of
from tubelet.cli.main import main
from tubelet.core.errors import TubeletError
from tubelet.core.run import RunDir
from tubelet.datasets.video_writer import write_video

from .browser import NAMES, Page, find_browser

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of pretraining on three good videos and a bad one with a hostile name."""
    root = tmp_path_factory.mktemp("run")
    (root / "films").mkdir()
    for number in range(3):
        film = np.random.default_rng(number).integers(0, 255, (8, 32, 32, 3), np.uint8)
        write_video(root / "films" / f"{number}.mp4", film, fps=10)
    (root / "films" / "<b>bad<b>.mp4").write_bytes(b"nothing")
    flags = ["--train.loop.steps", "6", "--train.loop.report-every", "2", "--threads", "1"]
    where = ["--videos", str(root / "films"), "--out", str(root / "run"), "--device", "cpu"]
    assert main(["pretrain", "--preset", "debug", *where, *flags]) == 0
    with open(root / "run" / "metrics.jsonl", "a") as log:
        log.write(json.dumps({"step": 5, HOSTILE: 1.0, "probe/linear": 0.4}) + "\n")
    return root / "run"


def test_the_page_says_all_that_a_run_knows(trained, capsys):
    assert main(["report", str(trained)]) == 0
    assert "report.html" in capsys.readouterr().out
    page = (trained / "report.html").read_text()
    verdict = (trained / "verdict.txt").read_text().split(":")[0].strip()
    assert verdict in page
    for said in (
        "Is it healthy?",
        "effective dimensions of 48",
        "Waiting for data took",
        "train/loss",
        "train/grad_norm",
        "target_rank",
        "probe/linear",
        "short-range masks, long-range masks",
        "principal components",
        "1 files that were left out, and why",
        "&lt;b&gt;bad&lt;b&gt;.mp4",
        "Machine",
        "config.toml",
    ):
        assert said in page, said
    assert "<script" not in page
    assert HOSTILE not in page
    assert page.count("data:image/png") == 2
    assert page.count("data:video/mp4") == 1


def test_both_spellings_of_the_folder_are_understood(trained, tmp_path, capsys):
    out = str(tmp_path / "page.html")
    assert main(["report", "--run", str(trained), "--out", out]) == 0
    assert (tmp_path / "page.html").exists()
    assert main(["report", str(trained), "--run", str(tmp_path)]) == 2
    assert "name one run folder" in capsys.readouterr().err
    assert main(["report"]) == 2
    assert "name the run folder" in capsys.readouterr().err


def test_a_browser_shows_it_without_complaint_or_request(trained, tmp_path):
    if find_browser() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")
    build_report(trained).write(tmp_path / "page.html")
    (tmp_path / "profile").mkdir()
    with Page(tmp_path / "page.html", tmp_path / "profile") as page:
        titles = page.value("[...document.querySelectorAll('h2')].map(e => e.innerText)")
        expected = [
            "Is it healthy?",
            "Curves",
            "Data",
            "What it sees",
            "Machine",
            "How it was made",
        ]
        assert titles == expected
        height = "e.getBoundingClientRect().height"
        drawn = page.value(f"[...document.querySelectorAll('figure svg')].map(e => {height})")
        assert len(drawn) >= 4
        assert min(drawn) > 50
        wide = page.value("[...document.images].map(e => e.complete ? e.naturalWidth : 0)")
        assert len(wide) == 2
        assert min(wide) > 100
        seconds = page.value(
            "new Promise(done => { const v = document.querySelector('video');"
            " if (v.readyState) done(v.duration);"
            " v.onloadedmetadata = () => done(v.duration); v.onerror = () => done(-1); })"
        )
        assert seconds == pytest.approx(4 / 6, abs=0.1)
        text = page.value("document.body.innerText")
        assert "Reading" in text
        assert page.value("document.querySelectorAll('script').length") == 0
        overflow = page.value("document.documentElement.scrollWidth - innerWidth")
        assert overflow <= 0
        assert page.messages == []
        assert page.requests == [f"file://{tmp_path / 'page.html'}"]


def test_what_is_not_there_is_said_and_the_rest_is_shown(trained, tmp_path):
    for name in ("config.toml", "metrics.jsonl", "versions.json"):
        (tmp_path / name).write_text((trained / name).read_text())
    page = build_report(tmp_path).html()
    assert "keeps no index of its corpus" in page
    assert "train/loss" in page
    (tmp_path / ".corpus.jsonl").write_text((trained / ".corpus.jsonl").read_text())
    page = build_report(tmp_path).html()
    assert "No picture of features" in page
    assert "short-range masks" in page
    (tmp_path / "corpus.json").write_text("{")
    with pytest.raises(TubeletError, match=r"corpus\.json: not readable"):
        build_report(tmp_path)


def test_a_run_of_another_kind_has_its_curves_and_predictions(tmp_path):
    from tubelet.vjepa.optim import OptimConfig

    with RunDir.create(tmp_path / "run", OptimConfig()) as run:
        for step in range(3):
            loss = math.nan if step == 1 else 1.0 / (step + 1)
            run.log(step, **{"train/loss": loss, "pace/wait_share": 0.5})
    (tmp_path / "run" / "prediction.json").write_text(
        json.dumps({"over_copy": 0.1234, "shuffled": 9.0})
    )
    page = build_report(tmp_path / "run").html()
    assert "is 0.123 times that of copying the first latent" in page
    assert "it is 9 times as large" in page
    assert "Waiting for data took 50.0 % of the time. Reading is what limits" in page
    assert "NaN or infinite at least once: train/loss" in page
    assert "What it sees" not in page


def test_words_follow_the_numbers():
    report = {"clip_std": 0.5, "target_rank": 20.0, "prediction_std": 0.3, "loss_over_mean": 0.7}
    said = " ".join(explain(report, 96))
    assert "20.0 effective dimensions of 96 (under 4.8" in said
    assert "the visible part is being used" in said
    assert "context is not used yet" in " ".join(explain({"loss_over_mean": 1.2}, 96))
    assert explain({}, 96) == []


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("train/regress_0", "Losses"),
        ("train/loss", "Losses"),
        ("train/lr", "Optimisation"),
        ("train/grad_norm", "Optimisation"),
        ("pace/wait_share", "Pace"),
        ("pace/clips_per_second", "Pace"),
        ("clip_std", "Diagnostics"),
        ("probe/linear", "Probes of labelled clips"),
        ("probe/direction/knn", "Probes of labelled clips"),
        ("eval/x", "Other"),
    ],
)
def test_scalars_find_their_group(name, group):
    assert group_of(name) == group
