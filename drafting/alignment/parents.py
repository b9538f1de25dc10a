"""Where new tokens start: each that stands below one token alone, such as the token of an item below that of its cluster, begins near it.

Without this all new tokens begin as strangers to each other, and where data are sparse, most stay so: what a model learns of one item of a
cluster says nothing of the next.

Invariant: the parents of tokens make a forest, so each token starts from a parent that has started. Reason: a token of some parent stands
behind it in every identifier that has it, the first of a circle would stand behind one that is in no circle, and a token that begins an
identifier has no parent.
"""

import numpy as np
import torch

from drafting.alignment.bases import Base
from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog


def only_parents(catalog: Catalog) -> IntArray:
    """`[tokens]`, the code that a code stands behind in every identifier which has it; -1 if it begins one, or stands behind several."""
    codes = catalog.codes.astype(np.int64)
    lowest, highest = np.full(len(catalog.tokens), len(catalog.tokens)), np.full(len(catalog.tokens), -1)
    for level in range(1, catalog.identifier_length):
        np.minimum.at(lowest, codes[:, level], codes[:, level - 1])
        np.maximum.at(highest, codes[:, level], codes[:, level - 1])
    parents = np.where(lowest == highest, highest, -1)
    parents[codes[:, 0]] = -1
    return parents


@torch.no_grad()
def start_from_parents(base: Base, catalog: Catalog, factor: float) -> int:
    """Add to the vector of each new token with one parent `factor` times that of the parent, brought to the same length; both in embeddings
    and in the head. Return how many tokens that are.
    """
    parents = only_parents(catalog)
    new = np.array([token in base.new_tokens for token in catalog.tokens])
    parents[~new] = -1
    depths = np.zeros(len(parents), np.int64)
    for _ in range(catalog.identifier_length):
        depths = np.where(parents < 0, 0, depths[parents] + 1)
    ids = torch.from_numpy(catalog.vocabulary_ids(base.tokenizer.get_vocab()))
    embeddings, head = base.model.get_input_embeddings().weight, base.model.get_output_embeddings().weight
    for rows in (embeddings,) if head is embeddings else (embeddings, head):
        for depth in range(1, int(depths.max(initial=0)) + 1):
            tokens = np.flatnonzero(depths == depth)
            own, above = ids[tokens], rows[ids[parents[tokens]]]
            length = rows[own].norm(dim=1, keepdim=True) / above.norm(dim=1, keepdim=True).clamp(min=1e-9)
            rows[own] += factor * length * above
    return int(np.count_nonzero(parents >= 0))
