"""Lists from an engine in this process: what is refused in a sentence, before it takes anything from others."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models import random_catalog, save_random_model
from verification.batch import RequestTooLarge
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.slots.pool import PrefixCache, SlotPool


@pytest.fixture
def recommender(tmp_path: Path) -> Recommender:
    catalog = random_catalog(items=30, depth=2, codes=5)
    return Recommender.load(save_random_model(tmp_path / "model", catalog, layers=1), catalog, kv_memory_gib=0.01)


def test_a_list_that_no_empty_engine_holds_is_refused_and_leaves_nothing(recommender: Recommender) -> None:
    """With what can be done about it; those before it run already, and are given up with it."""
    engine, slots = recommender.engine, recommender.engine.slots
    slots.prompts = SlotPool(20, first=slots.nodes.total)
    slots.prefix_cache = PrefixCache(slots.prompts)
    sentence = rf"holds 20 tokens of prompts and {slots.nodes.total} prefixes of beams, .* raise kv_memory_gib"
    with pytest.raises(RequestTooLarge, match=sentence):
        list(recommender.recommend([[1], list(range(20))], k=4))
    assert (engine.running, engine.used_slots) == (0, 0)
    (found,) = recommender.recommend([[1]], k=4)
    assert len({item.rank for item in found.items}) == 4


def test_an_id_whose_answer_is_awaited_is_refused_and_its_caller_gets_its_own_list(recommender: Recommender) -> None:
    """While the request runs, and once another caller's steps have made its list."""
    engine = recommender.engine
    (alone,) = recommender.recommend([[1]], k=4)

    def refuse(*requests: BeamRequest) -> None:
        with pytest.raises(ValueError, match=r"^The answer to a request with id 'same' is still awaited: give each an id of its own"):
            list(recommender.search(requests))

    def asked() -> Iterator[BeamRequest]:
        yield recommender.request("same", [1], 4)
        refuse(recommender.request("same", [2], 4))
        assert engine.running == 1
        assert len(list(recommender.search([recommender.request("other", [3], 4)]))) == 1
        assert engine.running == 0
        refuse(recommender.request("same", [2], 4))

    (found,) = recommender.search(asked())
    assert isinstance(found, BeamResult)
    assert [item.item for item in found.items] == [item.item for item in alone.items]
    refuse(recommender.request("same", [1], 4), recommender.request("same", [2], 4))
    assert (engine.running, engine.used_slots) == (0, 0)


def test_a_caller_that_leaves_ends_no_request_with_the_id_of_a_list_it_has(recommender: Recommender) -> None:
    """Such a list is made, though nobody has asked for it yet, and its id is free."""
    leaving = recommender.search([recommender.request("first", [1], 4), recommender.request("same", [2], 4)])
    next(leaving)

    def asked() -> Iterator[BeamRequest]:
        yield recommender.request("same", [3], 4)
        leaving.close()
        assert recommender.engine.running == 1

    (found,) = recommender.search(asked())
    assert isinstance(found, BeamResult)


def test_a_beam_that_the_engine_was_not_made_for_is_told_as_that(recommender: Recommender) -> None:
    """More memory would give its prefixes no more room."""
    recommender.engine.max_beam_width, recommender.engine.slots.nodes = 3, SlotPool(4)
    with pytest.raises(RequestTooLarge, match=r"^There is memory for beams of up to 3, not of 4: .* or raise --max-beam-width\.$"):
        list(recommender.recommend([[1]], k=4))
