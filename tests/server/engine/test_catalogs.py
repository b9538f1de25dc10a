"""Two catalogs on one model: each request searches its own, all slots are accounted for, and one draft that fails fails for all."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import torch

from drafting.catalog.builder import catalog_of
from drafting.trie.item_set import ItemSet
from drafting.trie.item_trie import ItemTrie
from server.engine.catalogs import EngineCatalog, EngineCatalogs
from server.messages import CatalogLoaded
from tests.models import random_catalog, save_random_model
from verification.hosts.checkpoint import HostError
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.slots.engine_slots import CatalogTooLarge

OLD, NEW = random_catalog(seed=1), random_catalog(items=60, seed=2)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("group") / "tiny", OLD, hidden=32, layers=1)


@pytest.fixture(scope="module", params=["none", "beam:12"])
def pair(request: pytest.FixtureRequest, model: Path) -> Iterator[tuple[Recommender, Recommender]]:
    draft = model if request.param != "none" else None
    old = Recommender.load(model, OLD, draft=draft, plan=request.param, threads=1, kv_memory_gib=0.01, name="old")
    yield old, old.successor(NEW, "new")
    old.close()


def search(engines: EngineCatalogs, requests: list[BeamRequest]) -> dict[str, BeamResult]:
    waiting, results = list(requests), {}
    while len(results) < len(requests):
        if waiting and engines.has_room(waiting[-1]):
            engines.add(waiting.pop())
        results |= {result.request_id: result for result in engines.step().finished}
    return results


def test_requests_of_two_catalogs_get_what_they_would_get_alone(pair: tuple[Recommender, Recommender]) -> None:
    old, new = pair
    rng = np.random.default_rng(0)
    requests = []
    for number in range(30):
        source = pair[number % 2]
        items = len(source.catalog)
        allowed = ItemSet.of(rng.random(items) < 0.5) if number % 3 == 0 else None
        history, excluded = rng.integers(items, size=4).tolist(), rng.integers(items, size=3).tolist()
        requests.append(
            source.request(str(number), history, 1 + number % 7, 10, excluded, cache_key=f"u{number % 5}", allowed_items=allowed)
        )
    engines = EngineCatalogs("old", old)
    engines.put("new", EngineCatalog.of(new))
    together = search(engines, requests)
    assert engines.used_slots == 0
    for request in requests:
        (alone,) = search(engines, [request]).values()
        assert [item.item for item in together[request.request_id].items] == [item.item for item in alone.items]
        scores = [[item.score for item in each.items] for each in (together[request.request_id], alone)]
        np.testing.assert_allclose(*scores, atol=1e-4)
    engines.drop("old")
    assert search(engines, [requests[1]])["1"].items


def test_what_one_catalog_needs_is_not_spare_for_the_other(pair: tuple[Recommender, Recommender]) -> None:
    old, new = pair
    started = []
    for number in range(10_000):
        source = pair[number % 2]
        request = source.request(str(number), [1], 10, 60)
        if not source.engine.has_room(request):
            break
        source.engine.add(request)
        started.append(request.request_id)
    assert len(started) > 2
    finished = set()
    while finished != set(started):
        for engine in (old.engine, new.engine):
            finished |= {result.request_id for result in engine.step().finished}
    assert old.engine.used_slots == 0


def test_a_catalog_that_does_not_fit_is_refused(pair: tuple[Recommender, Recommender], monkeypatch: pytest.MonkeyPatch) -> None:
    old, _ = pair
    longer = catalog_of({"a": ["<a_0>", "<b_0>", "<c_0>", "<c_1>"]})
    with pytest.raises(HostError, match="but the model was loaded for"):
        old.successor(longer, "longer")
    monkeypatch.setattr("verification.slots.engine_slots.MOST_TABLE_BYTES", 1)
    # Its table may come to what the other's may, but to no more.
    old.successor(NEW, "no larger")
    large = catalog_of({token: ["<a_0>", "<b_0>", token] for token in OLD.tokens})
    assert max(large.trie.max_children) > max(OLD.trie.max_children)
    with pytest.raises(CatalogTooLarge, match="start a server with it"):
        old.successor(large, "large")


def full_device() -> None:
    raise torch.OutOfMemoryError("CUDA out of memory")


def fail() -> None:
    raise RecursionError("maximum recursion depth exceeded in a library")


NO_MEMORY = "The engine has no memory for the catalog beside the one that it serves: start a server with it."
NO_IDEA = "The engine can't load the catalog beside the one that it serves; its log says why."


@pytest.mark.parametrize(
    ("take", "sentence"),
    [
        (lambda: np.empty(2**60, np.uint8), NO_MEMORY),
        (lambda: torch.empty(2**55, dtype=torch.uint8), NO_MEMORY),
        (full_device, NO_MEMORY),
        (fail, NO_IDEA),
    ],
    ids=["numpy", "host", "device", "fault"],
)
def test_a_catalog_that_can_not_be_loaded_ends_nobody(
    model: Path, tmp_path: Path, take: Callable[[], object], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = Recommender.load(model, OLD, threads=1, kv_memory_gib=0.01, name="old")
    NEW.save(tmp_path / "new.jsonl")
    engines = EngineCatalogs("old", old)
    engines.add(old.request("1", [1, 2], 4))
    engines.step()
    with monkeypatch.context() as broken:
        broken.setattr(ItemTrie, "of", lambda *_: take())
        engines.load("new", str(tmp_path / "new.jsonl"))
        (told,) = wait_for(engines)
    assert told == CatalogLoaded("new", sentence)
    while not (finished := engines.step().finished):
        pass
    assert len(finished[0].items) >= 4
    # Once there is memory again, the same one is served.
    engines.load("new", str(tmp_path / "new.jsonl"))
    assert wait_for(engines) == [CatalogLoaded("new")]
    engines.close()


def wait_for(engines: EngineCatalogs) -> list[CatalogLoaded]:
    while not (told := engines.take_loaded()):
        time.sleep(0.01)
    return told


def test_a_draft_that_fails_while_a_catalog_is_loaded_fails_for_it_too(model: Path) -> None:
    old = Recommender.load(model, OLD, draft=model, plan="beam:12", threads=1, kv_memory_gib=0.01, name="old")
    engines = EngineCatalogs("old", old)
    try:
        # One that is dropped again leaves the one that serves the newest.
        engines.put("refused", EngineCatalog.of(old.successor(NEW, "refused")))
        engines.drop("refused")
        loaded = old.successor(NEW, "new")
        old.engine.drop_draft()
        engines.put("new", EngineCatalog.of(loaded))
        assert not loaded.engine.has_draft
        assert search(engines, [loaded.request("1", [1, 2], 4, 10)])["1"].items
    finally:
        engines.close()


def test_a_catalog_that_is_dropped_while_it_is_loaded_is_not_taken_in(model: Path, tmp_path: Path) -> None:
    NEW.save(tmp_path / "new.jsonl")
    engines = EngineCatalogs("old", Recommender.load(model, OLD, threads=1, kv_memory_gib=0.01, name="old"))
    engines.load("new", str(tmp_path / "new.jsonl"))
    engines.drop("new")
    # Whatever is under way has come to its end.
    engines.close()
    assert engines.take_loaded() == []
    with pytest.raises(ValueError, match=r"^The engine has no catalog 'new'\.$"):
        engines.get("new")


def test_a_draft_that_fails_in_a_step_of_one_catalog_is_asked_no_more_by_the_other(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one model, which is closed then."""
    old = Recommender.load(model, OLD, draft=model, plan="beam:12", threads=1, kv_memory_gib=0.01, name="old")
    new, engines, asked = old.successor(NEW, "new"), EngineCatalogs("old", old), 0

    def break_down(_: object) -> NoReturn:
        nonlocal asked
        asked += 1
        raise RuntimeError("the draft is out of memory")

    try:
        engines.put("new", EngineCatalog.of(new))
        monkeypatch.setattr(old.engine.draft, "score", break_down)
        found = search(engines, [old.request("1", [1, 2], 4, 10), new.request("2", [1, 2], 4, 10)])
        assert asked == 1
        assert (old.engine.has_draft, new.engine.has_draft) == (False, False)
        assert all(result.items for result in found.values())
    finally:
        engines.close()
