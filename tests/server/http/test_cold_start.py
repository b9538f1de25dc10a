"""A user of whom nothing is known gets popular items, where there are any, by the rules of the request."""

import asyncio
import gc
import threading
import time
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.freshness import today
from server.catalogs.served import ServedCatalog
from server.histories import Event, Retention
from server.histories.memory import MemoryHistoryStore
from server.histories.popularity import Popularity
from server.lists import cold_start
from server.lists.cold_start import load_popularity
from server.lists.popular import Allowed, PopularItems
from server.schemas.explanations import ExplainedAnswer
from server.schemas.recommendations import RecommendationAnswer
from server.settings import Settings
from server.try_again import HistoryUnavailable
from tests.server.http.test_app import CATALOG, Bench
from tests.server.server_process import assert_problem
from verification.result import RankedItem

NOW = time.time()


async def popular_bench(**options: object) -> Bench:
    bench = Bench(**options)
    for user, items in {"ann": [3, 4], "bea": [4, 7], "cid": [4, 3, 3], "dan": ["gone"]}.items():
        named = [f"item-{item}" for item in items]
        await bench.histories.append(user, [Event(item, NOW - place) for place, item in enumerate(named)])
    await bench.histories.append("eve", [Event(f"item-{item}", NOW - 40 * 86_400) for item in (9, 3, 5)])
    await bench.histories.append("fay", [Event("item-5", NOW - 50 * 86_400)])
    return bench


async def asked(bench: Bench, **body: object) -> list[str]:
    response = await bench.client.post("/v1/recommendations", json={"history": [], "k": 5} | body)
    assert response.status_code == 200, response.text
    assert response.json()["source"] == "popular"
    return [line["item_id"] for line in response.json()["items"]]


# By recent users, then by earlier ones; then come the others, in the order of the catalog.
RANKED = ["item-4", "item-3", "item-7", "item-5", "item-9", "item-0", "item-1", "item-2", "item-6"]


def identifiers_differ() -> bool:
    return CATALOG.identifiers == len(CATALOG)


async def test_the_popular_items_of_a_version_are_looked_up_once_for_all_who_ask(monkeypatch: pytest.MonkeyPatch):
    """Also if the first of them does not wait for it; and again after a lookup that failed."""
    bench, asked_for, fails, goes_on = await popular_bench(), [], [True], threading.Event()
    look_up = PopularItems.of

    def counted(popularity: Popularity, catalog: Catalog) -> PopularItems:
        asked_for.append(popularity)
        goes_on.wait(60)
        if fails:
            raise MemoryError(fails.pop())
        return look_up(popularity, catalog)

    monkeypatch.setattr(PopularItems, "of", counted)
    for users in (1, 4):
        tasks = [asyncio.create_task(bench.client.post("/v1/recommendations", json={"history": [], "k": 5})) for _ in range(users)]
        while len(asked_for) < (1 if users == 1 else 2):
            await asyncio.sleep(0)
        if users == 4:
            tasks.pop(0).cancel()
        goes_on.set()
        statuses = [(await task).status_code for task in tasks]
        assert statuses == ([500] if users == 1 else [200] * 3)
        goes_on.clear()
    assert len(asked_for) == 2


async def test_an_unknown_user_gets_the_most_popular_items():
    assert identifiers_differ()
    bench = await popular_bench()
    response = await bench.client.post("/v1/recommendations", json={"user_id": "nobody", "k": 9, "fields": ["title"]})
    answer = response.json()
    assert [line["item_id"] for line in answer["items"]] == RANKED
    assert [line["rank"] for line in answer["items"]] == list(range(1, 10))
    assert answer["items"][0]["attributes"] == {"title": "Title 4"}
    assert (
        answer["note"] == "There is no user 'nobody': no events are stored for that id. The list is of popular items, not of the model's."
    )
    assert (answer["source"], answer["exact"], answer["usage"]["target_forwards"]) == ("popular", False, 0)
    assert RecommendationAnswer.model_validate(answer, extra="forbid")
    assert not bench.engine.asked
    counted = dict.fromkeys(("unknown-user", "empty-history", "stale-history"), 0) | {"unknown-user": 1}
    sample = bench.metrics.registry.get_sample_value
    assert {reason: sample("atspeed_popular_lists_total", {"reason": reason}) for reason in counted} == counted


