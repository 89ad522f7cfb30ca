"""Wide tables stay readable in a narrow terminal."""

import pytest

from tubelet.benchmarks.results import Table
from tubelet.cli.console import blocks, print_blocks, shortened

COLUMNS = ["principle", "pairs (groups)", "model", "gain over copy", "copy", "frame difference"]
ROWS = [
    [
        *("solidity, occluded", "50 (25)", "97.5 [93.1, 99.6]"),
        *("+2.5 [-0.4, +4.0]", "95.0 [88.2, 99.0]", "100.0 [86.7, 100.0]"),
    ],
    [
        *("all probes", "1200 (600)", "61.0 [59.0, 63.2]"),
        *("+1.0 [+0.2, +2.0]", "60.0 [58.1, 62.0]", "–"),
    ],
]
TABLE = Table(title="Pair accuracy", columns=COLUMNS, rows=ROWS, note="How to read it.")


@pytest.mark.parametrize("width", [60, 71, 72, 73, 80, 200])
def test_no_cell_is_cut_and_no_line_too_long(capsys, width):
    print_blocks(TABLE, width=width)
    shown = capsys.readouterr().out
    assert "…" not in shown
    assert max(map(len, shown.splitlines())) <= width
    for cell in ("solidity, occluded", "97.5 [93, 100]", "+2.5 [-0, +4]", "100.0 [87, 100]", "–"):
        assert cell in shown
    assert shown.count("How to read it.") == 1
    rows = [[shortened(cell) for cell in row] for row in ROWS]
    assert shown.count("solidity, occluded") == len(blocks(COLUMNS, rows, width))


def test_every_column_is_in_one_block_and_the_first_in_all():
    for width in (10, 50, 90, 500):
        found = blocks(COLUMNS, ROWS, width)
        assert all(block[0] == 0 for block in found)
        rest = [column for block in found for column in block[1:]]
        assert rest == [1, 2, 3, 4, 5]
    assert len(blocks(COLUMNS, ROWS, 500)) == 1


def test_chosen_columns_alone_are_shown(capsys):
    print_blocks(TABLE, ["principle", "copy", "no such column"], width=80)
    shown = capsys.readouterr().out
    assert "95.0 [88, 99]" in shown
    assert "97.5" not in shown
