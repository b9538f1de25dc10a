"""Lists from an engine in this process: what no empty engine holds is refused in a sentence."""

from pathlib import Path

import pytest

from tests.models import random_catalog, save_random_model
from verification.batch import RequestTooLarge
from verification.recommender import Recommender
from verification.slots.pool import PrefixCache, SlotPool


def test_a_list_that_no_empty_engine_holds_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    """With what can be done about it; those before it run already, and are given up with it."""
    catalog = random_catalog(items=30, depth=2, codes=5)
    recommender = Recommender.load(save_random_model(tmp_path / "model", catalog, layers=1), catalog, kv_memory_gib=0.01)
    engine, slots = recommender.engine, recommender.engine.slots
    slots.prompts = SlotPool(20, first=slots.nodes.total)
    slots.prefix_cache = PrefixCache(slots.prompts)
    sentence = rf"holds 20 tokens of prompts and {slots.nodes.total} prefixes of beams, .* raise kv_memory_gib"
    with pytest.raises(RequestTooLarge, match=sentence):
        list(recommender.recommend([[1], list(range(20))], k=4))
    assert (engine.running, engine.used_slots) == (0, 0)
    (found,) = recommender.recommend([[1]], k=4)
    assert len({item.rank for item in found.items}) == 4
