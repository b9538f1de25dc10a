"""Whether users' last lists are worth looking at: the time that they save, against the time that finding, weighing and keeping them takes.

Invariants: every look is weighed, also one that found nothing, because keeping lists takes as long for users who do not come back. The
lists of some users are looked at whatever was learned, so that the planner notices when lists begin to help; these are always the same
users, because one search keeps a list and only the next one shows what it is worth.
"""

from dataclasses import dataclass, field
from zlib import crc32

from drafting.beam.rule import Verification
from drafting.lru import LruMap
from drafting.plans.plan import DraftRound
from drafting.plans.running_costs import RunningMean

# So many searches look before it is decided whether looking pays; and of so many users, the lists of one are always looked at.
LEAST_LOOKS = 32
LOOK_AT_USERS = 16
# Requests choose widths, so their kinds are bounded; what was used longest ago is forgotten.
MOST_KINDS = 512


@dataclass
class LastLists:
    """Seconds that last lists have saved, by kind of search."""

    _worth: LruMap[tuple[Verification, tuple[int, ...], int], RunningMean] = field(default_factory=lambda: LruMap(MOST_KINDS))
    _are_wanted: bool = True

    def add(self, state: DraftRound, seconds: float) -> None:
        """Note how many seconds a search that begins wins by its user's last list; 0 if there is none."""
        worth = self._worth.get(key := _key(state)) or self._worth.keep(key, RunningMean())
        worth.add(1, seconds)

    def are_wanted(self, state: DraftRound, user: str, cost: float) -> bool:
        """True if the user's last list is to be looked at for a search that begins; looking takes `cost` seconds."""
        worth = self._worth.get(_key(state))
        self._are_wanted = worth is None or worth.seen < LEAST_LOOKS or max(worth.mean, 0.0) >= cost
        return self.may_be_wanted(user)

    def may_be_wanted(self, user: str) -> bool:
        """True if last lists were wanted for the search that last asked, or this user's is always looked at."""
        return self._are_wanted or crc32(user.encode()) % LOOK_AT_USERS == 0


def _key(state: DraftRound) -> tuple[Verification, tuple[int, ...], int]:
    """What searches have in common for which last lists are worth about the same."""
    return state.verification, state.widths, state.sharing.bit_length()