async def test_a_list_of_popular_items_has_no_explanation():
    bench = await popular_bench()
    answer = (await bench.client.post("/v1/recommendations:explain", json={"user_id": "nobody", "k": 2, "others": 3})).json()
    assert ([line["item_id"] for line in answer["items"]], answer["source"]) == (RANKED[:2], "popular")
    assert ExplainedAnswer.model_validate(answer, extra="forbid").explanation is None


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ({"history": []}, "The history is empty: recommendations need at least one item."),
        ({"history": [], "context": {"query": "war"}}, "The history is empty: recommendations need at least one item."),
        ({"history": ["x", "y"]}, "The catalog has none of the 2 items that history names, such as 'x'."),
        ({"history": None, "user_id": "dan"}, f"None of the stored items of user 'dan' is in the catalog (version {CATALOG.version})."),
    ],
)
async def test_whoever_has_nothing_to_follow_from_gets_them_and_is_told_why(body: dict[str, object], why: str):
    bench = await popular_bench()
    assert await asked(bench, **body) == RANKED[:5]
    answer = (await bench.client.post("/v1/recommendations", json=body)).json()
    assert answer["note"] == f"{why} The list is of popular items, not of the model's."


@pytest.mark.parametrize("whom", [{}, {"history": ["gone"]}, {"history": None, "user_id": "nobody"}, {"history": None, "user_id": "dan"}])
async def test_behaviours_that_no_prompt_reads_are_excluded_with_the_history(whom: dict[str, object]):
    bench = await popular_bench()
    body = {"behaviours": {"buy": ["item-4", "gone", {"item_id": "item-7"}]}} | whom
    assert await asked(bench, **body) == RANKED[:5]
    left = [item for item in RANKED if item not in ("item-3", "item-4", "item-7")]
    assert await asked(bench, **body, exclude_history=True, exclude=["item-3"]) == left[:5]


async def test_exclusions_filters_and_reserved_places_hold_for_popular_items(monkeypatch: pytest.MonkeyPatch):
    bench = await popular_bench()
    assert await asked(bench, exclude=["item-4", "item-5", "never"]) == [item for item in RANKED if item not in ("item-4", "item-5")][:5]
    served = bench.services.catalogs.active
    response = await bench.client.put("/v1/catalog/filters/some", json={"items": ["item-3", "item-9", "item-19", "item-18"]})
    assert response.status_code == 200, response.text
    assert await asked(bench, filter="some", k=3) == ["item-3", "item-9", "item-18"]
    assert await asked(bench, filter={"not": ["some"]}, k=3) == ["item-4", "item-7", "item-5"]
    short = (await bench.client.post("/v1/recommendations", json={"history": [], "filter": "some", "exclude": ["never"]})).json()
    assert short["note"].endswith(
        "The catalog has no item 'never', which exclude names: it is passed over. "
        "Only 4 identifiers of the catalog were eligible, fewer than the 10 asked for."
    )
    days = {7: 0, 12: 3, 15: 9}
    added = [86_400 * (today() - days[item]) if item in days else None for item in range(20)]
    dated = catalog_of({f"item-{item}": CATALOG.identifier(item) for item in range(20)}, attributes={"added_at": added})
    monkeypatch.setattr(bench.services.catalogs, "active", ServedCatalog("dated", "dated#1", Path("none"), dated, filters=served.filters))
    assert await asked(bench, fresh={"max_age_days": 5, "min": 2}, k=3) == ["item-4", "item-7", "item-12"]
    answer = (await bench.client.post("/v1/recommendations", json={"history": [], "k": 4, "fresh": {"max_age_days": 5, "min": 3}})).json()
    assert [line["item_id"] for line in answer["items"] if line.get("fresh")] == ["item-7", "item-12"]
    assert answer["note"].endswith("Only 2 identifiers of fresh items were eligible, fewer than the 3 places for them.")


