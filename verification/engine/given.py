"""Given drafts of an engine: what is offered to a search that begins, what of it the plan takes, and what a search leaves for the next.

Invariant: given nodes take only slots that no running search may come to need, as all drafts do. What they would have been worth is told to
the plan for every level that the target selects, whether they were taken or not, without another look at the device.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from drafting.beam.rule import Verification
from drafting.beam.tree import Origin, TokenTree
from drafting.plans.given import Given, GivenOutcome, GivenPrefixes, outcomes_of, prefixes_of, sources_of
from drafting.plans.plan import DraftRound, Plan
from drafting.trie.item_trie import ItemTrie
from verification.engine.prefixes import Prefixes, add_prefixes
from verification.search import NOTHING, BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.verifier import VerifyResult


@dataclass
class LastTimes:
    """The time that users' last lists took in one step.

    Attributes:
        searches: number of searches that looked for one.
        before, after: seconds before the target's forward, and after it.
    """

    searches: int = 0
    before: float = 0.0
    after: float = 0.0

    @property
    def seconds(self) -> float:
        """Both together."""
        return self.before + self.after


class GivenStep:
    """Gives drafts to the searches of one engine, and counts what they cost."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._slots = slots
        self._times = LastTimes()

    def give(self, searches: Sequence[BeamSearch], plan: Plan, tokens: int, sharing: int) -> int:
        """Add the given drafts that the plan chooses to the trees of searches that begin; return the number of nodes.

        Args:
            tokens: number of tokens in the target's forward without them.
            sharing: number of searches that share the forward.
        """
        started, chosen, is_last_wanted = time.perf_counter(), [], False
        for search in searches:
            # A relaxed list depends on its drafts, and should not on what its user was given before.
            is_relaxed = search.rule.verification is Verification.RELAXED
            if search.target_forwards or search.rounds > 1 or is_relaxed or self._trie.depth == 1:
                continue
            state = DraftRound(search.widths, 0, 1, sharing, 1, tokens, search.rule.verification, tolerance=search.tolerance)
            self._offer(search, plan, state)
            is_last_wanted |= search.keeps_beams
            if search.offered is not None:
                state.offered = sources_of(search.offered)
                if (source := plan.given(state, search.offered.sizes)) is not Given.NONE:
                    chosen.append((search, source))
        nodes = self._take(chosen) if chosen else 0
        if is_last_wanted:
            self._times.before = time.perf_counter() - started
        return nodes

    def take_times(self) -> LastTimes:
        """The times of the step that ends here; those of the next one begin at 0."""
        taken, self._times = self._times, LastTimes()
        return taken

    def _offer(self, search: BeamSearch, plan: Plan, state: DraftRound) -> None:
        """Look up what is given for a search, as far as the plan may want it."""
        key, last = search.request.cache_key, NOTHING
        if key is not None and plan.wants_last(state, key):
            search.keeps_beams, last = True, self._slots.last_beams.find(key, self._trie)
            self._times.searches += 1
            if not len(last):
                plan.misses_last(state)
        items = prefixes_of(self._trie, search.request.retrieved[: plan.items]) if plan.items else NOTHING
        search.offered = GivenPrefixes.of(last, items) if len(last) or len(items) else None

    def _take(self, chosen: Sequence[tuple[BeamSearch, Given]]) -> int:
        """Add the chosen drafts to trees, where slots are spare; return the number of nodes."""
        spare, grown = self._slots.spare_nodes, []
        for search, source in chosen:
            assert search.offered is not None
            nodes = search.offered.nodes[source]
            if len(nodes) > spare:
                continue
            spare -= len(nodes)
            last = search.offered.nodes.get(Given.LAST, NOTHING) if Given.LAST in source else NOTHING
            grown.append((search, Prefixes(search.sequence, nodes, np.where(np.isin(nodes, last), Origin.LAST, Origin.ITEMS))))
            search.take_given(source)
        if not grown:
            return 0
        added = add_prefixes(self._tree, self._trie, self._slots.nodes, [prefixes for _, prefixes in grown])
        for (search, _), count in zip(grown, added, strict=True):
            search.drafted_nodes += count
        return sum(added)

    def observe(self, results: Sequence[VerifyResult], plan: Plan) -> None:
        """Tell the plan what given drafts were worth, or would have been, and keep what the target has selected for the next search."""
        started, outcomes, is_last_wanted = time.perf_counter(), list[GivenOutcome](), False
        for result in results:
            search = result.search
            if result.finished or search.rounds > 1:
                continue
            if search.keeps_beams:
                is_last_wanted = True
                search.kept.append(result.kept)
            if search.offered is not None and plan.learns:
                outcomes += outcomes_of(search.offered, result.nodes, result.depth, search.covered, search.rule.verification)
        if outcomes:
            plan.learn_given(outcomes)
        if is_last_wanted:
            self._times.after += time.perf_counter() - started

    def leave(self, search: BeamSearch) -> None:
        """Keep the beams of a search that has ended for the next one of its user, if they are those of all levels."""
        if search.keeps_beams and len(search.kept) == search.last_depth and search.request.cache_key is not None:
            started = time.perf_counter()
            self._slots.last_beams.keep(search.request.cache_key, self._trie, np.sort(np.concatenate(search.kept)))
            self._times.after += time.perf_counter() - started
