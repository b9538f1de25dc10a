"""The request that a person puts together: what an address may hold of it, and what is sent."""

import asyncio
import json
from typing import Any, cast

import pytest
from nicegui import Client, ui

from server.client import AsyncAtspeedClient, AtspeedError, Denied, NotFound
from server.console.lists.form import RequestForm
from server.console.lists.question import Question
from server.console.lists.try_it import TryIt
from server.console.visits import Visits
from server.schemas.users import HistoryAnswer, ProfileAnswer, StoredEvent


@pytest.mark.parametrize(
    "body",
    [
        {"user_id": "ann", "k": 10, "verification": "gumbel", "seed": 0},
        {"user_id": "ann", "k": 10, "seed": 7, "exclude_history": True, "filter": {"all": ["few"]}},
        {"history": ["item-1", {"item_id": "item-2", "timestamp": 1.5, "attributes": {"device": "tv"}}], "k": 3, "profile": {"age": 34}},
    ],
)
def test_an_address_holds_the_whole_request(body: dict[str, Any]) -> None:
    assert Question.of_address(json.dumps(body)).body == body


def test_a_field_that_says_nothing_is_left_out() -> None:
    options: dict[str, Any] = {
        "k": 10,
        "seed": None,
        "filter": "",
        "exclude_history": False,
        "fresh": {},
        "beam_widths": [],
        "temperature": 0,
    }
    assert Question("ann", options=options).body == {"user_id": "ann", "k": 10, "temperature": 0}


def test_items_are_scored_for_the_user_of_the_list_and_on_its_scale() -> None:
    asked = {"context": {"device": "tv"}, "strict_ids": True, "timeout_ms": 9000, "normalise": "children"}
    question = Question.of_address(json.dumps({"user_id": "ann", "k": 3, "filter": "few", "verification": "gumbel"} | asked))
    assert question.scoring == {"user_id": "ann"} | asked


def test_what_the_server_takes_in_an_address_the_page_takes() -> None:
    events = [{"item_id": "item-1", "timestamp": "2026-11-28T22:15:00Z"}, {"item_id": "item-2", "timestamp": None}, "item-3"]
    question = Question.of_address(json.dumps({"history": events, "fresh": None, "beam_widths": None}))
    assert question.body == {"history": [{"item_id": "item-1", "timestamp": 1_795_904_100.0}, "item-2", "item-3"]}
    assert question.options == {}


@pytest.mark.parametrize(
    "ask",
    [
        *("[" * 5000, "9" * 5000, '"ann"', "{", '{"user_id": "ann", "k": "many"}'),
        *('{"user_id": "ann", "context": {"x": NaN}}', r'{"user_id": "ann", "context": {"x": "\ud800"}}'),
    ],
)
def test_an_address_that_holds_no_request_is_passed_over(ask: str) -> None:
    assert Question.of_address(ask, "bob").body == {"user_id": "bob", "k": 10}


class SlowClient:
    """Answers about a user when the test says so."""

    def __init__(self) -> None:
        self.may: dict[str, asyncio.Event] = {"ann": asyncio.Event(), "bob": asyncio.Event()}

    async def history(self, user_id: str) -> HistoryAnswer:
        await self.may[user_id].wait()
        return HistoryAnswer(user_id=user_id, events=[StoredEvent(item_id=f"of {user_id}", timestamp=1.0)])

    async def profile(self, user_id: str) -> ProfileAnswer:
        await asyncio.sleep(0)
        return ProfileAnswer(user_id=user_id, profile={"name": user_id})


async def _nothing() -> None:
    """In place of a page."""


def choosing(monkeypatch: pytest.MonkeyPatch) -> tuple[SlowClient, TryIt, Question]:
    client, question = SlowClient(), Question()
    page = TryIt(cast(AsyncAtspeedClient, client), cast(Visits, None), question)
    monkeypatch.setattr(page, "_ask", _nothing)
    monkeypatch.setattr(page, "_expect", lambda: None)
    return client, page, question


