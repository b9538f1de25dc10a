"""What became of the requests of a soak.

Invariant: every request is counted once, under its operation, by the status of its answer or by the reason why there was none. What should
not have happened is kept as a sentence: the first of each kind in full, the others as a number.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from enum import Enum


class NoAnswer(Enum):
    """Why a request got no answer."""

    HUNG_UP = "hung_up"
    API_DOWN = "api_down"
    UNANSWERED = "unanswered"


class Promise(Enum):
    """The promises that an answer can break."""

    DOCUMENTED = "undocumented"
    ANSWERED = "unanswered"
    NOTHING_LOST = "lost"
    NOTHING_INVENTED = "invented"
    LIVENESS = "liveness"


@dataclass
class Answers:
    """Counts and complaints.

    Attributes:
        by_operation: of each operation how often which status, or which `NoAnswer`, came.
        by_second: how often each came in each second under load; what is asked for a proof is left out.
        proving: whether what is asked now is for a proof.
        broken: of each broken promise how often which sentence was found; numbers in sentences are left as they came.
    """

    by_operation: dict[str, Counter[str]] = field(default_factory=dict)
    by_second: dict[int, Counter[str]] = field(default_factory=dict)
    broken: dict[Promise, Counter[str]] = field(default_factory=dict)
    proving: bool = False
    started: float = field(default_factory=time.monotonic)

    def count(self, operation: str, what: int | NoAnswer) -> None:
        """Count what a request got."""
        name = what.value if isinstance(what, NoAnswer) else str(what)
        self.by_operation.setdefault(operation, Counter())[name] += 1
        if not self.proving:
            self.by_second.setdefault(int(time.monotonic() - self.started), Counter())[name] += 1

    def complain(self, promise: Promise, sentence: str | None) -> None:
        """Note a broken promise; None is none."""
        if sentence is not None:
            self.broken.setdefault(promise, Counter())[sentence] += 1

    @property
    def requests(self) -> int:
        """How many requests were sent."""
        return sum(counts.total() for counts in self.by_operation.values())
