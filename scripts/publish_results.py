"""Copy a run's results into the repository and print its tables as Markdown.

    python scripts/publish_results.py runs/demo benchmarks/results/demo_cpu

Results keep the command, machine and commit that made them; films stay behind (their size), and
what lay in the destination's ``results/`` before is replaced.
"""

import json
import shutil
import sys
from pathlib import Path

from tubelet.benchmarks.probes import ProbeResult
from tubelet.benchmarks.results import load_results
from tubelet.benchmarks.run_report import boards
from tubelet.benchmarks.tables import percent


def main(run: Path, destination: Path) -> None:
    """Copy the results of ``run`` below ``destination`` and print its tables."""
    target = destination / "results"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for path in sorted((run / "results").glob("*.json")):
        stored = json.loads(path.read_text())
        (target / path.name).write_text(json.dumps(stored | {"films": []}) + "\n")
    stored = load_results(destination)
    found = boards(stored)
    rows = {board.kind: {row.name: row for row in board.rows} for board in found}
    print("| method | n | " + " | ".join(f"{b.kind} @end | {b.kind} @any" for b in found) + " |")
    print("|---" * (2 + 2 * len(found)) + "|")
    for row in found[0].rows:
        cells = [row.name, str(row.n)]
        for board in found:
            other = rows[board.kind][row.name]
            spread = ""
            if len(other.seeds) > 1:
                spread = f" (seeds {100 * other.worst_seed:.0f}–{100 * other.best_seed:.0f})"
            cells += [percent(other.at_end) + spread, percent(other.at_any)]
        print("| " + " | ".join(cells) + " |")
    for result in (s.value for s in stored):
        if isinstance(result, ProbeResult):
            e = result.mean
            print(f"probe {result.name}: {e.value:.2f} [{e.low:.2f}, {e.high:.2f}]")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
