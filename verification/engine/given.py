"""Given drafts of an engine: what is offered to a search that begins, what of it the plan takes, and what a search leaves for the next.

Invariant: given nodes take only slots that no running search may come to need, as all drafts do. What they would have been worth is told to
the plan for every level that the target selects, whether they were taken or not, without another look at the device.
"""

from collections.abc import Sequence

import numpy as np

from drafting.beam.tree import Origin, TokenTree
from drafting.plans.given import Given, GivenOutcome, GivenPrefixes, outcomes_of, prefixes_of
from drafting.plans.plan import Plan
from drafting.trie.item_trie import ItemTrie
from verification.engine.prefixes import Prefixes, add_prefixes
from verification.search import NOTHING, BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.verifier import VerifyResult


class GivenStep:
    """Of all searches of one engine."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._slots = slots

    def offer(self, search: BeamSearch, plan: Plan) -> None:
        """Look up what is given for a search that has not begun, as far as the plan may want it."""
        request, key = search.request, search.request.cache_key
        if self._trie.depth == 1:
            return
        search.keeps_beams = plan.uses_last and key is not None
        last = self._slots.last_beams.find(key, self._trie) if plan.uses_last and key is not None else NOTHING
        items = prefixes_of(self._trie, request.retrieved[: plan.items]) if plan.items else NOTHING
        search.offered = GivenPrefixes.of(last, items) if len(last) or len(items) else None

    def take(self, chosen: Sequence[tuple[BeamSearch, Given]]) -> int:
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
        outcomes: list[GivenOutcome] = []
        for result in results:
            search = result.search
            if result.finished or search.rounds > 1:
                continue
            if search.keeps_beams:
                search.kept.append(np.concatenate([result.nodes, result.beside]))
            if search.offered is None or not plan.learns:
                continue
            outcomes += outcomes_of(search.offered, result.nodes, result.depth, search.covered, search.rule.verification)
        if outcomes:
            plan.learn_given(outcomes)

    def leave(self, search: BeamSearch) -> None:
        """Keep the beams of a search that has ended for the next one of its user, if they are those of all levels."""
        is_whole = len(search.kept) == search.last_depth
        if search.keeps_beams and is_whole and search.request.cache_key is not None:
            self._slots.last_beams.keep(search.request.cache_key, self._trie, np.sort(np.concatenate(search.kept)))
