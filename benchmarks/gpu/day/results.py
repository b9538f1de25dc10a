"""The file of a day's results, one JSON object a line: what a case of a part gave, or how a part ended.

Invariant: a line is on the disk before the next case begins, so a killed run has lost at most the case that it was in. A line that a kill
has cut off is ignored, and the next line does not continue it.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Figures = dict[str, Any]
FINISHED = "finished"
# How a part ends that has more to measure, but not in a process whose device may be in any state.
AGAIN = "It goes on in a new process: run it again."


@dataclass(frozen=True)
class Measured:
    """What one case gave: a row, or several that were measured together; each maps columns to figures."""

    case: str
    rows: Sequence[Figures]


class Results:
    """The results in a file, which may not exist yet."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def add(self, part: str, measured: Measured) -> None:
        """Keep what a case gave."""
        self._append({"part": part, "case": measured.case, "rows": list(measured.rows)})

    def end(self, part: str, how: str, seconds: float) -> None:
        """Keep how a part ended: `FINISHED`, or a sentence."""
        self._append({"part": part, "end": how, "seconds": round(seconds, 1)})

    def measured(self, part: str) -> list[Measured]:
        """The cases of a part, in the order in which they were measured."""
        return [Measured(line["case"], line["rows"]) for line in self._lines() if line["part"] == part and "case" in line]

    def cases(self, part: str) -> set[str]:
        """The names of the cases of a part that are measured."""
        return {measured.case for measured in self.measured(part)}

    def ended(self, part: str) -> str | None:
        """How the part ended last; None if it never has."""
        return next((line["end"] for line in reversed(list(self._lines())) if line["part"] == part and "end" in line), None)

    def ends(self, part: str) -> int:
        """How often the part has ended."""
        return sum(line["part"] == part and "end" in line for line in self._lines())

    def _lines(self) -> Iterator[Figures]:
        text = self.path.read_text() if self.path.exists() else ""
        # What stands behind the last end of a line was cut off.
        for line in text.split("\n")[:-1]:
            try:
                yield json.loads(line)
            except ValueError:
                continue

    def _append(self, line: Figures) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab+") as file:
            if file.tell():
                file.seek(-1, os.SEEK_END)
                whole = file.read(1) == b"\n"
                file.write(b"" if whole else b"\n")
            file.write(json.dumps(line).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
