"""Several replicas on one control store: what one acknowledges the others have, and none replaces what another has acknowledged."""

import asyncio
import random
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from drafting.catalog.artefact import save_artefact
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.catalog.placement import add_items
from drafting.catalog.text_column import TextColumn
from server.catalogs import filters, new_items
from server.catalogs.new_items import NewItems
from server.catalogs.placing import Placed, PlaceOrder
from server.catalogs.prompts import CatalogPrompts
from server.catalogs.served import ServedCatalog
from server.catalogs.store import Candidate, Prepare
from server.catalogs.tidying import near
from server.control import ControlStore, Limits, Position, Replica, State, Write
from server.control.announcer import Announcer
from server.control.memory import MemoryControlStore
from server.control.records import Activation, Changes, decode_filter
from server.engine.client import EngineClient
from server.engine.supervisor import EngineStatus
from server.errors import CatalogRefused, FilterNotFound, NothingToRollBack, VersionActive, VersionExists, VersionNotFound
from server.schemas.catalogs import NewItemsBody
from server.settings import Settings
from server.try_again import ControlEmpty, ControlLost, ControlUnavailable, EngineUnavailable, ReplicaBehind
from tests.server.catalogs.shop import ONE, START, TWO, Shop, open_shop, opened, small_catalog, take_any_catalog

NAMES = ("a", "b", "c")


async def place(_: str, order: PlaceOrder, *__: object) -> Placed:
    """What the background process does, here."""
    grown, placed = add_items(load_catalog(Path(order.base)), order.items, order.collision, None, order.added_at)
    await asyncio.sleep(0)
    return Placed(items=placed, digest=save_artefact(grown, Path(order.artefact)))


@pytest.fixture(autouse=True)
def willing_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    take_any_catalog(monkeypatch)
    monkeypatch.setattr(new_items, "run_in_background", place)


