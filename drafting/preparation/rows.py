"""Batches of rows of a table, and the lines that are no rows.

Invariant: every line that can't be used is counted and the first few are named; if they are more than a share of all lines, the data are
refused.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from drafting.errors import InteractionError

# Is told what was found and decided, a sentence at a time.
Tell = Callable[[str], None]
NAMED = 5
# So many bad lines are told while others are still read, which may take long.
TOLD_EARLY = 10_000


@dataclass(frozen=True)
class RowBatch:
    """Some rows.

    Attributes:
        columns: Arrow arrays of one length, by name; texts unless the file has types.
        line_of: the number of the line (or row, where there are no lines) of a row, from 1.
        size: number of rows.
        is_text: whether it is delimited text, in which a row without values is a blank line.
    """

    path: Path
    columns: Mapping[str, Any]
    line_of: Callable[[int], int]
    size: int
    is_text: bool = False


@dataclass
class BadLines:
    """The lines that can't be used.

    Attributes:
        share: share of all lines that may be bad.
        lines: number of all lines.
        bad: number of bad ones.
        examples: the first few of these.
        advice: sentences on what to do if they are too many, once each.
        tell: is told the first few once there are many.
    """

    share: float = 0.01
    lines: int = 0
    bad: int = 0
    examples: list[str] = field(default_factory=list)
    advice: dict[str, None] = field(default_factory=dict)
    tell: Tell | None = None

    def add(self, path: Path, line: int, reason: str, advice: str = "") -> None:
        """Count a bad line.

        Args:
            advice: a sentence on what to do if lines of this kind are too many.
        """
        if advice:
            self.advice[advice] = None
        if self.names_more:
            self.examples.append(f"line {line:,} of {path.name}: {reason}")
        self.count(1)

    def count(self, lines: int) -> None:
        """Count bad lines that are not named."""
        before, self.bad = self.bad, self.bad + lines
        if self.tell is not None and before < TOLD_EARLY <= self.bad:
            self.tell(
                f"{self.bad:,} lines can't be used so far: {self.described}.{self.advised} All are read before they are found too many: "
                "if they should not be so, end this with Ctrl+C."
            )

    @property
    def names_more(self) -> bool:
        """Whether the next bad line is named."""
        return len(self.examples) < NAMED

    def seen(self, lines: int) -> None:
        """Count lines, good and bad."""
        self.lines += lines

    def check(self) -> None:
        """Refuse the data if too many lines are bad. Before all are read, nobody knows: they may come in any order.

        Raises:
            InteractionError: they are.
        """
        if self.bad > self.share * self.lines:
            raise InteractionError(
                f"{self.bad:,} of {self.lines:,} lines can't be used, more than the share of {self.share:g} that --bad-lines allows: "
                f"{self.described}.{self.advised}"
            )

    @property
    def described(self) -> str:
        """The first few bad lines."""
        more = "" if self.bad <= len(self.examples) else "; …"
        return "; ".join(self.examples) + more

    @property
    def advised(self) -> str:
        """Advice for too many bad lines: sentences that follow another one."""
        return "".join(f" {sentence}" for sentence in self.advice)