async def test_reserved_places_that_caps_leave_empty_are_told_as_such(monkeypatch: pytest.MonkeyPatch):
    bench = await popular_bench()
    day = today()
    added = [86_400 * (day if item in (7, 12) else 1) for item in range(20)]
    dated = catalog_of({f"item-{item}": CATALOG.identifier(item) for item in range(20)}, attributes={"added_at": added})
    monkeypatch.setattr(bench.services.catalogs, "active", ServedCatalog("dated", "dated#1", Path("none"), dated))
    capped = {"fresh": {"max_age_days": 5, "min": 2}, "diversity": {"attribute": "added_at", "at_most": 1}}
    answer = (await bench.client.post("/v1/recommendations", json={"history": [], "k": 2} | capped)).json()
    assert [(line["item_id"], line.get("fresh")) for line in answer["items"]] == [("item-4", None), ("item-7", True)]
    told = "Only 1 identifiers of fresh items were eligible under the cap of diversity, fewer than the 2 places for them."
    assert answer["note"].endswith(told)


async def test_a_filter_that_is_deleted_before_the_list_is_made_holds_for_it(monkeypatch: pytest.MonkeyPatch):
    bench = await popular_bench()
    await bench.client.put("/v1/catalog/filters/some", json={"items": ["item-3", "item-9", "item-18"]})
    find = cold_start.ColdStart.popular

    async def find_late(popular: cold_start.ColdStart, served: ServedCatalog, deadline: float) -> PopularItems | None:
        assert (await bench.client.delete("/v1/catalog/filters/some")).status_code == 204
        return await find(popular, served, deadline)

    monkeypatch.setattr(cold_start.ColdStart, "popular", find_late)
    assert await asked(bench, filter="some") == ["item-3", "item-9", "item-18"]


async def test_a_request_waits_for_them_until_its_timeout_and_leaves_no_thread_at_work(monkeypatch: pytest.MonkeyPatch):
    begun, given_up = threading.Event(), threading.Event()

    def slow_list(_: PopularItems, k: int, allowed: Allowed, *more: object) -> tuple[RankedItem, ...]:
        begun.set()
        try:
            for _ in range(6_000):
                allowed(np.arange(k))
                time.sleep(0.01)
        except TimeoutError:
            given_up.set()
            raise
        return ()

    bench = await popular_bench()
    assert await asked(bench) == RANKED[:5]
    monkeypatch.setattr(PopularItems, "list", slow_list)
    # On a busy machine the time may be over before the list is begun.
    while not begun.is_set():
        assert_problem(await bench.recommend(history=[], timeout_ms=100), 504, "The answer was not ready within the request's timeout.")
    assert await asyncio.to_thread(given_up.wait, 60)


async def test_entries_of_a_batch_get_them_too():
    bench = await popular_bench()
    entries = [{"user_id": "nobody", "k": 2}, {"history": ["item-1"], "k": 1}, {"history": [], "k": 1, "strict_ids": True}]
    batch = (await bench.client.post("/v1/recommendations:batch", json={"requests": entries})).json()
    assert [result["status"] for result in batch["results"]] == [200, 200, 200]
    assert [result["recommendation"].get("source") for result in batch["results"]] == ["popular", None, "popular"]


async def test_without_events_or_without_the_option_there_is_no_list():
    sentence = "There is no user 'nobody': no events are stored for that id."
    for bench in (Bench(), await popular_bench(cold_start="none")):
        assert_problem(await bench.recommend(history=None, user_id="nobody"), 404, sentence)
        assert_problem(await bench.recommend(history=[]), 422, "The history is empty: recommendations need at least one item.")
    only_gone = Bench()
    await only_gone.histories.append("dan", [Event("gone", 1.0)])
    assert_problem(await only_gone.recommend(history=None, user_id="nobody"), 404, sentence)


class Histories(MemoryHistoryStore):
    """A store that counts samples, and whose samples can fail."""

    def __init__(self) -> None:
        super().__init__(Retention())
        self.samples, self.fails = 0, False

    async def sample(self, users: int, limit: int) -> list[list[Event]]:
        self.samples += 1
        if self.fails:
            raise HistoryUnavailable("It is away.")
        return await super().sample(users, limit)


