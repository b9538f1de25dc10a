"""Named filters while versions change: worked out without the lock, for the version that is served in the end, a few at a time."""

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog
from drafting.trie.item_set import ItemSet
from server.catalogs import filters
from server.catalogs.files import VersionFiles
from server.catalogs.filters import NamedFilters
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.replica import CatalogReplica
from server.catalogs.served import ServedCatalog
from server.catalogs.store import CatalogStore
from server.catalogs.switch import CatalogSwitch
from server.control import open_control_store
from server.control.follower import Follower
from server.control.records import encode_filter
from server.engine.client import EngineClient
from server.engine_settings import EngineOptions
from server.errors import FilterRefused, TooManyFilters
from server.metrics.registry import Metrics
from server.try_again import FiltersBusy


def priced(name: str, prices: list[int]) -> ServedCatalog:
    builder = CatalogBuilder()
    builder.add([f"item-{i}" for i in range(len(prices))], [[f"<a_{i}>"] for i in range(len(prices))], {"price": prices})
    return ServedCatalog(name, name, Path(f"{name}.catalog"), builder.catalog())


class Held:
    """Evaluates expressions, each only when the test lets it."""

    def __init__(self) -> None:
        self.evaluated: list[str] = []
        self.begun = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, expression: str, catalog: Catalog, *, checks_kinds: bool) -> ItemSet:
        self.evaluated.append(expression)
        self.begun.release()
        assert self.gate.wait(10)
        return filters_items_where(expression, catalog, checks_kinds=checks_kinds)

    async def wait_until_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.acquire, timeout=10)


filters_items_where = filters.items_where


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    evaluation = Held()
    monkeypatch.setattr(filters, "items_where", evaluation)
    yield evaluation
    evaluation.gate.set()


@pytest.fixture
def catalogs(tmp_path: Path) -> CatalogStore:
    engine = EngineClient(EngineOptions(target="", catalog=""), "", Metrics(), max_pending=1)
    return CatalogStore(priced("v1", [1, 2, 3]), engine, VersionFiles(tmp_path), Follower(open_control_store("memory://"), "one"))


@pytest.fixture
def named(catalogs: CatalogStore) -> NamedFilters:
    metrics = Metrics()
    engine = EngineClient(EngineOptions(target="", catalog=""), "", metrics, max_pending=1)
    found = NamedFilters(catalogs, engine)
    prompts = CatalogPrompts(catalogs, engine.supervisor)
    switch = CatalogSwitch(catalogs, found, prompts, engine.supervisor, metrics.health)
    catalogs.follower.applier = CatalogReplica(catalogs, found, switch)
    return found


async def test_a_filter_means_the_version_that_is_served_in_the_end(catalogs: CatalogStore, named: NamedFilters, held: Held) -> None:
    putting = asyncio.create_task(named.put("cheap", "price < 3"))
    await held.wait_until_begun()
    async with asyncio.timeout(5), catalogs.changing:
        catalogs.active = second = priced("v2", [1, 1, 1, 5])
    held.gate.set()
    await putting
    assert second.filters["cheap"].members().tolist() == [True, True, True, False]
    assert held.evaluated == ["price < 3"] * 2


async def test_filters_are_followed_for_the_version_that_is_served_in_the_end(
    catalogs: CatalogStore, named: NamedFilters, held: Held
) -> None:
    """A backup that is restored brings all filters anew, and engines may die with the version while these are evaluated for it."""
    held.gate.set()
    await named.put("old", "price < 9")
    await held.wait_until_begun()
    held.gate.clear()
    del catalogs.record.filters["old"]
    catalogs.record.filters["cheap"] = encode_filter("price < 3")
    following = asyncio.create_task(named.follow())
    await held.wait_until_begun()
    first, catalogs.active = catalogs.active, priced("v2", [1, 1, 1, 5])
    held.gate.set()
    await following
    assert catalogs.active.filters["cheap"].members().tolist() == [True, True, True, False]
    assert (list(catalogs.active.filters), list(first.filters)) == (["cheap"], ["old"])


async def test_an_expression_that_a_version_can_not_have_is_refused_and_changes_nothing(
    catalogs: CatalogStore, named: NamedFilters, held: Held
) -> None:
    held.gate.set()
    await named.put("cheap", "price < 3")
    with pytest.raises(FilterRefused, match="There is no attribute 'size'"):
        await named.put("cheap", "size < 3")
    assert named.get("cheap").expression == "price < 3"
    assert len(catalogs.active.filters["cheap"]) == 2


async def test_one_expression_is_evaluated_once_for_all_its_names(catalogs: CatalogStore, named: NamedFilters, held: Held) -> None:
    held.gate.set()
    for name in ("a", "b", "c"):
        await named.put(name, "price < 3")
    await named.prepare(second := priced("v2", [9, 2]))
    assert held.evaluated == ["price < 3"] * 2
    assert [second.filters[name].members().tolist() for name in ("a", "b", "c")] == [[False, True]] * 3
    assert len(catalogs.active.filters["c"]) == 2


async def test_more_than_may_wait_are_refused_at_once(named: NamedFilters, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "MAX_PUTS", 3)
    putting = [asyncio.create_task(named.put(f"f{i}", f"price < {i}")) for i in range(3)]
    await held.wait_until_begun()
    with pytest.raises(FiltersBusy):
        await named.put("late", "price < 9")
    held.gate.set()
    await asyncio.gather(*putting)
    await named.put("late", "price < 9")
    assert [each.name for each in named.all()] == ["f0", "f1", "f2", "late"]


async def test_what_all_filters_hold_together_is_bounded(named: NamedFilters, held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    held.gate.set()
    sizes = {"price < 3": 9 + 1, "item-1": 6 + 8 + 2 * 8 + 1}
    monkeypatch.setattr(filters, "MAX_FILTER_BYTES", sum(sizes.values()))
    await named.put("a", "price < 3")
    await named.put("b", ["item-1"])
    for name, what in (("c", "price < 2"), ("a", "price  < 3"), ("a", ["item-1"])):
        with pytest.raises(TooManyFilters, match=r"With this one, all filters would take more than 0 MiB: delete one first\."):
            await named.put(name, what)
    await named.put("a", "price < 2")
    await named.drop("b")
    await named.put("c", "price < 2")
