"""Progress yields every item and stays out of the way of logs."""

from tubelet.core.run import progress


def test_yields_all_items_of_a_count_or_an_iterable(capsys):
    assert list(progress(3, "count")) == [0, 1, 2]
    assert list(progress(iter("ab"), "letters", total=2)) == ["a", "b"]
    assert list(progress(iter("ab"), "unknown length")) == ["a", "b"]
    assert list(progress(0, "nothing")) == []
    out = capsys.readouterr()
    assert out.out == ""
    assert "count  3/3" in out.err


def test_no_escape_codes_off_a_terminal_and_markup_is_literal(capsys):
    bar = progress(2, "[bold]train")
    for step in bar:
        bar.note(f"loss {step}")
    text = capsys.readouterr().err
    assert "\x1b" not in text
    assert "[bold]train  2/2" in text
    assert "loss 1" in text


def test_a_terminal_gets_a_bar_and_nested_bars_work(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    seen = [(a, b) for a in progress(2, "outer") for b in progress(2, "inner")]
    assert seen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert "outer" in capsys.readouterr().err
