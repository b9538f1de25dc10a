"""Soft labels from a neighbour model: distillation of a closed-form recommender.

Sparse data show few of the items that could have followed. A neighbour model (EASE, item-kNN) ranks all of them by what all users did, so
its candidates after a history are labels of a second kind, soft ones.

Invariant: candidates follow from what the user met before the label, never from the label, and are none of these items.
"""

import numpy as np
import torch
from tqdm import tqdm

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.soft_labels import SoftLabels
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.trie.arrays import offsets_of, ranges

TAUGHT_CANDIDATES = 50
# Scores of EASE lie between 0 and about 1, those of its best candidates around 0.2.
TEMPERATURE = 0.05
# Scores at a time.
_CELLS = 1 << 22
_SOON_READY = 10_000


def neighbour_labels(neighbours: CatalogNeighbours, interactions: Interactions) -> SoftLabels:
    """For each interaction the best candidates after all of its user's before it, with the softmax of their scores at `TEMPERATURE`.

    Takes 8 bytes for each candidate of each interaction.
    """
    items, size = len(neighbours.in_model), len(interactions)
    begins = interactions.offsets[interactions.owners]
    found = np.zeros((size, min(TAUGHT_CANDIDATES, items)), np.int32)
    shares = np.zeros(found.shape, np.float32)
    step = max(1, _CELLS // items)
    for start in tqdm(range(0, size, step), desc="asking the neighbour model", unit="block", disable=size < _SOON_READY):
        block = np.arange(start, min(size, start + step))
        scores = torch.from_numpy(_scores(neighbours, interactions, begins, block).astype(np.float32))
        values, columns = scores.topk(found.shape[1], dim=1)
        spread = (values / TEMPERATURE).masked_fill(values <= 0, float("-inf")).softmax(1)
        found[block], shares[block] = columns.numpy(), spread.nan_to_num(0.0).numpy()
    return SoftLabels(found, shares)


def _scores(neighbours: CatalogNeighbours, interactions: Interactions, begins: np.ndarray, block: np.ndarray) -> np.ndarray:
    """The scores of all items before each interaction of a block, `[block, items]`; 0 of those that the user has met."""
    model, items, rows = neighbours.model, len(neighbours.in_model), np.arange(len(block))
    first = int(begins[block[0]])
    in_model = neighbours.in_model[interactions.items[first : block[-1] + 1]]
    known, before = np.flatnonzero(in_model >= 0), offsets_of(in_model >= 0)
    last = before[block - first]
    counts = last - np.maximum(before[begins[block] - first], last - model.window)
    entries = ranges(last - counts, counts)
    weights = model.decay ** (np.repeat(last, counts) - 1 - entries)
    met = in_model[known[entries]]
    starts, widths = model.indptr[met], model.indptr[met + 1] - model.indptr[met]
    entries = ranges(starts, widths)
    columns = neighbours.in_catalog[model.neighbours[entries]]
    cells = np.repeat(np.repeat(rows, counts), widths) * items + columns
    there = columns >= 0
    sums = np.bincount(cells[there], (model.weights[entries] * np.repeat(weights, widths))[there], len(block) * items)
    scores: np.ndarray = sums.reshape(len(block), items)
    seen = block - begins[block]
    scores[np.repeat(rows, seen), interactions.items[ranges(begins[block], seen)]] = 0
    return scores
