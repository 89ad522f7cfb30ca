"""The page of a scoring run, in a real browser: tables, curves, bridge map, gallery with films."""

import numpy as np
import pytest

from tubelet.benchmarks.voe.films import heat
from tubelet.benchmarks.voe.report import report
from tubelet.benchmarks.voe.score import score_set
from tubelet.benchmarks.voe.settings import ReportConfig, ScoreConfig
from tubelet.benchmarks.voe.store import open_run
from tubelet.benchmarks.voe.windows import WindowConfig
from tubelet.vjepa.formats.checkpoint import Checkpoint

from .browser import NAMES, Page, find_browser
from .test_voe_score import tiny
from .voe_toy import bridged, voe_set

HOSTILE = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The page of an untrained model on eight groups of noise with bridges of seven frames."""
    root, parts = tmp_path_factory.mktemp("report"), tiny(5)
    Checkpoint(parts.encoder, parts.predictor).save_pretrained(root / "model")
    voe = voe_set(
        bridged(8, bridge=7), cut=10, principle=HOSTILE, bridge=7, hidden=((7, 14),), fps=8.0
    )
    windows = WindowConfig(window=8, contexts=(2, 6), stride=2, skip=1)
    config = ScoreConfig(
        data="toy", model=str(root / "model"), windows=windows, gallery=2, untrained=2
    )
    score_set(voe, config, root / "run")
    path = root / "page.html"
    report(ReportConfig(runs=(str(root / "run"),), out=str(path)))
    return path


def test_the_page_holds_gallery_and_tables_and_escapes_names(page):
    text = page.read_text()
    for said in ("gain over copy", "untrained (2 seeds)", "Hits", "Misses", "Surprise over time"):
        assert said in text, said
    assert "<script" not in text
    kept = sorted(p.name[:4] for p in (page.parent / "run" / "tokens").glob("*.npz"))
    assert kept == ["hit-", "hit-", "miss", "miss"]
    assert text.count("data:video/mp4") == 4


def test_a_browser_shows_it_without_complaint_or_request(page, tmp_path):
    if find_browser() is None:
        pytest.skip(f"no browser is installed (looked for {', '.join(NAMES)})")
    (tmp_path / "profile").mkdir()
    with Page(page, tmp_path / "profile") as shown:
        heads = shown.value("[...document.querySelectorAll('h3')].map(e => e.innerText)")
        for wanted in ("Surprise over time", "Accuracy by context and bridge", "Hits", "Misses"):
            assert wanted in heads
        height = "e.getBoundingClientRect().height"
        drawn = shown.value(f"[...document.querySelectorAll('figure svg')].map(e => {height})")
        assert len(drawn) == 2
        assert min(drawn) > 50
        hatched = "[...document.querySelectorAll('figure svg pattern')].length"
        assert shown.value(hatched) >= 1
        tables = shown.value("[...document.querySelectorAll('table')].map(t => t.rows.length)")
        assert len(tables) == 4
        assert min(tables) >= 2
        films = shown.value(
            "Promise.all([...document.querySelectorAll('video')].map(v => new Promise(done => {"
            "const ready = () => done([v.duration, v.videoWidth, v.videoHeight]);"
            "v.readyState >= 1 ? ready() : (v.onloadedmetadata = ready, v.load()); })))"
        )
        assert films == [[pytest.approx(20 / 8, abs=0.1), 392, 192]] * 4
        spilt = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert shown.value(spilt) <= 0
        assert shown.messages == []
        assert [url for url in shown.requests if not url.startswith("file:")] == []


def test_heat_of_a_frame_is_the_mean_over_the_windows_that_predict_it(page):
    run = open_run(page.parent / "run")
    tokens = np.full((7, 4, 2, 2), np.nan)  # windows, steps of two frames
    tokens[0, 1:] = 1.0
    tokens[1, 1:] = 3.0
    found = heat(run, tokens, 2, 0, 20)[:, 0, 0]
    np.testing.assert_array_equal(found[2:10], [1, 1, 2, 2, 2, 2, 3, 3])
    assert np.isnan(found[[0, 1, 10]]).all()
