"""Candidates by the indices of a catalog: the model's own scores, over what both know, without what may not be returned."""

import numpy as np
import pytest

from drafting.catalog.builder import catalog_of
from drafting.neighbours.candidates import CatalogNeighbours
from tests.drafting.neighbours.test_model import by_product, random_model


@pytest.mark.parametrize("seed", range(6))
def test_candidates_are_the_best_that_may_be_returned(seed: int) -> None:
    """A catalog in another order, with items that the model does not know, and without some that it does."""
    rng = np.random.default_rng(seed)
    model, dense = random_model(30, share=0.4, seed=seed)
    names = [*(f"item {i} é" for i in rng.permutation(30)[:22]), *(f"new {i}" for i in range(5))]
    names = [names[i] for i in rng.permutation(len(names))]
    catalog = catalog_of({name: [f"<a_{i % 5}>", f"<b_{i}>"] for i, name in enumerate(names)})
    neighbours = CatalogNeighbours.of(model, catalog)
    assert neighbours.known == 22
    history = rng.integers(len(catalog), size=int(rng.integers(1, 8)))
    excluded = rng.permutation(len(catalog))[: int(rng.integers(0, 6))]
    passes = rng.random(len(catalog)) < 0.7
    items, scores = neighbours.candidates(history, 6, excluded, lambda found: passes[found])
    known = [int(names[i].split()[1]) for i in history if names[i].startswith("item")]
    totals = by_product(dense, np.array(known, np.int64), model.decay, model.window)
    expected = {
        i: totals[int(name.split()[1])]
        for i, name in enumerate(names)
        if name.startswith("item") and totals[int(name.split()[1])] > 0 and passes[i] and i not in excluded
    }
    best = sorted(expected, key=lambda i: -expected[i])[:6]
    assert items.tolist() == best
    np.testing.assert_allclose(scores, [expected[i] for i in best])


def test_of_nothing_known_follows_nothing() -> None:
    model, _ = random_model(10)
    catalog = catalog_of({"new": ["<a_0>"], "item 3 é": ["<a_1>"]})
    neighbours = CatalogNeighbours.of(model, catalog)
    for history in ([], [0], [0, 0]):
        items, scores = neighbours.candidates(history)
        assert len(items) == len(scores) == 0
