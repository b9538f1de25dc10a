"""A step that is interrupted half way: no slot is given back twice or handed out again, and every caller gets a sentence."""

import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from types import FrameType
from typing import Any

import numpy as np
import pytest
import torch

from drafting.trie.item_set import ItemSet
from tests.models import random_catalog, save_random_model
from verification import batch
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
    return load(save_random_model(tmp_path / "model", CATALOG, layers=1, hidden=32))


def load(model: Path) -> Recommender:
    return Recommender.load(model, CATALOG, plan="trie", kv_memory_gib=0.005)


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

        def stepping(engine: SpeculativeBeamEngine, **given: int | None) -> object:
            state["inside"] = True
            try:
                return step(engine, **given)
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


@pytest.mark.parametrize("forget", [lambda engine: engine.forget("ann"), SpeculativeBeamEngine.forget_histories], ids=["one", "all"])
def test_forgetting_gives_no_slot_of_a_spoilt_engine_back(
    recommender: Recommender, forget: Callable[[SpeculativeBeamEngine], None]
) -> None:
    engine = recommender.engine
    list(recommender.search([recommender.request("one", [1, 2], 4, cache_key="ann")]))
    cached, free = engine.cached_slots, engine.slots.prompts.free
    with pytest.raises(KeyboardInterrupt), engine.slots:
        raise KeyboardInterrupt
    with pytest.raises(EngineSpoilt, match=SENTENCE):
        forget(engine)
    assert (engine.cached_slots, engine.slots.prompts.free) == (cached, free)
    assert cached > 0


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


class Interruption:
    """Ctrl-C at the n-th place of `batch` where Python looks for signals: when a call begins, and after it."""

    def __init__(self, number: int) -> None:
        self.number, self.seen = number, 0

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        # What the engine was called for is lost to `batch` if the interruption comes when it returns.
        frames = (frame, frame.f_back) if event == "return" else (frame,)
        if event == "c_call" or all(at is None or at.f_code.co_filename != batch.__file__ for at in frames):
            return
        self.seen += 1
        if self.seen == self.number:
            raise KeyboardInterrupt


def interrupted(recommender: Recommender, number: int) -> Interruption:
    place = Interruption(number)
    sys.setprofile(place)
    try:
        with suppress(KeyboardInterrupt):
            list(recommender.recommend(HISTORIES[:4], k=2))
    finally:
        sys.setprofile(None)
    return place


def test_wherever_an_interruption_comes_nobody_waits_for_ever(recommender: Recommender, tmp_path: Path) -> None:
    """Others get the lists that they get alone, or are told that the engine is spoilt; the lock is free, and no slot is left."""
    expected = [[item.item for item in found.items] for found in recommender.recommend(HISTORIES[:70], k=2)]
    places = interrupted(recommender, 0).seen
    assert places > 50
    spoilt = 0
    for number in np.random.default_rng(0).permutation(np.arange(1, places + 1))[:40].tolist():
        source = recommender.successor(CATALOG, f"interrupted at {number}")
        beside = source.recommend(HISTORIES[:70], k=2)
        lists = [next(beside)]
        assert interrupted(source, number).seen == number
        assert not source._shared.turns.lock.locked()

        def rest(others: Any = beside, found: list[Any] = lists) -> None:
            with suppress(EngineSpoilt):
                found += others

        thread = Thread(target=rest, daemon=True)
        thread.start()
        thread.join(20)
        assert not thread.is_alive(), number
        assert [[item.item for item in found.items] for found in lists] == expected[: len(lists)]
        assert source.engine.running == 0
        if source.engine.slots.is_spoilt:
            spoilt += 1
            recommender = load(tmp_path / "model")
        else:
            assert len(lists) == 70
            assert source.engine.used_slots == 0
    assert 0 < spoilt < 40
