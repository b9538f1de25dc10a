"""Whom lists were made for stays in the tab: no visitor sees the users of another, nor anybody before the server has judged their key."""

from typing import Any, cast

import pytest
from nicegui import Client, ui

from server.client import AsyncAtspeedClient, AtspeedError, ConnectionFailed, Denied, NotFound, Unavailable
from server.console.door import Door
from server.console.lists.question import Question
from server.console.lists.try_it import TryIt
from server.console.lists.why import Why
from server.console.operate.events import Events
from server.console.visits import FORGET_VISITS, MOST_USERS
from server.schemas.recommendations import RecommendationAnswer
from server.settings import ConsoleOptions
from tests.server.console.tab import Tab, texts, visits_of


def answer(source: str | None = None) -> RecommendationAnswer:
    return RecommendationAnswer.model_construct(source=source)


NOT_FOUND = NotFound(404, "urn:atspeed:unknown-user", "Unknown user", "There is no user 'ann'.", None, None)


async def test_users_are_kept_in_their_tab_and_nowhere_else():
    tab, other = Tab(), Tab()
    for user in ("ann", 'b"ob\u2028', "ann"):
        await visits_of(tab).note(user)
    assert await visits_of(tab).users() == ["ann", 'b"ob\u2028']
    assert await visits_of(other).users() == []
    assert [name for name in tab.kept if name in FORGET_VISITS] == list(tab.kept)


async def test_the_oldest_users_are_forgotten():
    visits = visits_of(Tab())
    for number in range(MOST_USERS + 3):
        await visits.note(f"{number}")
    users = await visits.users()
    assert (len(users), users[0], users[-1]) == (MOST_USERS, f"{MOST_USERS + 2}", "3")


@pytest.mark.parametrize("text", ["", "{", '"ann"', "[1, null]", "[" * 5000])
async def test_what_others_have_put_into_the_tab_is_passed_over(text: str):
    assert await visits_of(Tab(atspeed_users=text)).users() == []


async def test_a_user_is_noted_once_the_server_has_answered_and_dropped_once_it_knows_them_no_more():
    visits = visits_of(Tab())
    denied = Denied(403, "urn:atspeed:key-forbids", "Key forbids", "This needs a key with the scope recommend.", None, None)
    await visits.refused({"user_id": "ann"}, denied)
    await visits.answered({"history": ["item-1"]}, answer())
    assert await visits.users() == []
    await visits.answered({"user_id": "ann"}, answer())
    await visits.refused({"user_id": "ann"}, denied)
    assert await visits.users() == ["ann"]
    await visits.refused({"user_id": "ann"}, NOT_FOUND)
    assert await visits.users() == []
    await visits.note("ann")
    await visits.answered({"user_id": "ann"}, answer(source="popular"))
    assert await visits.users() == []


class Refusing:
    """A server that says the same to all."""

    def __init__(self, error: AtspeedError) -> None:
        self.error = error

    async def catalog(self, *_: Any, **__: Any) -> None:
        """Raise the error."""
        raise self.error

    filters = explain = history = profile = recommend = catalog


@pytest.mark.parametrize(("error", "left"), [(NOT_FOUND, ["bob"]), (ConnectionFailed("No answer."), ["bob", "ann"])])
async def test_a_page_notes_nobody_whom_the_server_did_not_answer_for(shown: Client, error: AtspeedError, left: list[str]):
    api, visits = cast(AsyncAtspeedClient, Refusing(error)), visits_of(Tab(atspeed_users='["ann", "bob"]'))
    with shown:
        why, lists = Why(api, visits, Question()), TryIt(api, visits, Question())
        why.build()
        lists.build()
        for choose in (why._choose, lists._choose, Events(api, visits)._choose):
            await choose("carl")
            await choose("ann")
    assert await visits.users() == left


@pytest.mark.parametrize(
    "error",
    [
        ConnectionFailed("http://127.0.0.1:8000 gave no answer."),
        Unavailable(503, "about:blank", "Unavailable", "There are 256 connections, as many as one may have.", None, None),
    ],
)
async def test_nobody_is_let_in_unjudged(shown: Client, error: AtspeedError):
    with shown:
        door = Door(ConsoleOptions(url="http://127.0.0.1:8000"))
        assert not await door.open(cast(AsyncAtspeedClient, Refusing(error)), ui.element())
    assert str(error) in texts(shown)
