"""Scores of given candidates: shared prefixes are computed once, in as many nodes a step as it has; `test_strict.py` compares them with the
forward pass of transformers, beside lists and on both hosts."""

from collections.abc import Sequence

import numpy as np
import pytest

from drafting.beam.rule import Normalisation
from drafting.trie.item_set import ItemSet
from tests.models import random_catalog, save_random_model
from tests.scoring import score_requests, scores_of
from tests.speculation import ITEMS, Speculation, assert_early_ends_leave_nothing
from verification.engine.engine import SpeculativeBeamEngine
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult, StepReport
from verification.scored import PREFIXES_PER_LEVEL, Scored

DEPTH = 4


def steps_of(engine: SpeculativeBeamEngine, nodes: int | None = None) -> list[StepReport]:
    reports = []
    while engine.running:
        reports.append(engine.step(nodes))
    assert engine.used_slots == 0
    return reports


def prompt(models: Speculation, history: Sequence[int]) -> np.ndarray:
    return np.concatenate([[1], models.identifiers[list(history)].reshape(-1)])


def distinct_prefixes(identifiers: np.ndarray) -> int:
    return len({tuple(row[:depth]) for row in identifiers.tolist() for depth in range(1, identifiers.shape[1])})


@pytest.mark.parametrize("nodes", [None, 1, 10, 64])
def test_every_token_is_computed_once_but_where_a_step_ends(speculation: Speculation, nodes: int | None) -> None:
    """Together all candidates make one tree below one prompt; what steps divide is begun again from the root, of few nodes."""
    engine, trie = speculation.engine(DEPTH), speculation.tries[DEPTH]
    scored = Scored.of(trie, np.arange(ITEMS))
    engine.add(BeamRequest("all", prompt(speculation, [3, 5]), 1, 1, scored=scored))
    reports = steps_of(engine, nodes)
    (result,) = reports[-1].finished
    distinct = distinct_prefixes(speculation.identifiers[:, :DEPTH])
    computed = sum(report.scored_nodes for report in reports)
    assert scored.prefixes == distinct
    assert sum(report.tokens for report in reports) == computed + result.usage.prompt_tokens
    assert distinct <= computed <= distinct + (DEPTH - 2) * (len(reports) - 1)
    assert max(report.scored_nodes for report in reports) <= max(nodes or scored.nodes, DEPTH - 1)
    assert len(reports) == result.usage.target_forwards
    assert (len(reports) == 1) == (nodes is None)


def test_a_wide_request_takes_as_many_nodes_as_a_wide_list(tmp_path_factory: pytest.TempPathFactory) -> None:
    """So that scores of the whole catalog find room wherever a list does, and are exact in parts."""
    catalog = random_catalog(items=900, depth=3, codes=24)
    folder = save_random_model(tmp_path_factory.mktemp("wide"), catalog, layers=1, hidden=16, heads=1)
    recommender = Recommender.load(folder, catalog, host="transformers", kv_memory_gib=0.01, dtype="float32")
    engine = recommender.engine
    scored = Scored.of(engine.trie, np.arange(len(catalog)))
    assert scored.nodes == 24 + PREFIXES_PER_LEVEL < scored.prefixes
    found = list(recommender.score([[1, 2], [7]], range(len(catalog))))
    np.testing.assert_array_equal(found[0], next(recommender.score([[1, 2]], range(len(catalog)))))
    wide = recommender.request("list", [1, 2], 200, 200)
    (listed,) = recommender.search([wide])
    assert isinstance(listed, BeamResult)
    scores = {item.item: item.score for item in listed.items}
    np.testing.assert_allclose(found[0][list(scores)], list(scores.values()), atol=1e-4)
    with pytest.raises(ValueError, match="no items to score"):
        next(recommender.score([[1]], []))
    recommender.close()


def test_a_small_request_does_not_wait_for_a_large_one(speculation: Speculation) -> None:
    """Those that run share what a step has, and what one needs not the others have."""
    engine, trie = speculation.engine(DEPTH), speculation.tries[DEPTH]
    engine.add(BeamRequest("large", prompt(speculation, [3, 5]), 1, 1, scored=Scored.of(trie, np.arange(ITEMS))))
    engine.step(10)
    engine.add(BeamRequest("small", prompt(speculation, [8]), 1, 1, scored=Scored.of(trie, np.array([1]))))
    report = engine.step(40)
    assert [result.request_id for result in report.finished] == ["small"]
    assert 20 - DEPTH < report.scored_nodes - (DEPTH - 1) <= 40
    assert steps_of(engine)[-1].finished[0].request_id == "large"


