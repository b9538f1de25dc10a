"""Findings of a check: a line per finding, and an exit status.

Invariant: a check goes on after a finding, so that one run shows them all, and ends with status 1 if there was one.
"""

import sys


class Findings:
    """Counts what went wrong."""

    def __init__(self) -> None:
        self.wrong = 0

    def check(self, holds: bool, sentence: str) -> bool:
        """Say whether a sentence holds, and pass it on."""
        print(f"{'ok   ' if holds else 'WRONG'} {sentence}", flush=True)
        self.wrong += not holds
        return holds

    def end(self) -> None:
        """End the process if something was wrong."""
        if self.wrong:
            sys.exit(f"{self.wrong} findings")
