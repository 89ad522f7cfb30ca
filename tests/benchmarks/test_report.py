from html.parser import HTMLParser

import numpy as np
import pytest

from tubelet.benchmarks import charts
from tubelet.benchmarks.report import Report

VOID = {"meta", "link", "img", "br", "input"}
HOSTILE = "<script>alert('x')</script> & \"quoted\" $\\frac{"


class Page(HTMLParser):
    """Checks that tags balance and collects them."""

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.words, self.attributes = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, *pair) for pair in attrs]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


def full_report():
    report = Report(HOSTILE, HOSTILE)
    report.add_text(HOSTILE)
    report.add_section(HOSTILE)
    report.add_heading(HOSTILE)
    report.add_table(
        [HOSTILE, "n"], [[HOSTILE, 0.123456], ["b", "yes"]], note=HOSTILE, emphasis=["strong", ""]
    )
    report.add_figure(b"not really a png", HOSTILE)
    lines = [{"step": i, HOSTILE: 1 / (i + 1)} for i in range(3)]
    report.add_figure(charts.training_curves({"run": lines, HOSTILE: lines}), HOSTILE)
    report.add_video(b"\0\0mp4", HOSTILE)
    report.add_details(HOSTILE, HOSTILE)
    return report


def test_tags_balance_and_hostile_names_are_only_text():
    page = Page(full_report().html())
    assert "script" not in page.tags
    assert not any(name.startswith("on") for _, name, _ in page.attributes)
    assert "".join(page.words).count(HOSTILE) >= 9
    assert {"table", "svg", "img", "video", "details"} <= set(page.tags)
    assert "0.1235" in page.words


def test_nothing_is_fetched():
    page = Page(full_report().html())
    sources = [v for tag, name, v in page.attributes if name in ("src", "href", "xlink:href")]
    assert sources
    assert all(v.startswith(("data:", "#")) for v in sources)
    policy = next(v for tag, name, v in page.attributes if name == "content" and "default-src" in v)
    assert policy.startswith("default-src 'none'")


def test_ids_are_unique_even_for_equal_drawings_of_different_data():
    report = Report("r")
    for scale in (1, 2):
        lines = [{"step": i, "loss": scale * i} for i in range(3)]
        report.add_figure(charts.training_curves({"run": lines}), "c")
    ids = [v for _, name, v in Page(report.html()).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_write_is_one_file(tmp_path):
    full_report().write(tmp_path / "sub" / "report.html")
    assert [p.name for p in (tmp_path / "sub").iterdir()] == ["report.html"]


def test_training_curves_skip_gaps_and_put_losses_first():
    lines = [{"step": 0, "b": None, "z/loss": 1.0}, {"step": 1, "b": 2.0, "z/loss": 0.5}]
    words = Page(charts.training_curves({"run": lines})).words
    assert words.index("z/loss") < words.index("b")
    many = [{"step": s, **{f"m{i}": float(np.sin(s)) for i in range(20)}} for s in range(2)]
    assert "m11" in charts.training_curves({"run": many})
    assert "m12" not in charts.training_curves({"run": many})


def test_table_rows_and_emphasis_must_match():
    with pytest.raises(ValueError, match="zip"):
        Report("r").add_table(["a"], [["b"]], emphasis=["", ""])
