"""Trials: rounds that are planned by priors, to notice when what was learned long ago no longer holds; and which searches
are not planned at all.

Invariant: at each depth one round in `EXPLORE_EVERY` forwards of the target is a trial, whether searches are planned or skipped; a search
that is skipped counts as if nothing was drafted at any of its depths.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

from drafting.plans.plan import DraftRound

# Counted in forwards and not in rounds, because few searches share the draft's forward in a trial; and for each depth apart, or all trials
# might fall on one depth that comes round in step with them.
EXPLORE_EVERY = 128
# After so many rounds in a row without drafts, only one search in so many is planned for, because deciding takes time as well.
IDLE_ROUNDS = 64
PLAN_WHEN_IDLE = 8


@dataclass
class Trials:
    """Counts the forwards of the target between trials; a round counts as its part of the forward that it shares."""

    _waited: dict[int, float] = field(default_factory=dict)
    _sharing: int = 1
    _idle_rounds: int = 0
    _idle_searches: int = 0

    def begin(self, state: DraftRound) -> bool:
        """Count a round that begins; True if it is a trial."""
        self._sharing = state.sharing
        self.count_rounds([state.depth], state)
        if is_due := self._waited[state.depth] >= EXPLORE_EVERY:
            self._waited[state.depth] -= EXPLORE_EVERY
        return is_due

    def count_rounds(self, depths: Iterable[int], state: DraftRound) -> None:
        """Count a round at each depth towards its next trial."""
        for depth in depths:
            self._waited[depth] = self._waited.get(depth, 0.0) + state.group_size / state.sharing

    def are_due(self, depths: Iterable[int], forwards: float = 1.0) -> bool:
        """True if a trial is due at one of the depths within so many further forwards."""
        return any(self._waited.get(depth, 0.0) + forwards >= EXPLORE_EVERY for depth in depths)

    def end(self, drafted: bool) -> None:
        """Note whether anything is drafted for a round, or a search, that begins and is no trial."""
        self._idle_rounds = 0 if drafted else self._idle_rounds + 1

    @property
    def are_idle(self) -> bool:
        """True if nothing was drafted for `IDLE_ROUNDS` rounds."""
        return self._idle_rounds >= IDLE_ROUNDS

    def skip_search(self) -> bool:
        """True if a search that begins while drafting is idle is not to be planned for; its forwards are counted then."""
        self._idle_searches += 1
        part = 1 / self._sharing
        if self._idle_searches % PLAN_WHEN_IDLE == 0 or self.are_due(self._waited, part):
            return False
        self._waited = {depth: waited + part for depth, waited in self._waited.items()}
        return True