def test_a_cached_prompt_is_used_and_kept(speculation: Speculation) -> None:
    engine, trie = speculation.engine(DEPTH), speculation.tries[DEPTH]
    results = []
    for number in range(2):
        scored = Scored.of(trie, np.array([3, 1, 3]))
        engine.add(BeamRequest(str(number), prompt(speculation, [3, 5, 9]), 1, 1, cache_key="user", scored=scored))
        results += [result for report in steps_of(engine) for result in report.finished]
    assert [result.usage.cached_tokens for result in results] == [0, results[1].usage.prompt_tokens - 1]
    np.testing.assert_allclose(scores_of(results[0]), scores_of(results[1]), atol=1e-5)
    assert scores_of(results[0])[0] == scores_of(results[0])[2]


def test_requests_that_end_early_leave_nothing_behind(speculation: Speculation) -> None:
    rng = np.random.default_rng(4)
    engine = speculation.engine(DEPTH, "beam:12")
    requests, _ = score_requests(speculation, speculation.tries[DEPTH], 20, rng)
    lists = speculation.requests(20, rng)
    both = [request for pair in zip(requests, lists, strict=True) for request in pair]
    engine.add(both[0])
    with pytest.raises(ValueError, match="is already running"):
        engine.add(both[0])
    assert_early_ends_leave_nothing(engine, both[1:], rng)


def test_scores_that_end_give_back_their_share_of_a_filter(speculation: Speculation) -> None:
    """So that the masks of filters that nobody uses any more make room for others; an item that the filter keeps out has no score."""
    engine, trie = speculation.engine(DEPTH), speculation.tries[DEPTH]
    allowed = ItemSet.of(np.arange(ITEMS) < ITEMS // 2)
    engine.add(BeamRequest("filtered", prompt(speculation, [3]), 1, 1, allowed_items=allowed, scored=Scored.of(trie, np.array([1, 140]))))
    masks = engine._opening._masks
    assert list(masks._holders) == [allowed]
    scores = scores_of(steps_of(engine)[-1].finished[0])
    assert np.isfinite(scores).tolist() == [True, False]
    assert not masks._holders


def test_ranks_count_the_identifiers_that_score_higher(speculation: Speculation) -> None:
    rng, trie = np.random.default_rng(1), speculation.tries[2]
    for _ in range(20):
        items = rng.integers(ITEMS, size=int(rng.integers(1, 80)))
        scored = Scored.of(trie, items)
        leaves = trie.leaf_of_item[items]
        # Few different scores, so that there are ties of identifiers, too.
        of_leaf = rng.integers(0, 9, size=ITEMS).astype(np.float32)
        scores = of_leaf[leaves]
        expected = [1 + len({leaf for leaf, score in zip(leaves, scores, strict=True) if score > own}) for own in scores]
        assert scored.ranks(scores).tolist() == expected


def test_items_that_the_catalog_does_not_have(speculation: Speculation) -> None:
    for item in (-1, ITEMS):
        with pytest.raises(ValueError, match=f"the catalog of {ITEMS} items does not have"):
            Scored.of(speculation.tries[3], np.array([3, item]))


def test_normalised_over_children_where_lists_are(speculation: Speculation) -> None:
    """All identifiers of a catalog together have probability 1 then; over the vocabulary they have less."""
    trie = speculation.tries[3]
    totals = []
    for normalise in Normalisation:
        engine = SpeculativeBeamEngine(speculation.target, trie, normalise=normalise)
        leaves = trie.items[trie.first_item[:-1]].astype(np.int64)
        engine.add(BeamRequest("all", prompt(speculation, [3, 5]), 1, 1, scored=Scored.of(trie, leaves)))
        totals.append(np.exp(scores_of(steps_of(engine)[-1].finished[0])).sum())
    assert totals[list(Normalisation).index(Normalisation.CHILDREN)] == pytest.approx(1, abs=1e-4)
    assert totals[0] < 1