class Flaky(MemoryControlStore):
    """A store that can be away, or without its replicas, and that can lose the answer to a write, or the write."""

    def __init__(self) -> None:
        super().__init__(Limits())
        self.away, self.is_confirmed = False, True
        self.lose: str | None = None
        self.has_hung = asyncio.Event()

    async def state(self) -> State | None:
        self._answer()
        return await super().state()

    async def position(self) -> Position | None:
        self._confirm()
        return await super().position()

    async def writes(self, after: Position) -> list[Write] | None:
        self._confirm()
        return await super().writes(after)

    async def write(self, after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        self._confirm()
        lose, self.lose = self.lose, None
        if lose == "write":
            raise ControlUnavailable("It is lost.")
        await asyncio.sleep(0)
        written = await super().write(after, by, changes)
        if lose == "answer":
            raise ControlUnavailable("Its answer is lost.")
        if lose == "time":
            self.has_hung.set()
            await asyncio.sleep(60)
        return written

    def _answer(self) -> None:
        if self.away:
            raise ControlUnavailable("It is away.")

    def _confirm(self) -> None:
        self._answer()
        if not self.is_confirmed:
            raise ControlUnavailable("Its replicas are away.")


@pytest.fixture
def control() -> Flaky:
    return Flaky()


@pytest.fixture
async def fleet(tmp_path: Path, control: ControlStore) -> AsyncIterator[list[Shop]]:
    """Three replicas on one control store and one directory; each does what others have written when the test says so."""
    async with AsyncExitStack() as stack:
        yield [await stack.enter_async_context(opened(tmp_path, control, name)) for name in NAMES]


async def follow(shop: Shop) -> None:
    async with shop.catalogs.changing:
        await shop.catalogs.follower.catch_up()


def adds(shop: Shop) -> NewItems:
    shop.engine.supervisor.status = EngineStatus.READY
    return NewItems(
        shop.catalogs, shop.engine.supervisor, shop.switch, Settings(target=Path("x"), catalog=Path("y"), engine="transformers")
    )


def item(name: str) -> NewItemsBody:
    body = {"items": [{"item_id": name, "identifier": ["<a_0>", "<b_0>", "<c_0>"]}], "on_collision": "shared"}
    return NewItemsBody.model_validate(body)


def state_of(shop: Shop) -> tuple[object, ...]:
    """All that a client can tell."""
    active = shop.catalogs.active
    filters = sorted((name, items.members().nonzero()[0].tolist()) for name, items in active.filters.items())
    return active.name, active.catalog.version, sorted(shop.catalogs.versions()), shop.catalogs.history, filters


async def test_items_that_two_replicas_take_at_the_same_time_are_all_there(fleet: list[Shop]) -> None:
    await asyncio.gather(*(adds(shop).add(item(f"new-{shop.catalogs.follower.name}")) for shop in fleet))
    for shop in fleet:
        await follow(shop)
        assert {f"new-{name}" for name in NAMES} <= set(shop.catalogs.active.catalog.item_ids)
    assert len({str(state_of(shop)) for shop in fleet}) == 1


async def test_items_are_not_added_to_a_version_that_is_left_meanwhile(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    one, *_ = fleet
    await one.add("good", ONE)
    good = await one.catalogs.load("good")

    async def place_late(module: str, order: PlaceOrder, *more: object) -> Placed:
        one.catalogs.leave(good, "Two engines died with it.")
        return await place(module, order, *more)

    monkeypatch.setattr(new_items, "run_in_background", place_late)
    with pytest.raises(EngineUnavailable, match="Engines died"):
        await adds(one).add(item("new"))
    assert one.catalogs.active is good
    assert not any(version.by_items for version in one.catalogs.record.versions.values())


async def test_counts_of_items_go_on_on_all_replicas_and_the_one_that_adds_some_counts_these(fleet: list[Shop]) -> None:
    def told(shop: Shop) -> list[float | None]:
        names = ("distinct_items_served", "catalog_items", "items_added_total")
        return [shop.metrics.registry.get_sample_value(f"atspeed_{name}") for name in names]

    one, two, _ = fleet
    for shop in (one, two):
        shop.metrics.health.observe_list(START.version, [1, 2], [], short=False)
    await adds(one).add(item("new"))
    await follow(two)
    assert (told(one), told(two)) == ([2, len(START) + 1, 1], [2, len(START) + 1, 0])
    await two.activate(START.version)
    assert told(two) == [0, len(START), 0]


async def test_items_that_are_added_to_a_version_which_is_left_while_they_are_followed_are_counted_anew(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version is fetched for minutes, perhaps, and then counts are those of the one that engines came up with meanwhile."""
    one, two, _ = fleet
    await one.add("large", catalog_of({f"large-{number}": ["<a_0>", "<b_0>", f"<c_{number}>"] for number in range(2 * len(START))}))
    for name in ("large", START.version):
        await one.activate(name)
    await follow(two)
    await adds(one).add(item("new"))
    large, bring = await two.catalogs.load("large"), two.catalogs.bring

    async def bring_late(candidate: Candidate, name: str, path: Path, prepare: Prepare, *, without_engine: bool) -> ServedCatalog:
        found = await bring(candidate, name, path, prepare, without_engine=without_engine)
        two.catalogs.leave(large, "Two engines died with it.")
        two.metrics.health.open_catalog(large.name, len(large.catalog))
        return found

    monkeypatch.setattr(two.catalogs, "bring", bring_late)
    await follow(two)
    assert state_of(two) == state_of(one)
    assert two.named_by_metric == one.catalogs.active.name
    assert two.metrics.registry.get_sample_value("atspeed_catalog_items") == len(START) + 1


async def test_items_whose_name_another_replica_takes_meanwhile_are_served_under_their_own(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = fleet
    write = one.catalogs.follower.write

    async def overtaken(changes: Changes) -> None:
        monkeypatch.setattr(one.catalogs.follower, "write", write)
        await adds(two).add(item("first"))
        await two.switch.serve(START.version, "a test")
        await write(changes)

    monkeypatch.setattr(one.catalogs.follower, "write", overtaken)
    _, activation = await adds(one).add(item("second"))
    assert activation.version == one.catalogs.active.name == one.catalogs.record.active
    assert "first" not in one.catalogs.active.catalog.item_ids
    assert "second" in one.catalogs.active.catalog.item_ids
    # It was not the first attempt; an alert fires on those that have failed.
    assert activations(one) == {"activated": 1, "failed": 0}


def activations(shop: Shop) -> dict[str, float | None]:
    name = "atspeed_catalog_activations_total"
    return {outcome: shop.metrics.registry.get_sample_value(name, {"outcome": outcome}) for outcome in ("activated", "failed")}


async def test_what_is_asked_for_by_mistake_is_no_failed_activation(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    one, *_ = fleet
    with pytest.raises(VersionNotFound):
        await one.activate("mistyped")
    async with one.catalogs.changing:
        with pytest.raises(NothingToRollBack):
            await one.switch.serve(None, "a test")
    assert activations(one) == {"activated": 0, "failed": 0}
    await one.add("v1", ONE)

    async def refuse(*_: object) -> None:
        raise CatalogRefused("It is made of cheese.")

    monkeypatch.setattr(EngineClient, "load_catalog", refuse)
    with pytest.raises(CatalogRefused):
        await adds(one).add(item("of cheese"))
    assert activations(one) == {"activated": 0, "failed": 0}
    with pytest.raises(CatalogRefused):
        await one.activate("v1")
    assert activations(one) == {"activated": 0, "failed": 1}


async def test_the_log_says_why_a_version_is_not_activated(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(*_: object) -> None:
        raise CatalogRefused("It is made of cheese.")

    monkeypatch.setattr(EngineClient, "load_catalog", refuse)
    one, *_ = fleet
    await one.add("damaged", ONE)
    await one.add("cheese", TWO)
    one.catalogs.path("damaged").write_bytes(b"no catalog")
    # A replica that is to follow tries again every few seconds.
    for name, error in (*[("damaged", CatalogRefused)] * 2, ("cheese", CatalogRefused), ("mistyped", VersionNotFound)):
        with pytest.raises(error):
            await one.activate(name)
    damage, *told = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert damage.startswith("the file of version damaged can't be read: ")
    assert told == [
        *["version damaged is not activated: The version 'damaged' can't be read any more."] * 2,
        "version cheese is not activated: It is made of cheese.",
    ]


async def test_the_prompts_of_a_version_can_be_made_before_it_is_served(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = fleet
    asked: list[tuple[str, bool]] = []

    async def prepare(_: CatalogPrompts, served: ServedCatalog) -> None:
        asked.append((served.name, served in (one.catalogs.active, two.catalogs.active)))

    async def refuse(*_: object) -> None:
        raise EngineUnavailable("No prompts can be made.")

    monkeypatch.setattr(CatalogPrompts, "prepare", prepare)
    await one.add("v1", ONE)
    await one.activate("v1")
    await follow(two)
    assert asked == [("v1", False), ("v1", False)]
    monkeypatch.setattr(CatalogPrompts, "prepare", refuse)
    with pytest.raises(EngineUnavailable, match="No prompts"):
        await one.activate(START.version)
    assert one.catalogs.active.name == one.catalogs.record.active == "v1"


async def test_what_the_model_can_not_read_is_refused_in_the_words_of_its_engine(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No prompts can be made for it either, which would be told as something to try again."""

    async def refuse(*_: object) -> None:
        raise CatalogRefused("The model's tokenizer has no token '<z_9>'.")

    async def fail(*_: object) -> None:
        raise EngineUnavailable("No prompts can be made.")

    monkeypatch.setattr(EngineClient, "load_catalog", refuse)
    monkeypatch.setattr(CatalogPrompts, "prepare", fail)
    one, *_ = fleet
    await one.add("v1", ONE)
    with pytest.raises(CatalogRefused, match="has no token '<z_9>'"):
        await one.activate("v1")
    with pytest.raises(CatalogRefused, match="has no token '<z_9>'"):
        await adds(one).add(item("new"))


async def test_a_version_that_others_serve_and_that_is_not_known_here_is_a_failed_activation(fleet: list[Shop]) -> None:
    one, *_ = fleet
    follower = one.catalogs.follower
    async with one.catalogs.changing:
        await follower.decide(lambda: follower.write(one.catalogs.record.activated(Activation("lost", "a test", 1.0))))
        with pytest.raises(VersionNotFound):
            await one.switch.follow("lost")
    assert activations(one) == {"activated": 0, "failed": 1}


async def test_of_two_who_roll_back_from_the_same_version_the_second_is_refused(fleet: list[Shop]) -> None:
    one, two, _ = fleet
    for name, catalog in (("good", ONE), ("bad", TWO)):
        await one.add(name, catalog)
        await one.activate(name)
    await follow(two)

    async def roll_back(shop: Shop) -> str:
        async with shop.catalogs.changing:
            return (await shop.switch.serve(None, "on call", served="bad")).version

    told = await asyncio.gather(roll_back(one), roll_back(two), return_exceptions=True)
    assert sorted(map(str, told)) == ["The version 'bad' is not served any more: 'good' is. Nothing was changed.", "good"]
    for shop in (one, two):
        await follow(shop)
        assert shop.catalogs.active.name == "good"


async def test_nobody_goes_back_to_a_version_that_only_has_the_name_of_one_that_was_served(fleet: list[Shop]) -> None:
    one, two, _ = fleet
    for name, catalog in (("blue", ONE), ("green", TWO)):
        await one.add(name, catalog)
        await one.activate(name)
    async with one.catalogs.changing:
        await one.catalogs.remove("blue")
    await two.add("blue", small_catalog(9))
    for shop in (one, two):
        await follow(shop)
        assert shop.catalogs.previous() == START.version
        assert shop.catalogs.served_before(START.version) == ["green"]
    await two.activate("blue")
    assert two.catalogs.previous() == "green"
    await one.activate("green")
    assert one.catalogs.previous() == "blue"


async def test_of_the_versions_that_were_served_the_newest_are_kept_near(fleet: list[Shop]) -> None:
    one, *_ = fleet
    for number in range(6):
        await one.add(f"v{number}", small_catalog(10 + number))
    for number in (4, 3, 2, 1, 0, 2):
        await one.activate(f"v{number}")
    files = {number: one.catalogs.path(f"v{number}").name for number in range(6)}
    assert near(one.catalogs) == {files[number] for number in (2, 0, 1, 3)}
    one.catalogs.trying = "v5"
    assert near(one.catalogs) == {files[number] for number in (2, 0, 1, 3, 5)}


class Loaded:
    """What the engines hold, by client."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._handles: dict[EngineClient, set[str]] = {}
        drop = EngineClient.drop_catalog

        async def load_catalog(engine: EngineClient, handle: str, _: Path) -> None:
            self._handles.setdefault(engine, set()).add(handle)

        def drop_catalog(engine: EngineClient, handle: str) -> None:
            self._handles.setdefault(engine, set()).discard(handle)
            drop(engine, handle)

        monkeypatch.setattr(EngineClient, "load_catalog", load_catalog)
        monkeypatch.setattr(EngineClient, "drop_catalog", drop_catalog)

    def of(self, shop: Shop) -> set[str]:
        return self._handles.get(shop.engine, set())


async def test_items_forget_older_versions_that_items_made_and_none_that_was_brought(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(new_items, "KEPT_VERSIONS", 2)
    one, two, _ = fleet
    brought = [f"v1.items-{day}" for day in (20261101, 20261102, 20261103)]
    for name in ("v1", *brought):
        await one.add(name, ONE)
    await one.activate(brought[-1])
    for number in range(3):
        await adds(two).add(item(f"new-{number}"))
    await follow(one)
    assert one.catalogs.versions() == [START.version, "v1", *brought, "v1.items-20261105", "v1.items-20261106"]


async def test_items_are_served_where_older_versions_can_not_be_forgotten_and_these_go_with_the_next_ones(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def refuse(_: str) -> NoReturn:
        raise ControlUnavailable("It is away.")

    def made() -> list[str]:
        return [name for name in one.catalogs.versions() if ".items-" in name]

    monkeypatch.setattr(new_items, "KEPT_VERSIONS", 1)
    one, *_ = fleet
    await adds(one).add(item("first"))
    with monkeypatch.context() as away:
        away.setattr(one.catalogs, "remove", refuse)
        _, second = await adds(one).add(item("second"))
    assert one.catalogs.active.name == second.version
    assert len(made()) == 2
    assert "versions that are not needed any more stay: It is away." in caplog.messages
    _, third = await adds(one).add(item("third"))
    assert made() == [third.version]


async def test_items_whose_server_ends_while_they_are_written_are_there_if_they_were_written(fleet: list[Shop], control: Flaky) -> None:
    one, two, _ = fleet
    control.lose = "time"
    adding = asyncio.create_task(adds(one).add(item("new")))
    await control.has_hung.wait()
    adding.cancel()
    with pytest.raises(asyncio.CancelledError):
        await adding
    await follow(two)
    assert "new" in two.catalogs.active.catalog.item_ids


async def test_an_engine_keeps_no_catalog_of_new_items_that_others_came_before(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    loaded, one, two = Loaded(monkeypatch), *fleet[:2]
    write = one.catalogs.follower.write

    async def overtaken(changes: Changes) -> None:
        monkeypatch.setattr(one.catalogs.follower, "write", write)
        assert len(loaded.of(one)) == 1
        await adds(two).add(item("first"))
        await write(changes)

    monkeypatch.setattr(one.catalogs.follower, "write", overtaken)
    await adds(one).add(item("second"))
    assert {"first", "second"} <= set(one.catalogs.active.catalog.item_ids)
    assert loaded.of(one) == {one.catalogs.active.handle}


async def test_an_engine_keeps_no_catalog_of_a_rollback_that_others_came_before(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two, _ = fleet
    for name, catalog in (("v1", ONE), ("v2", TWO)):
        await one.add(name, catalog)
    for name in ("v1", "v2"):
        await one.activate(name)
    loaded, write = Loaded(monkeypatch), one.catalogs.follower.write

    async def overtaken(changes: Changes) -> None:
        monkeypatch.setattr(one.catalogs.follower, "write", write)
        for name in ("v2", START.version, "v2"):
            await two.activate(name)
        await write(changes)

    monkeypatch.setattr(one.catalogs.follower, "write", overtaken)
    async with one.catalogs.changing:
        await one.switch.serve(None, "a test")
    assert one.catalogs.active.name == one.catalogs.record.active == START.version
    assert loaded.of(one) == {one.catalogs.active.handle}


async def test_a_name_that_two_replicas_take_with_other_contents_is_acknowledged_once(fleet: list[Shop]) -> None:
    one, two, three = fleet
    results = await asyncio.gather(one.add("v1", ONE), two.add("v1", TWO), return_exceptions=True)
    assert sorted(map(str, results)) == ["None", "There is a version 'v1' already; versions do not change."]
    winner = (ONE, TWO)[results.index(None)]
    await three.activate("v1")
    for shop in fleet:
        await follow(shop)
        assert (shop.catalogs.active.name, shop.catalogs.active.catalog.version) == ("v1", winner.version)
    with pytest.raises(VersionExists):
        await three.add("v1", ONE)


async def test_filters_and_versions_of_one_are_known_to_all_and_outlive_them(tmp_path: Path, fleet: list[Shop], control: Flaky) -> None:
    one, two, _ = fleet
    await one.filters.put("few", [f"item-{number}" for number in range(3)])
    await one.add("v1", ONE)
    # A write is judged at what others have written, whether that is followed already or not.
    await two.activate("v1")
    assert two.filters.get("few").items(START).members().sum() == 3
    await two.filters.drop("few")
    with pytest.raises(FilterNotFound):
        await one.filters.drop("few")
    await one.filters.put("price", ["item-7"])
    async with opened(tmp_path, control, "d") as late:
        assert (late.catalogs.active.name, [each.name for each in late.filters.all()]) == ("v1", ["price"])


async def test_what_others_have_named_is_decoded_off_the_event_loop(fleet: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    """A definition may have a million items."""
    one, two, _ = fleet
    threads: list[threading.Thread] = []

    def decode(meaning: bytes) -> str | TextColumn:
        threads.append(threading.current_thread())
        return decode_filter(meaning)

    monkeypatch.setattr(filters, "decode_filter", decode)
    await one.filters.put("few", ["item-1", "item-2"])
    await follow(two)
    assert [(each.name, list(each.what)) for each in two.filters.all()] == [("few", ["item-1", "item-2"])]
    # With another version in memory it is not decoded again.
    await two.add("v1", ONE)
    await two.activate("v1")
    assert [each.name for each in two.filters.all()] == ["few"]
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()


async def test_a_store_that_is_away_stops_writes_and_nothing_else(fleet: list[Shop], control: Flaky) -> None:
    one, two, _ = fleet
    await one.filters.put("old", ["item-1"])
    control.away = True
    for write in (one.filters.put("new", ["item-2"]), one.filters.drop("old"), one.add("v1", ONE), one.activate(START.version)):
        with pytest.raises(ControlUnavailable):
            await write
    assert one.catalogs.follower.away_since is not None
    one.catalogs.follower.check()
    assert [each.name for each in one.filters.all()] == ["old"]
    control.away = False
    await two.filters.put("new", ["item-3"])
    await follow(one)
    assert [each.name for each in one.filters.all()] == ["new", "old"]
    assert one.catalogs.follower.away_since is None


async def test_a_replica_begins_with_what_there_is_and_writes_later_what_it_has_found(
    tmp_path: Path, fleet: list[Shop], control: Flaky
) -> None:
    """The version that it is started with was removed, and an artefact was brought."""
    one, *_ = fleet
    await one.add("v1", ONE)
    await one.activate("v1")
    async with one.catalogs.changing:
        await one.catalogs.remove(START.version)
    await control.announce(replica_of(one))
    save_artefact(TWO, one.catalogs.files.directory / "brought.catalog")
    found = {START.version, "brought"}
    control.is_confirmed = False
    async with opened(tmp_path, control, "d") as late:
        assert late.catalogs.active.name == "v1"
        control.is_confirmed = True
        assert not found & one.catalogs.record.versions.keys()
        await follow(late)
        for shop in (late, one):
            await follow(shop)
            assert found <= shop.catalogs.record.versions.keys()
        assert not late.catalogs.follower.applier.has_more


@pytest.mark.parametrize("lose", ["write", "answer"])
async def test_a_write_that_is_not_answered_is_there_or_not_on_all(fleet: list[Shop], control: Flaky, lose: str) -> None:
    for shop, change in ((fleet[0], fleet[0].add("v1", ONE)), (fleet[1], fleet[1].filters.put("few", ["item-1"]))):
        control.lose = lose
        with pytest.raises(ControlUnavailable):
            await change
        await follow(shop)
    for shop in fleet:
        await follow(shop)
        assert ("v1" in shop.catalogs.versions()) == ("few" in shop.catalogs.active.filters) == (lose == "answer")
    if lose == "answer":
        await fleet[2].activate("v1")
        assert fleet[2].catalogs.active.catalog.version == ONE.version


async def test_a_state_that_is_lost_is_not_followed_and_can_be_restored(tmp_path: Path, fleet: list[Shop], control: Flaky) -> None:
    one, two, _ = fleet
    await one.filters.put("few", ["item-1"])
    kept = one.catalogs.follower
    lost = Flaky()
    vars(control).update({name: value for name, value in vars(lost).items() if name != "_replicas"})
    with pytest.raises(ControlLost):
        await one.filters.put("more", ["item-2"])
    await control.announce(replica_of(one))
    newcomer = open_shop(tmp_path, control, "d")
    with pytest.raises(ControlEmpty):
        await newcomer
    assert await control.state() is None
    await control.replace(kept.values, kept.read_position.revision)
    await two.filters.put("more", ["item-2"])
    await follow(one)
    assert [each.name for each in one.filters.all()] == ["few", "more"]


def replica_of(shop: Shop) -> Replica:
    return Announcer(shop.catalogs.follower, lambda: shop.catalogs.active.name, lambda: None).replica()


async def test_a_replica_that_can_not_serve_what_the_others_do_says_so_and_is_not_ready(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, _ = fleet

    async def refuse(engine: EngineClient, *_: object) -> None:
        if engine is two.engine:
            raise CatalogRefused("It is made of cheese.")

    monkeypatch.setattr(EngineClient, "load_catalog", refuse)
    await one.add("v1", ONE)
    await one.activate("v1")
    two.engine.supervisor.status = EngineStatus.READY
    with pytest.raises(ReplicaBehind, match="made of cheese"):
        await follow(two)
    with pytest.raises(ReplicaBehind, match="made of cheese"):
        two.catalogs.follower.check()
    assert two.catalogs.active.name == START.version
    assert two.catalogs.follower.applied.revision < one.catalogs.follower.applied.revision
    await one.activate(START.version)
    await follow(two)
    two.catalogs.follower.check()


@pytest.mark.parametrize("moved_on", [False, True])
async def test_a_version_that_one_replica_leaves_is_left_by_all_unless_they_have_moved_on(
    fleet: list[Shop], control: Flaky, moved_on: bool
) -> None:
    one, two, _ = fleet
    for name, catalog in (("bad", ONE), ("good", TWO)):
        await one.add(name, catalog)
    await one.activate("bad")
    await follow(two)
    control.away = True
    one.catalogs.leave(await one.catalogs.load(START.version), "Two engines died with it.")
    assert one.catalogs.active.name == START.version
    assert [left.version for left in one.catalogs.left] == ["bad"]
    control.away = False
    if moved_on:
        await two.activate("good")
    for shop in (one, two):
        await follow(shop)
        assert shop.catalogs.active.name == ("good" if moved_on else START.version)
        assert [left.version for left in shop.catalogs.left] == ([] if moved_on else ["bad"])


async def serve_worse(fleet: list[Shop]) -> None:
    """Serve two versions, one after the other, with which engines die."""
    one, two, _ = fleet
    for name, catalog in (("bad", ONE), ("worse", TWO)):
        await one.add(name, catalog)
        await one.activate(name)
    await follow(two)


async def check_both_left(fleet: list[Shop]) -> None:
    for shop in fleet:
        await follow(shop)
        assert shop.catalogs.active.name == START.version
        assert {left.version for left in shop.catalogs.left} == {"bad", "worse"}
        assert shop.catalogs.own is None


async def test_versions_that_are_left_one_after_the_other_while_the_store_is_away_are_left_by_all(
    fleet: list[Shop], control: Flaky
) -> None:
    """Nobody has moved on to the first of them, which is still the one that all are to serve."""
    one, *_ = fleet
    await serve_worse(fleet)
    control.away = True
    one.catalogs.leave(await one.catalogs.load("bad"), "Two engines died with it.")
    one.catalogs.leave(await one.catalogs.load(START.version), "Two engines died with it.")
    assert one.catalogs.served_before(START.version) == []
    control.away = False
    await check_both_left(fleet)


async def test_a_version_that_is_left_while_another_is_being_left_is_left_too(
    fleet: list[Shop], control: Flaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Redis that fails over may take seconds for the write."""
    one, *_ = fleet
    await serve_worse(fleet)
    bad, start = await one.catalogs.load("bad"), await one.catalogs.load(START.version)
    one.catalogs.leave(bad, "Two engines died with it.")
    write = control.write

    async def write_late(after: Position, by: str, changes: Mapping[str, bytes | None]) -> Write:
        written = await write(after, by, changes)
        if one.catalogs.active is bad:
            one.catalogs.leave(start, "Two engines died with it.")
        return written

    monkeypatch.setattr(control, "write", write_late)
    await follow(one)
    assert one.catalogs.active is start
    await check_both_left(fleet)


async def test_a_version_is_left_by_all_only_once_every_filter_can_be_used_with_the_one_before(fleet: list[Shop]) -> None:
    """One that a filter of the newer version's attributes can't be used with would stop all, and nobody could take the filter back."""
    one, two, _ = fleet
    brands = AttributeColumn(np.zeros(len(TWO), np.int32), TextColumn.of(['"ours"']))
    for name, catalog in (("good", ONE), ("bad", Catalog.of(TWO.item_ids, TWO.tokens, TWO.codes, {"brand": brands}))):
        await one.add(name, catalog)
        await one.activate(name)
    await follow(two)
    on_trial = await one.catalogs.load("good")
    # Here none can be put meanwhile, but on the others.
    await two.filters.put("mine", 'brand = "ours"')
    one.catalogs.leave(on_trial, "Two engines died with it.")
    with pytest.raises(ReplicaBehind, match="The filter 'mine' can't be used with version 'good'"):
        await follow(one)
    assert one.catalogs.follower.applied.revision < two.catalogs.follower.applied.revision
    await follow(two)
    two.catalogs.follower.check()
    assert two.catalogs.active.name == two.catalogs.record.active == "bad"
    await two.filters.drop("mine")
    for shop in fleet:
        await follow(shop)
        shop.catalogs.follower.check()
        assert shop.catalogs.active.name == "good"
        assert [left.version for left in shop.catalogs.left] == ["bad"]


async def test_a_version_that_a_replica_still_serves_is_not_removed(fleet: list[Shop], control: Flaky) -> None:
    one, late, _ = fleet
    await one.add("v1", ONE)
    await one.activate("v1")
    await follow(late)
    await control.announce(replica_of(late))
    await one.activate(START.version)
    async with one.catalogs.changing:
        with pytest.raises(VersionActive, match=rf"^The version 'v1' is served by {late.catalogs.follower.name}, not yet another one"):
            await one.catalogs.remove("v1")
        assert "v1" in one.catalogs.versions()
    await follow(late)
    await control.announce(replica_of(late))
    async with one.catalogs.changing:
        await one.catalogs.remove("v1")
    assert "v1" not in one.catalogs.versions()


async def test_a_version_that_another_has_removed_meanwhile_is_made_that_of_all_by_none(fleet: list[Shop], control: Flaky) -> None:
    one, two, _ = fleet
    for name, catalog in (("bad", ONE), ("good", TWO)):
        await one.add(name, catalog)
    for name in ("good", "bad"):
        await one.activate(name)
    await follow(two)
    # It stands on trial at one of them only.
    one.catalogs.leave(await one.catalogs.load("good"), "Two engines died with it.")
    async with two.catalogs.changing:
        await two.catalogs.remove("good")
    for shop in fleet:
        await follow(shop)
        assert (shop.catalogs.active.name, shop.catalogs.own) == ("bad", None)
    assert len({str(state_of(shop)) for shop in fleet}) == 1


class Model:
    """Random writes through random replicas, and what must come of those that are acknowledged."""

    def __init__(self, seed: int, folder: Path, control: Flaky) -> None:
        self.rng = random.Random(seed)
        self.folder, self.control = folder, control
        self.shops: dict[str, Shop] = {}
        self.filters: dict[str, set[str]] = {}
        # Of each filter, what it may be too: writes that were not answered.
        self.unsure: dict[str, list[set[str]]] = {}
        self.versions: dict[str, Catalog] = {}
        self.activated: list[Activation] = []
        self.items: dict[str, Activation] = {}
        self.number = 0

    async def shop(self) -> Shop:
        name = self.rng.choice(NAMES)
        if name in self.shops and self.rng.random() < 0.05:
            # Killed: it ends without a word.
            self.shops.pop(name).catalogs.files.close()
        if name not in self.shops:
            self.number += 1
            self.shops[name] = await open_shop(self.folder, self.control, f"{name}{self.number}")
        return self.shops[name]

    async def step(self) -> None:
        shop = await self.shop()
        self.number += 1
        if self.rng.random() < 0.15:
            self.control.lose = self.rng.choice(["write", "answer"])
        try:
            match self.rng.choice(["put", "put", "drop", "add", "activate", "back", "items", "follow"]):
                case "put":
                    await self.put(shop, self.rng.choice("xyz"), {f"item-{self.rng.randrange(20)}" for _ in range(3)})
                case "drop":
                    await self.put(shop, self.rng.choice("xyz"), set())
                case "add":
                    name, catalog = f"v{self.rng.randrange(4)}", small_catalog(self.number)
                    await shop.add(name, catalog)
                    assert name not in self.versions, "a name was taken twice"
                    self.versions[name] = catalog
                case "activate":
                    await self.serve(shop, self.rng.choice([START.version, *self.versions]))
                case "back":
                    await self.serve(shop, None)
                case "items":
                    name = f"new-{self.number}"
                    _, activation = await adds(shop).add(item(name))
                    self.items[name] = activation
                    assert name in shop.catalogs.active.catalog.item_ids
                    assert activation.version == shop.catalogs.active.name
                case "follow":
                    await follow(shop)
        except (ControlUnavailable, VersionExists, FilterNotFound, NothingToRollBack):
            """Refused, or not answered."""
        finally:
            self.control.lose = None

    async def serve(self, shop: Shop, version: str | None) -> None:
        """A version; None for the one before."""
        async with shop.catalogs.changing:
            self.activated.append(await shop.switch.serve(version, "a test", without_engine=version is None))

    async def put(self, shop: Shop, name: str, items: set[str]) -> None:
        """A filter of these items; none of that name if there are none."""
        try:
            await (shop.filters.put(name, sorted(items)) if items else shop.filters.drop(name))
        except ControlUnavailable:
            self.unsure.setdefault(name, []).append(items)
            raise
        self.filters[name], self.unsure[name] = items, []

    async def check(self) -> None:
        states = set()
        for name in NAMES:
            shop = self.shops.get(name) or await open_shop(self.folder, self.control, f"{name}-last")
            self.shops[name] = shop
        for shop in self.shops.values():
            await follow(shop)
            states.add(str(state_of(shop)))
            for name in "xyz":
                told = shop.filters.get(name).what if name in shop.catalogs.active.filters else ()
                assert set(told) in [self.filters.get(name, set()), *self.unsure.get(name, [])]
            for name, catalog in self.versions.items():
                assert (await shop.catalogs.read(name)).version == catalog.version
        assert len(states) == 1
        assert len({shop.catalogs.follower.applied for shop in self.shops.values()}) == 1
        # Whatever was acknowledged is in the one history of all, and items are in the version that was made of them.
        *_, shop = self.shops.values()
        assert all(each in shop.catalogs.history for each in (*self.activated, *self.items.values()))
        for name, activation in self.items.items():
            if activation.version in shop.catalogs.versions():
                assert name in (await shop.catalogs.read(activation.version)).item_ids


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_replicas_are_told_all_that_is_acknowledged_stays_and_they_agree(tmp_path: Path, control: Flaky, seed: int) -> None:
    model = Model(seed, tmp_path, control)
    for _ in range(20):
        await asyncio.gather(*(model.step() for _ in range(3)))
    await model.check()
    for shop in model.shops.values():
        shop.catalogs.files.close()


async def test_a_version_that_was_left_is_told_of_until_it_is_removed(fleet: list[Shop]) -> None:
    one, two, _ = fleet
    await one.add("bad", ONE)
    await one.activate("bad")
    one.catalogs.leave(await one.catalogs.load(START.version), "Two engines died with it.")
    await one.add("good", TWO)
    await one.activate("good")
    assert [left.version for left in one.catalogs.left] == ["bad"]
    async with one.catalogs.changing:
        await one.catalogs.remove("bad")
    # Another catalog of that name has killed nobody.
    await one.add("bad", START)
    await follow(two)
    assert one.catalogs.left == two.catalogs.left == []


async def test_a_version_that_engines_are_to_be_tried_with_by_the_time_others_have_told_is_not_removed(
    fleet: list[Shop], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, *_ = fleet
    await one.add("v1", ONE)

    async def serving(_: str) -> list[str]:
        one.catalogs.trying = "v1"
        return []

    monkeypatch.setattr(one.catalogs.follower, "serving", serving)
    async with one.catalogs.changing:
        with pytest.raises(VersionActive, match="on trial"):
            await one.catalogs.remove("v1")
    assert "v1" in one.catalogs.versions()