async def test_popularity_is_read_anew_when_it_is_old_and_kept_while_the_store_is_away(monkeypatch: pytest.MonkeyPatch):
    histories = Histories()
    bench = Bench(histories)
    monkeypatch.setattr(cold_start, "EMPTY_SECONDS", 0.0)
    monkeypatch.setattr(cold_start, "READ_SHARE", 1e9)
    assert (await bench.recommend(history=[])).status_code == 422
    await histories.append("ann", [Event("item-6", NOW)])
    assert await asked(bench, k=1) == ["item-6"]
    assert histories.samples == 2
    for number in range(3):
        await histories.append(f"u{number}", [Event("item-8", NOW)])
    assert await asked(bench, k=1) == ["item-6"]
    assert histories.samples == 2
    monkeypatch.setattr(cold_start, "REFRESH_SECONDS", 0.0)
    histories.fails = True
    # What is known is answered at once, and read anew beside it.
    answers = [await asked(bench, k=1) for _ in range(20)]
    assert answers == [["item-6"]] * 20
    assert histories.samples > 2
    histories.fails = False
    await asked(bench, k=1)
    assert bench.metrics.registry.get_sample_value("atspeed_history_errors_total", {"operation": "sample"}) > 0
    deadline = time.monotonic() + 20
    while await asked(bench, k=1) != ["item-8"]:
        assert time.monotonic() < deadline


async def test_a_store_that_takes_long_to_look_through_is_read_seldom(monkeypatch: pytest.MonkeyPatch):
    histories = Histories()
    bench = Bench(histories)
    monkeypatch.setattr(cold_start, "EMPTY_SECONDS", 0.0)
    monkeypatch.setattr(cold_start, "READ_SHARE", 0.05 / 3600)
    sample = histories.sample

    async def slow(users: int, limit: int) -> list[list[Event]]:
        await asyncio.sleep(0.05)
        return await sample(users, limit)

    monkeypatch.setattr(histories, "sample", slow)
    for _ in range(3):
        assert (await bench.recommend(history=[])).status_code == 422
    assert histories.samples == 1


async def test_a_version_that_is_served_no_more_goes_with_what_is_known_of_it():
    bench = await popular_bench()
    popular = cold_start.ColdStart(bench.services)
    old, new = [ServedCatalog(name, name, Path(name), replace(CATALOG)) for name in ("old", "new")]
    known = [await popular.popular(served, time.monotonic() + 60) for served in (new, old)]
    assert [await popular.popular(served, time.monotonic() + 60) for served in (new, old)] == known
    assert None not in known
    gone = weakref.ref(old.catalog)
    del old, known[1]
    deadline = time.monotonic() + 10
    while gone() is not None:
        # The thread that has worked it out may hold it for a moment more.
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
        gc.collect()
    assert [await popular.popular(new, time.monotonic() + 60)] == known


def settings(**options: object) -> Settings:
    return Settings(target=Path("model"), catalog=Path("catalog.jsonl"), engine="transformers", **options)


def test_a_file_of_popular_items_is_for_servers_that_use_it(tmp_path: Path):
    path = tmp_path / "popular.jsonl"
    path.write_text('{"item_id": "item-2"}\n{"item_id": "item-1"}\n')
    assert load_popularity(settings()) is None
    assert load_popularity(settings(cold_start_items=path)) == Popularity(("item-2", "item-1"), (2.0, 1.0))
    with pytest.raises(ValueError, match=r"^--cold-start-items is a list for users that --cold-start none refuses"):
        load_popularity(settings(cold_start_items=path, cold_start="none"))


@pytest.mark.parametrize("stored", [[], ["item-9"]])
async def test_a_file_of_popular_items_takes_the_place_of_the_histories(stored: Sequence[str]):
    histories = Histories()
    await histories.append("ann", [Event(item, NOW) for item in stored])
    bench = Bench(histories, popularity=Popularity(("item-2", "gone", "item-1"), (3.0, 2.0, 1.0)))
    assert await asked(bench, k=4) == ["item-2", "item-1", "item-0", "item-3"]
    assert histories.samples == 0
