"""A blended list by an oracle: the ranking of all identifiers by what the same engine says of them without a blend."""

from dataclasses import replace

import numpy as np

from drafting.beam.rule import MAX_BEAM_WIDTH
from tests.lists import alone
from verification.engine.engine import SpeculativeBeamEngine
from verification.request import BeamRequest
from verification.result import BeamResult


def check_blended(engine: SpeculativeBeamEngine, request: BeamRequest) -> BeamResult:
    """Compare a list, whose beam must be as wide as may be, with the catalog's ranking by hand; return it."""
    assert request.blend is not None
    assert request.beam_width == MAX_BEAM_WIDTH
    result = alone(engine, request)
    whole = alone(engine, replace(request, request_id="whole", k=MAX_BEAM_WIDTH, blend=None))
    leaves = np.array([engine.trie.level_starts[engine.trie.depth] + engine.trie.leaf_of_item[item.item] for item in whole.items])
    ranking = request.blend.ranking(leaves, np.array([item.score for item in whole.items]))
    best = {int(leaf): (score, item.score) for leaf, score, item in zip(leaves, ranking, whole.items, strict=True)}
    expected = sorted(best.items(), key=lambda pair: -pair[1][0])[: request.k]
    found = [int(engine.trie.level_starts[engine.trie.depth] + engine.trie.leaf_of_item[item.item]) for item in result.firsts]
    assert found == [leaf for leaf, _ in expected]
    np.testing.assert_allclose([item.score for item in result.firsts], [score for _, (_, score) in expected], atol=1e-4)
    assert found != [leaf for leaf, _ in sorted(best.items(), key=lambda pair: -pair[1][1])[: request.k]], "the blend changes the list"
    assert result.thought == whole.thought
    assert engine.used_slots == 0
    return result
