"""Counters of what became of the requests of a run, updated as they end.

Invariant: every request of the measured time is counted in exactly one of the outcomes, and no request of the warm-up in any.
"""

from dataclasses import dataclass, field
from enum import Enum

import msgspec

from benchmarks.load.histogram import LatencyHistogram


class Outcome(Enum):
    """The outcome of a request."""

    ON_TIME = "on_time"
    LATE = "late"
    REFUSED = "refused"
    TIMED_OUT = "timed_out"
    UNAVAILABLE = "unavailable"
    HUNG_UP = "hung_up"
    ERROR = "errors"


_BY_STATUS = {429: Outcome.REFUSED, 504: Outcome.TIMED_OUT, 503: Outcome.UNAVAILABLE}


class Usage(msgspec.Struct):
    """The part of an answer's `usage` that is counted here."""

    prompt_tokens: int
    cached_tokens: int


class Line(msgspec.Struct):
    """The part of a listed item that is needed here."""

    item_id: str


class Answer(msgspec.Struct):
    """The part of an answer that is needed here."""

    items: list[Line]
    usage: Usage


@dataclass
class Counters:
    """Counts and latencies of one run.

    Attributes:
        answered: latencies of all lists, late ones too.
        refused: latencies of refusals.
        lag: how long after they were due requests were sent.
        warm_lists: lists of which some of the prompt was cached.
        mistakes: unexpected statuses and errors, and how often they came.
    """

    outcomes: dict[Outcome, int] = field(default_factory=lambda: dict.fromkeys(Outcome, 0))
    answered: LatencyHistogram = field(default_factory=LatencyHistogram)
    refused: LatencyHistogram = field(default_factory=LatencyHistogram)
    lag: LatencyHistogram = field(default_factory=LatencyHistogram)
    prompt_tokens: int = 0
    cached_tokens: int = 0
    warm_lists: int = 0
    mistakes: dict[str, int] = field(default_factory=dict)

    def add_list(self, seconds: float, timeout: float, usage: Usage) -> None:
        """Count a list."""
        self.outcomes[Outcome.ON_TIME if seconds <= timeout else Outcome.LATE] += 1
        self.answered.add(seconds)
        self.prompt_tokens += usage.prompt_tokens
        self.cached_tokens += usage.cached_tokens
        self.warm_lists += usage.cached_tokens > 0

    def add_failure(self, status: int, seconds: float) -> None:
        """Count an answer that is no list."""
        outcome = _BY_STATUS.get(status, Outcome.ERROR)
        self.outcomes[outcome] += 1
        if outcome is Outcome.REFUSED:
            self.refused.add(seconds)
        if outcome is Outcome.ERROR:
            self._mistake(f"status {status}")

    def add_hang_up(self) -> None:
        """Count a request that was given up on purpose."""
        self.outcomes[Outcome.HUNG_UP] += 1

    def add_error(self, error: BaseException) -> None:
        """Count a request without an answer."""
        self.outcomes[Outcome.ERROR] += 1
        self._mistake(type(error).__name__)

    def _mistake(self, name: str) -> None:
        self.mistakes[name] = self.mistakes.get(name, 0) + 1
