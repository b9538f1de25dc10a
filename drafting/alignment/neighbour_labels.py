"""Soft labels from a neighbour model: distillation of a closed-form recommender.

Sparse data show few of the items that could have followed. A neighbour model (EASE, item-kNN) ranks all of them by what all users did, so
its candidates after a history are a second kind of labels, soft ones.

Invariant: candidates follow from what the user met before the label, never from the label itself, and none of them is an item that the user
had met.
"""

import numpy as np
import torch
from scipy.sparse import csr_array
from tqdm import tqdm

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.soft_labels import SoftLabels
from drafting.array_types import IntArray
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.decayed import decayed
from drafting.trie.arrays import offsets_of, ranges

TAUGHT_CANDIDATES = 50
# Scores of EASE lie between 0 and about 1, those of its best candidates around 0.2.
TEMPERATURE = 0.05
# Scores at a time.
_CELLS = 1 << 22
_SOON_READY = 10_000


def neighbour_labels(neighbours: CatalogNeighbours, interactions: Interactions, positions: IntArray) -> SoftLabels:
    """For some interactions the best candidates after all of their user's before each, with the softmax of their scores at `TEMPERATURE`.

    Takes 8 bytes for each candidate of each of them.

    Args:
        positions: of the interactions, ascending.
    """
    items, size = len(neighbours.in_model), len(positions)
    begins = interactions.offsets[np.searchsorted(interactions.offsets, positions, side="right") - 1]
    weights, model = _weights(neighbours), neighbours.model
    in_model = neighbours.in_model[interactions.items]
    # A history is what the model knows of it.
    known, before = in_model[in_model >= 0], offsets_of(in_model >= 0)
    found = np.zeros((size, min(TAUGHT_CANDIDATES, items)), np.int32)
    shares = np.zeros(found.shape, np.float32)
    step = max(1, _CELLS // items)
    for start in tqdm(range(0, size, step), desc="asking the neighbour model", unit="block", disable=size < _SOON_READY):
        block = slice(start, min(size, start + step))
        begin, last = begins[block], before[positions[block]]
        histories = decayed(known, np.maximum(before[begin], last - model.window), last, model.decay, len(model))
        scores = (histories @ weights).toarray()
        seen = positions[block] - begin
        scores[np.repeat(np.arange(len(seen)), seen), interactions.items[ranges(begin, seen)]] = 0
        values, columns = torch.from_numpy(scores.astype(np.float32)).topk(found.shape[1], dim=1)
        spread = (values / TEMPERATURE).masked_fill(values <= 0, float("-inf")).softmax(1)
        found[block], shares[block] = columns.numpy(), spread.nan_to_num(0.0).numpy()
    return SoftLabels(positions, found, shares)


def _weights(neighbours: CatalogNeighbours) -> csr_array:
    """The model's matrix with the catalog's items for columns, `[model's items, catalog items]`."""
    model = neighbours.model
    columns = neighbours.in_catalog[model.neighbours]
    there = columns >= 0
    entries = model.weights[there].astype(np.float64), columns[there], offsets_of(there)[model.indptr]
    return csr_array(entries, shape=(len(model), len(neighbours.in_model)))
