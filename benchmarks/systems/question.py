"""Questions to the compared systems, and their answers.

Invariant: these carriers import no model library, so that they can be sent to the process that measures a system.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

Identifiers = list[tuple[int, ...]]

AUTO = "auto"
PLAIN = "none"


@dataclass(frozen=True)
class SystemSpec:
    """The measurement to make, as it is sent to the measuring process.

    Attributes:
        name: `atspeed/vllm`, `atspeed/transformers`, `vllm` or `transformers`.
        draft: the draft model, for our engine.
        plans: what our engine will be asked to draft by.
    """

    name: str
    target: Path
    catalog: Path
    threads: int
    draft: Path | None = None
    plans: tuple[str, ...] = (PLAIN,)


@dataclass(frozen=True)
class Question:
    """The question to a system in one turn.

    Attributes:
        histories: catalog indices, oldest first.
        plan: what to draft; systems that know no drafts are only asked for none.
        concurrency: how many of the histories are asked at once; a finished one is replaced by the next.
        cached: whether each user was asked before with all but the last item, so that only that one is new.
    """

    histories: Sequence[list[int]]
    k: int
    plan: str = PLAIN
    concurrency: int = 1
    cached: bool = False


@dataclass(frozen=True)
class Outcome:
    """One search.

    Attributes:
        seconds: wall-clock time from the question to the list.
        identifiers: the k identifiers found as token ids, best first.
        target_forwards: forwards of the target that the search took part in.
        tokens: tokens in all of these forwards, or its share of them where searches ran together; 0 where the system does not tell.
    """

    seconds: float
    identifiers: Identifiers
    target_forwards: int
    tokens: float = 0


class System(Protocol):
    """Something that finds the k best identifiers after a history."""

    def search(self, question: Question) -> list[Outcome]:
        """One outcome per history, in order."""
        ...
