"""Baselines without a language model: most popular items, and co-occurrence of items.

Invariant: they use the same interactions as the models, those before the held-out ones, and return lists of the same length.
"""

from collections.abc import Iterator

import numpy as np
from scipy.sparse import csr_array, diags_array

from drafting.alignment.data.interactions import Interactions
from drafting.trie.arrays import offsets_of
from verification.evaluation.users import HeldOut

RECENT_ITEMS = 20
_ROWS_AT_A_TIME = 256


def most_popular(users: HeldOut, items: int, k: int) -> list[list[int]]:
    """The k items with the most interactions, the same list for all users; equal counts in the order of the catalog."""
    counts = np.bincount(users.known.items, minlength=items)
    best: list[int] = np.argsort(-counts, kind="stable")[:k].tolist()
    return [best] * len(users)


def co_occurring(users: HeldOut, items: int, k: int) -> list[list[int]]:
    """The k items with the highest sum of cosine similarities to the user's last items."""
    similar = item_similarity(users.known, items)
    lists: list[list[int]] = []
    for rows in _recent_rows(users, items):
        scores = (rows @ similar).toarray()
        lists += np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist()
    return lists


def item_similarity(known: Interactions, items: int) -> csr_array:
    """Cosine similarities `[items, items]`, sparse: common users over the geometric mean of the users of each; zero on the diagonal."""
    owners = np.repeat(np.arange(len(known.users)), known.lengths)
    pairs = np.unique(np.stack([owners, known.items.astype(np.int64)]), axis=1)
    met = csr_array((np.ones(pairs.shape[1]), (pairs[0], pairs[1])), shape=(len(known.users), items))
    counts = np.maximum(np.asarray(met.sum(axis=0)), 1.0)
    together = csr_array(met.T @ met)
    together.setdiag(0.0)
    scale = diags_array(1.0 / np.sqrt(counts))
    return csr_array(scale @ together @ scale)


def _recent_rows(users: HeldOut, items: int) -> Iterator[csr_array]:
    """The last items of users as sparse rows, some users at a time."""
    for start in range(0, len(users), _ROWS_AT_A_TIME):
        recent = [np.unique(history[-RECENT_ITEMS:]) for history in users.histories[start : start + _ROWS_AT_A_TIME]]
        columns = np.concatenate(recent)
        yield csr_array((np.ones(len(columns)), columns, offsets_of([len(row) for row in recent])), shape=(len(recent), items))
