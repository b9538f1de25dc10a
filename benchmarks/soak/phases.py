"""The phases of a soak, and what goes wrong in each.

Invariant: all phases are equally long and have the same load and the same faults that a process survives, so that memory can be compared
between them. Faults that end a process come in the first half: API processes first, then engines, so that one of each lives through the
whole second half.
"""

from dataclasses import dataclass
from enum import Enum

FEWEST = 8
LONGEST_SECONDS = 60.0


class Lethal(Enum):
    """A fault that ends a process."""

    KILL_API = "kill the API process"
    KILL_ENGINE = "kill the engine"
    HANG_ENGINE = "hang the engine"


@dataclass(frozen=True)
class Phase:
    """One phase.

    Attributes:
        lethal: the fault of this phase that ends a process, if there is one.
    """

    seconds: float
    lethal: Lethal | None


def make_phases(seconds: float) -> list[Phase]:
    """Divide a time into phases."""
    count = max(FEWEST, round(seconds / LONGEST_SECONDS))
    with_lethal = count // 2
    api_kills = max(1, with_lethal // 3)
    engine_faults = [Lethal.HANG_ENGINE, Lethal.KILL_ENGINE] * with_lethal
    lethal = [*[Lethal.KILL_API] * api_kills, *engine_faults[: with_lethal - api_kills]]
    return [Phase(seconds / count, fault) for fault in (*lethal, *[None] * (count - with_lethal))]
