"""The report of a run folder."""

from pathlib import Path

from tubelet.benchmarks.run_report import build_report


def test_published_speed_files_of_every_form_are_shown(tmp_path):
    """One setting with a ratio, several settings with intervals, and one that compares nothing."""
    results = Path(__file__).parents[2] / "benchmarks" / "results"
    files = sorted(results.glob("speed_*.json"))
    assert len(files) >= 5
    for file in files:
        (tmp_path / file.name).write_text(file.read_text())
    page = tmp_path / "report.html"
    build_report(tmp_path).write(page)
    text = page.read_text()
    assert "transformers / tubelet" in text
    assert "mujoco.Renderer" in text
    assert "no token lost" in text
