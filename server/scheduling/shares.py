"""Work by kinds of requests, between which steps are shared: narrow lists, wide ones, and scores.

Invariant: waits are foreseen by the rules by which the engine process runs requests (`server.scheduling.wide`, `SCORES_SHARE`). As long as
there are candidates for scores, they have their part of each step; narrow and wide lists share the rest.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from server.scheduling.kinds import SCORES_SHARE
from server.scheduling.wide import work_until


class Work(Protocol):
    """The tokens that a request is foreseen to need; `PendingRequest` has these attributes."""

    work: int
    scored: int
    is_wide: bool


@dataclass(frozen=True)
class Shares:
    """Tokens of narrow lists, of wide ones, and of candidates for scores; the prompts of these are narrow."""

    narrow: int
    wide: int
    scored: int

    @classmethod
    def of(cls, requests: Sequence[Work]) -> "Shares":
        """The work of requests by their kind."""
        wide = sum(request.work for request in requests if request.is_wide)
        return cls(sum(request.work for request in requests) - wide, wide, sum(request.scored for request in requests))

    @property
    def all(self) -> int:
        """The work of all kinds."""
        return self.narrow + self.wide + self.scored

    def beside(self, scored: int) -> "Shares":
        """With so many tokens of candidates."""
        return Shares(self.narrow, self.wide, scored)

    def until(self, request: Work) -> int:
        """The work that is done when that of one more is."""
        if request.scored:
            return self.all + request.work + request.scored
        own, others = (self.wide, self.narrow) if request.is_wide else (self.narrow, self.wide)
        return lists_until(own + request.work, others, self.scored)


def lists_until(own: int, others: int, scored: int) -> int:
    """The work that is done when `own` tokens of wide lists or of narrow ones are, beside those of the other kind and of candidates."""
    lists = work_until(own, others)
    return lists + min(scored, lists // (SCORES_SHARE - 1))
