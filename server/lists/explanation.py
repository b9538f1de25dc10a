"""From what the engine tells of a list's searches to the tree of an answer, as `schemas.explanations` describes it.

Invariant: prefixes are numbered as the nodes of the catalog's trie, so a number means the same prefix in all answers of one version; and
only so few explanations are made at a time that the requests of others hardly notice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.trie.arrays import ROOT
from server.lists.lines import name_line
from server.try_again import ExplanationsBusy
from verification.explanation import ExplainedLevel, Explanation
from verification.result import RankedItem

MOST_AT_A_TIME = 2
# Most items that are told of an identifier which is not in the list.
MOST_ITEMS = 10


class ExplanationPlaces:
    """Room for a few explanations at a time."""

    def __init__(self) -> None:
        self._taken = 0

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places.

        Raises:
            ExplanationsBusy: all are taken.
        """
        if self._taken >= MOST_AT_A_TIME:
            raise ExplanationsBusy(f"The server explains at most {MOST_AT_A_TIME} lists at a time, and does so already.")
        self._taken += 1
        try:
            yield
        finally:
            self._taken -= 1


def explanation_lines(catalog: Catalog, items: Sequence[RankedItem], explanation: Explanation, others: int) -> dict[str, Any]:
    """The tree of a list with these items."""
    general, *reserved = (
        [_level(catalog, items, depth, level) for depth, level in enumerate(search, 1)] for search in explanation.searches
    )
    best = {item.rank: item.item for item in items}
    paths = _paths(catalog, [best[rank] for rank in sorted(best)]).tolist()
    lines: dict[str, Any] = {"others": others, "paths": paths, "levels": general}
    if reserved:
        lines["fresh_levels"] = reserved[0]
    return lines | {"truncated": any(level["truncated"] for levels in (general, *reserved) for level in levels)}


def _paths(catalog: Catalog, items: Sequence[int]) -> IntArray:
    """`[items, levels]`, the nodes of each item's identifier."""
    return catalog.trie.paths(catalog.trie.leaf_of_item[np.array(items, np.int64)])


def _level(catalog: Catalog, listed: Sequence[RankedItem], depth: int, level: ExplainedLevel) -> dict[str, Any]:
    paths = _paths(catalog, level.items)
    nodes = paths[:, depth - 1]
    parents = paths[:, depth - 2] if depth > 1 else np.full(len(nodes), ROOT)
    starts, ends = catalog.trie.item_ranges(nodes)
    below = (ends - starts).tolist()
    codes = catalog.codes[list(level.items), depth - 1].tolist()
    lines = []
    for place, (node, parent, code, log_prob) in enumerate(zip(nodes.tolist(), parents.tolist(), codes, level.log_probs, strict=True)):
        in_beam, drafted = place < level.beam, level.is_drafted[place]
        line = {"node": node, "parent": parent, "token": catalog.tokens[code], "log_prob": log_prob, "in_beam": in_beam}
        line |= {"drafted": drafted, "accepted": drafted and in_beam, "items_below": below[place]}
        if in_beam:
            line["rank"] = place + 1
        if level.is_candidate[place]:
            line["candidate"] = True
        lines.append(line)
    if depth == catalog.identifier_length:
        _tell_items(catalog, listed, lines)
    told = {"forward": level.forward, "accepted": level.accepted, "considered": level.considered, "drafted": level.drafted}
    return {"depth": depth, **told, "used": level.used, "truncated": level.truncated, "nodes": lines}


def _tell_items(catalog: Catalog, listed: Sequence[RankedItem], lines: Sequence[dict[str, Any]]) -> None:
    """Put items to the nodes of the last level: those of the list, where it has any of them, or else the first of all."""
    first = catalog.trie.level_starts[-2]
    of_list: dict[int, list[int]] = {}
    for item in listed:
        of_list.setdefault(first + int(catalog.trie.leaf_of_item[item.item]), []).append(item.item)
    for line in lines:
        node = line["node"]
        items = of_list.get(node) or catalog.trie.items_of(node)[:MOST_ITEMS].tolist()
        line["items"] = [name_line(catalog, item) for item in items]
