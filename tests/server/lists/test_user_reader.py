"""Of a stored user as much is read as a prompt may show, and what is told of it makes the prompt that all of it would make."""

import asyncio
import random
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from server.catalogs.served import ServedCatalog
from server.histories import Event, Retention, StoredUser
from server.histories.memory import MemoryHistoryStore
from server.lists import user_reader
from server.lists.user_reader import UserReader
from server.lists.users import known_user
from server.metrics.registry import Metrics
from server.schemas.recommendations import RecommendationRequest
from tests.models import random_catalog
from tests.prompt_tokenizers import first_word_marked

CATALOG = random_catalog(items=20)
SERVED = ServedCatalog("v1", "v1#1", Path("none"), CATALOG)
FORM = prompt_of(
    {
        "format": "jinja",
        "template": "{{ history | join(' ') }}, {{ behaviours.buy | join(' ') }}, {{ behaviours.like | join(' ') }}",
        "history": {"max_items": 4, "min_items": 2},
        "behaviours": {"buy": {"max_items": 6, "min_items": 3}, "like": {"max_items": 2}},
    }
)
BUILDER = PromptBuilder(FORM, PromptTokenizer.of(first_word_marked(sorted(CATALOG.tokens))), CATALOG)


class Histories(MemoryHistoryStore):
    """A store that notes how many events were asked for."""

    def __init__(self) -> None:
        super().__init__(Retention())
        self.limits: list[int | None] = []

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        self.limits.append(limit)
        return await super().read_user(user_id, limit)


def random_events(rng: random.Random) -> list[Event]:
    kinds = [None, "watch", "watch", "watch", "buy", "like"]
    return [Event(f"item-{rng.randrange(20)}", float(place), None, rng.choice(kinds)) for place in range(rng.randrange(1, 60))]


async def test_all_is_read_only_where_the_store_is_asked_for_a_kind() -> None:
    histories = Histories()
    reader = UserReader(histories, Metrics(), 60.0)
    await histories.append("ann", random_events(random.Random(0)))
    for behaviours, limit in (
        ({}, None),
        ({"buy": ["item-1"]}, None),
        ({"buy": ["item-1"], "like": []}, 8),
    ):
        body = RecommendationRequest(user_id="ann", behaviours=behaviours)
        user = await reader.read(body, SERVED, BUILDER, time.monotonic() + 60)
        assert histories.limits[-1] == limit
        assert len(user.state.events) <= 5 + (0 if limit else 7 + 3)
    await reader.read(body, SERVED, BUILDER, time.monotonic() + 60, window=50)
    assert histories.limits[-1] == 100
    await reader.read(body, SERVED, BUILDER, time.monotonic() + 60, whole=True)
    assert histories.limits[-1] is None


@pytest.mark.parametrize("seed", range(20))
async def test_the_prompt_is_one_whatever_else_a_request_asks_for(seed: int) -> None:
    rng = random.Random(seed)
    histories = Histories()
    reader = UserReader(histories, Metrics(), 60.0)
    # Of the newest items, all that fit in what is read first, most have left the catalog.
    left = rng.sample(range(20), rng.randrange(9))
    newest = [Event("item-1" if place in left else f"gone-{place}", 100.0 + place) for place in range(20)]
    events = [*random_events(rng), *newest]
    await histories.append("ann", events)
    body = RecommendationRequest(user_id="ann", behaviours={"buy": [], "like": []})
    ways: list[dict[str, Any]] = [{}, {"window": 7}, {"window": 50}, {"whole": True}]
    users = [await reader.read(body, SERVED, BUILDER, time.monotonic() + 60, **way) for way in ways]
    everything = known_user(CATALOG, body, 5, {"buy": 7, "like": 3}, StoredUser(events), "ann")
    assert [user.state for user in users] == [everything.state] * 4
    # The neighbour model's window is full, too, where there is as much.
    assert users[1].history[-7:] == everything.history[-7:]


async def test_a_history_that_is_all_read_is_read_once() -> None:
    histories = Histories()
    reader = UserReader(histories, Metrics(), 60.0)
    await histories.append("ann", [Event("gone", 1.0), *(Event("item-1", 2.0 + place) for place in range(3))])
    body = RecommendationRequest(user_id="ann", behaviours={"buy": [], "like": []})
    await reader.read(body, SERVED, BUILDER, time.monotonic() + 60)
    await histories.append("ann", [Event("item-2", 10.0 + place) for place in range(5)])
    await reader.read(body, SERVED, BUILDER, time.monotonic() + 60)
    assert len(histories.limits) == 2


