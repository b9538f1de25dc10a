"""Blended lists: the candidates of a neighbour model beside those of the beam, all with the target's log-probabilities.

The prefixes of the candidates are in the tree of their request's search from its beginning, as if they were drafted. So the forward that
computes the prompt scores the candidates, too, and where the target's beams agree with them, they save forwards.

Invariant: the target's list is what it is without them, for drafts change no list; they only join it when both are known. A candidate that
may not be returned, or that the target can't score, does not join.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from drafting.array_types import FloatArray, IntArray
from drafting.beam.tree import TokenTree
from drafting.device import concat, on_device, on_host
from drafting.trie.item_trie import ROOT, ItemTrie
from verification.blend import Blend
from verification.engine.reserved import joined, merge
from verification.result import BlendedList, Source
from verification.search import BeamSearch
from verification.slots.engine_slots import EngineSlots
from verification.verifiers.level import ContinuationTable
from verification.verifiers.verifier import VerifyResult


class BlendStep:
    """Grows the trees of blended requests, and blends their lists."""

    def __init__(self, tree: TokenTree, trie: ItemTrie, table: ContinuationTable, slots: EngineSlots) -> None:
        self._tree = tree
        self._trie = trie
        self._table = table
        self._slots = slots

    def grow(self, search: BeamSearch, blend: Blend) -> None:
        """Add the candidates' prefixes to the tree of a search that has not begun."""
        if not blend.prefixes:
            return
        # Nodes are numbered level by level, so these ascend by depth.
        nodes, place, group = np.unique(blend.paths[:, :-1], return_index=True, return_inverse=True)
        candidate, level = np.divmod(place, self._trie.depth - 1)
        slots = self._slots.nodes.allocate(len(nodes))
        ends = np.cumsum(np.bincount(level))
        levels = zip(np.split(slots, ends[:-1]), np.split(nodes, ends[:-1]), strict=True)
        for depth, (level_slots, level_nodes) in enumerate(levels, start=1):
            search.sequence.append(level_slots, depth, level_nodes)
        indices = search.sequence.root + 1 + group.reshape(len(blend.paths), -1)
        # A node is its own ancestor at its depth and below.
        ancestors = indices[candidate[:, None], np.minimum(np.arange(self._trie.depth), level[:, None])]
        sent = on_device(np.column_stack([slots, nodes, ancestors]), self._tree.token.device)
        self._tree.trie_node.index_copy_(0, sent[:, 0], sent[:, 1])
        self._tree.token.index_copy_(0, sent[:, 0], self._trie.token.index_select(0, sent[:, 1]))
        self._tree.ancestors.index_copy_(0, sent[:, 0], sent[:, 2:])

    def lists(self, whole: Sequence[Sequence[VerifyResult]]) -> list[tuple[VerifyResult, BlendedList | None]]:
        """The lists of requests whose searches have all ended, blended where they ask for it; call it before their slots are free.

        Args:
            whole: the results of each request, as `RunningSearches.finish` returns them.
        """
        asked = [(parts[0].search, blend) for parts in whole if (blend := parts[0].search.request.blend) is not None]
        log_probs = iter(self._log_probs(asked))
        return [
            (joined(parts), None) if (blend := parts[0].search.request.blend) is None else blended(blend, parts, next(log_probs))
            for parts in whole
        ]

    def _log_probs(self, asked: Sequence[tuple[BeamSearch, Blend]]) -> list[FloatArray]:
        """The candidates' log-probabilities, `[candidates]` float32 for each search; -inf for one that may not be returned."""
        if not asked:
            return []
        places = on_device(concat([self._places(search, blend) for search, blend in asked]), self._tree.token.device)
        (steps,) = on_host([self._table.at(*places.unbind(0))])
        # Added up in the order of a search.
        totals = np.cumsum(steps.reshape(-1, self._trie.depth), axis=1)[:, -1]
        return np.split(totals, np.cumsum([len(blend.paths) for _, blend in asked])[:-1])

    def _places(self, search: BeamSearch, blend: Blend) -> IntArray:
        """`[2, candidates * depth]`, where the table has the tokens of each candidate: the slot of the node above, and the column."""
        sequence, root = search.sequence, search.sequence.root
        above = np.column_stack([np.full(len(blend.paths), ROOT), blend.paths[:, :-1]])
        grown = sequence.trie_nodes[root : root + 1 + blend.prefixes]
        slots = sequence.slots[root + np.searchsorted(grown, above)]
        return np.stack([slots.ravel(), (blend.paths - self._trie.first_child[above]).ravel()])


def blended(blend: Blend, parts: Sequence[VerifyResult], log_probs: FloatArray) -> tuple[VerifyResult, BlendedList]:
    """The k best of the target's own list and the candidates, or every one; with reserved places, so many of those that may take them at
    least.

    Args:
        parts: the results of a request's searches.
        log_probs: `[candidates]`, -inf or NaN for one that does not join.
    """
    found = joined(parts, every=True)
    candidates = blend.paths[np.isfinite(log_probs), -1]
    joins = ~np.isin(candidates, found.nodes)
    nodes = np.concatenate([found.nodes, candidates[joins]])
    totals = np.concatenate([found.cum_log_probs, log_probs[np.isfinite(log_probs)][joins]])
    ranking = blend.ranking(nodes, totals)
    order = np.argsort(-ranking, kind="stable")
    k, *places = (part.search.widths[-1] for part in parts)
    k = len(order) if blend.every else k
    kept = order[:k]
    if places:
        reserved = order[parts[1].search.eligibility.allowed(nodes[order])][: places[0]]
        kept, _ = merge(order, ranking[order], reserved, ranking[reserved], k)
    sources = np.where(np.isin(nodes[kept], candidates), np.where(kept < len(found.nodes), 2, 1), 0)
    told = BlendedList(tuple(ranking[kept].tolist()), tuple(_SOURCES[source] for source in sources.tolist()))
    return replace(found, nodes=nodes[kept], cum_log_probs=totals[kept]), told


_SOURCES = (Source.MODEL, Source.NEIGHBOURS, Source.BOTH)
