"""A step that is interrupted half way: no slot is given back twice or handed out again, and every caller gets a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from drafting.trie.item_set import ItemSet
from tests.models import random_catalog, save_random_model
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import ReservedPlaces
from verification.slots.engine_slots import EngineSlots, EngineSpoilt
from verification.slots.pool import OutOfSlots, SlotPool
from verification.verifiers.verifier import Verifier

CATALOG = random_catalog(items=60, depth=3, codes=6)
# More than run at a time.
HISTORIES = [[number % 50, number % 7] for number in range(100)]
SENTENCE = r"^A step of this engine was interrupted \(by Ctrl-C, .*\), so that it can't tell which key/value slots are in use: load the"
# Before, in the middle of and after the changes that a step makes.
PLACES: list[tuple[type, str]] = [
    (TransformersHost, "score"),
    (SlotPool, "allocate"),
    (Verifier, "_write"),
    (SlotPool, "release"),
    (EngineSlots, "close"),
]
Break = Callable[[type, str, BaseException, int], None]


@pytest.fixture
def recommender(tmp_path: Path) -> Recommender:
    return Recommender.load(save_random_model(tmp_path / "model", CATALOG, layers=1, hidden=32), CATALOG, plan="trie", kv_memory_gib=0.005)


@pytest.fixture
def break_call(monkeypatch: pytest.MonkeyPatch) -> Break:
    """Have the n-th call of a method within a step raise an error, once."""

    def place(owner: type, name: str, error: BaseException, number: int) -> None:
        original, step = getattr(owner, name), SpeculativeBeamEngine.step
        state = {"calls": 0, "inside": False}

        def method(*arguments: object) -> object:
            state["calls"] += state["inside"]
            if state["inside"] and state["calls"] == number:
                raise error
            return original(*arguments)

        def stepping(engine: SpeculativeBeamEngine) -> object:
            state["inside"] = True
            try:
                return step(engine)
            finally:
                state["inside"] = False

        monkeypatch.setattr(owner, name, method)
        monkeypatch.setattr(SpeculativeBeamEngine, "step", stepping)

    return place


@pytest.mark.parametrize("error", [KeyboardInterrupt(), torch.OutOfMemoryError("tried to allocate 2 GiB")], ids=["interrupt", "memory"])
@pytest.mark.parametrize(("owner", "name"), PLACES, ids=lambda part: part if isinstance(part, str) else part.__name__)
def test_all_callers_are_told_that_the_engine_is_spoilt(
    owner: type, name: str, error: BaseException, recommender: Recommender, break_call: Break
) -> None:
    successor = recommender.successor(CATALOG, "next")
    waiting = successor.recommend(HISTORIES, k=4)
    assert next(waiting).items
    expected = [[item.item for item in found.items] for found in recommender.recommend(HISTORIES, k=4)]
    beside = recommender.recommend(HISTORIES, k=4)
    assert [item.item for item in next(beside).items] == expected[0]
    break_call(owner, name, error, 2)
    with pytest.raises(type(error)):
        list(recommender.recommend(HISTORIES, k=4))
    used = recommender.engine.used_slots
    # Lists that were whole before are still given out.
    lists = []
    with pytest.raises(EngineSpoilt, match=SENTENCE):
        lists += [[item.item for item in found.items] for found in beside]
    assert lists == expected[1 : 1 + len(lists)]
    for source in (recommender, successor):
        with pytest.raises(EngineSpoilt, match=SENTENCE):
            list(source.recommend(HISTORIES, k=4))
    with pytest.raises(EngineSpoilt, match=SENTENCE):
        list(waiting)
    assert (recommender.engine.running, successor.engine.running, recommender.engine.used_slots) == (0, 0, used)
    recommender.close()


def test_a_request_that_is_interrupted_while_it_starts_spoils_the_engine_too(
    recommender: Recommender, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, whole = [], EngineSlots.open

    def interrupted(slots: EngineSlots, *arguments: Any) -> object:
        opened.append(slots)
        if len(opened) == 2:
            raise KeyboardInterrupt
        return whole(slots, *arguments)

    monkeypatch.setattr(EngineSlots, "open", interrupted)
    fresh = ReservedPlaces(1, ItemSet.of_items(np.arange(5), len(CATALOG)))
    with pytest.raises(KeyboardInterrupt):
        list(recommender.search([recommender.request("fresh", [1], 4, reserved=fresh)]))
    with pytest.raises(EngineSpoilt, match=SENTENCE):
        list(recommender.recommend(HISTORIES, k=4))


def test_what_an_engine_refuses_does_not_spoil_it(recommender: Recommender) -> None:
    engine, request = recommender.engine, recommender.request("one", [1, 2], 4)
    engine.add(request)
    with pytest.raises(ValueError, match="already running"):
        engine.add(request)
    while engine.has_room(wide := recommender.request(f"wide {engine.running}", [1, 2], 20, 50)):
        engine.add(wide)
    with pytest.raises(OutOfSlots):
        engine.add(wide)
    assert engine.step().tokens > 0
    assert engine.cancel("one")