async def test_where_few_items_stay_users_are_read_once_after_some() -> None:
    """Of four events the catalog knows one, as where items are news or offers."""
    histories = Histories()
    reader = UserReader(histories, Metrics(), 60.0)
    events = [Event("gone" if place % 4 else f"item-{place % 20}", float(place)) for place in range(2000)]
    await histories.append("ann", events)
    body = RecommendationRequest(user_id="ann", behaviours={"buy": [], "like": []})
    everything = known_user(CATALOG, body, 5, {"buy": 7, "like": 3}, StoredUser(events), "ann")
    for _ in range(60):
        histories.limits.clear()
        assert (await reader.read(body, SERVED, BUILDER, time.monotonic() + 60)).state == everything.state
    (limit,) = histories.limits
    assert limit is not None
    assert limit <= 5 * 8
    # What is known of one catalog says nothing of another.
    histories.limits.clear()
    await reader.read(body, replace(SERVED, handle="v2#1"), BUILDER, time.monotonic() + 60)
    assert histories.limits == [8, None]


class SlowHistories(MemoryHistoryStore):
    """A store that takes so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__(Retention())
        self._seconds = seconds

    async def read_user(self, user_id: str, limit: int | None = None) -> StoredUser:
        await asyncio.sleep(self._seconds)
        return await super().read_user(user_id, limit)


@pytest.mark.parametrize(("seconds", "patience", "failures"), [(60.0, 0.02, 1), (0.02, 60.0, 0)])
async def test_a_store_that_hangs_is_counted_although_no_client_waits_so_long(
    seconds: float, patience: float, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_reader, "time", SimpleNamespace(monotonic=lambda: 1000.0))
    metrics = Metrics()
    reader = UserReader(SlowHistories(seconds), metrics, patience)
    with pytest.raises(TimeoutError):
        await reader.read(RecommendationRequest(user_id="ann"), SERVED, BUILDER, 1000.005)
    failed, count = (f"atspeed_history_{name}" for name in ("errors_total", "latency_seconds_count"))
    async with asyncio.timeout(20):
        while not metrics.registry.get_sample_value(count, {"operation": "read"}):
            await asyncio.sleep(0.005)
    assert metrics.registry.get_sample_value(failed, {"operation": "read"}) == failures


async def test_a_patient_store_answers_whoever_has_less_time_than_it_may_take() -> None:
    histories = SlowHistories(0.01)
    await histories.append("ann", [Event("item-1", 1.0)])
    reader = UserReader(histories, Metrics(), 60.0)
    user = await reader.read(RecommendationRequest(user_id="ann"), SERVED, BUILDER, time.monotonic() + 20)
    assert len(user.state.events) == 1


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("inline", [False, True], ids=["stored", "inline"])
def test_what_is_told_of_a_user_makes_the_prompt_of_all_their_events(seed: int, inline: bool) -> None:
    rng = random.Random(seed)
    events = random_events(rng)
    told = [{"item_id": event.item_id, "kind": event.kind} for event in random_events(rng)]
    behaviours = {kind: told for kind in ("buy", "like") if rng.random() < 0.4}
    if inline:
        history = [{"item_id": event.item_id, "kind": event.kind} for event in events]
        body, stored = RecommendationRequest(history=history, behaviours=behaviours), None
    else:
        body, stored = RecommendationRequest(user_id="ann", behaviours=behaviours), StoredUser(events)
    user = known_user(CATALOG, body, 5, {"buy": 7, "like": 3}, stored, "ann")
    assert len(user.state.events) <= 5 + 7 + 3
    assert all(len(listed) <= 7 for listed in user.state.behaviours.values())
    assert user.met[: len(events)] == CATALOG.indices_of([event.item_id for event in events]).tolist()
    # Items of this catalog are numbered as their ids are.
    everything = UserState(
        [UserEvent(int(event.item_id[5:]), event.kind) for event in events],
        {kind: [UserEvent(int(event["item_id"][5:]), event["kind"]) for event in told] for kind in behaviours},
    )
    assert BUILDER.build(user.state).tolist() == BUILDER.build(everything).tolist()
