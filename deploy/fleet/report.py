"""The table of seeds."""

from collections.abc import Sequence
from itertools import dropwhile
from pathlib import Path

from deploy.fleet.trial import Outcome

KINDS = ("replica killed", "replica stopped", "master killed", "master stopped")


def write_report(file: Path, outcomes: Sequence[Outcome]) -> None:
    """Write the table into a page, in place of the first table that it has."""
    head = ("seed", "acknowledged", "refused", "open", "revisions", "lists", "failed", "behind", "latest", *KINDS, "broken", "seconds")
    rows = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for each in outcomes:
        cells: list[object] = [each.seed, each.acknowledged, each.refused, each.open, each.revisions, each.lists, each.failed, each.behind]
        cells += [f"{each.latest:.2f} s", *(each.faults.get(kind, 0) for kind in KINDS), len(each.complaints), f"{each.seconds:.0f}"]
        rows.append(f"| {' | '.join(map(str, cells))} |")
    lines = file.read_text().splitlines() if file.exists() else ["# A fleet under faults", ""]
    place = next((number for number, line in enumerate(lines) if line.startswith("|")), len(lines))
    before, after = lines[:place], list(dropwhile(lambda line: line.startswith("|"), lines[place:]))
    file.write_text("\n".join([*before, *rows, *after]) + "\n")