async def until_idle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_history_that_comes_late_stands_under_no_other_user(monkeypatch: pytest.MonkeyPatch) -> None:
    client, page, question = choosing(monkeypatch)
    choices = [asyncio.create_task(page._choose(user)) for user in ("ann", "bob")]
    await until_idle()
    for user in ("bob", "ann"):
        client.may[user].set()
        await until_idle()
    await asyncio.gather(*choices)
    assert (question.user_id, [event.item_id for event in question.events], question.profile) == ("bob", ["of bob"], {"name": "bob"})


async def test_a_history_that_comes_late_takes_nothing_that_was_added_away(monkeypatch: pytest.MonkeyPatch) -> None:
    client, page, question = choosing(monkeypatch)
    choice = asyncio.create_task(page._choose("ann"))
    await until_idle()
    await page._add("item-1", None)
    client.may["ann"].set()
    await choice
    assert ([event.item_id for event in question.events], question.changed) == (["item-1"], True)


async def test_a_field_that_is_cleared_takes_no_other_of_its_object_along(shown: Client) -> None:
    fresh, tolerance = {"max_age_days": 14, "min": 2}, {"items": 1, "mass": 0.1}
    question = Question("ann", options={"fresh": fresh, "tolerance": tolerance, "blend": {"weight": 0.5, "candidates": 50}})
    with shown:
        RequestForm(cast(AsyncAtspeedClient, None), question, _nothing)
        fields = {each.label: each for each in shown.elements.values() if isinstance(each, ui.number)}
        for label in ("Others at most", "Fresh for days", "Weight of neighbours"):
            fields[label].set_value(None)
            await until_idle()
        assert question.body == {"user_id": "ann", "fresh": {"max_age_days": 7, "min": 2}, "tolerance": {"mass": 0.1}}
        for label in ("Missing share at most", "Fresh items at least"):
            fields[label].set_value(None)
            await until_idle()
        assert question.body == {"user_id": "ann"}
        fields["Fresh items at least"].set_value(3)
        await until_idle()
    assert question.body == {"user_id": "ann", "fresh": {"max_age_days": 7, "min": 3}}


class StoredClient:
    """Says of what is stored of a user what the test has it say."""

    def __init__(self, history: AtspeedError | None, profile: AtspeedError | None) -> None:
        self._history, self._profile = history, profile

    async def history(self, user_id: str) -> HistoryAnswer:
        if self._history is not None:
            raise self._history
        return HistoryAnswer(user_id=user_id, events=[StoredEvent(item_id="item-1", timestamp=1.0)])

    async def profile(self, user_id: str) -> ProfileAnswer:
        if self._profile is not None:
            raise self._profile
        return ProfileAnswer(user_id=user_id, profile={"age": 34})


NOTHING = NotFound(404, "urn:atspeed:unknown-user", "Unknown user", "There is no user 'ann'.", None, None)
DENIED = Denied(403, "urn:atspeed:key-forbids", "Key forbids", "This needs a key with the scope users.", None, None)


@pytest.mark.parametrize(
    ("history", "profile", "read", "unread"),
    [
        (None, None, (["item-1"], {"age": 34}), ""),
        (NOTHING, None, ([], {"age": 34}), ""),
        (None, NOTHING, (["item-1"], None), ""),
        (DENIED, DENIED, ([], None), DENIED.detail),
        (NOTHING, DENIED, ([], None), DENIED.detail),
    ],
)
async def test_a_list_is_asked_for_whatever_can_be_read_of_the_user(
    monkeypatch: pytest.MonkeyPatch, history: AtspeedError | None, profile: AtspeedError | None, read: tuple[Any, Any], unread: str
) -> None:
    question, asked = Question(), list[dict[str, Any]]()
    page = TryIt(cast(AsyncAtspeedClient, StoredClient(history, profile)), cast(Visits, None), question)

    async def ask() -> None:
        asked.append(question.body)

    monkeypatch.setattr(page, "_ask", ask)
    monkeypatch.setattr(page, "_expect", lambda: None)
    await page._choose("ann")
    assert asked == [{"user_id": "ann", "k": 10}]
    assert (([event.item_id for event in question.events], question.profile), page._unread) == (read, unread)
    # A changed history brings the profile that is stored.
    await page._add("item-9", None)
    assert asked[-1].get("profile") == question.profile
