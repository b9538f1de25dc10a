"""What a page shows belongs to what its fields say: nothing of another user, history, item or version is left."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar, cast

import pytest
from nicegui import Client, ui
from pydantic import BaseModel

from server.client import AsyncAtspeedClient, Denied, NotFound
from server.console.items.page import Items
from server.console.lists.form import RequestForm
from server.console.lists.question import Question
from server.console.lists.try_it import NOBODY, TryIt
from server.console.operate import page as operate
from server.console.operate import versions
from server.console.operate.live import NO_METRICS, Live
from server.console.operate.new_items import NewItem
from server.console.operate.versions import Versions
from server.schemas.catalogs import CatalogItem, CatalogItemAnswer, CatalogItemsAnswer, ItemsAdded
from server.schemas.comparisons import AlikeAnswer
from server.schemas.recommendations import RecommendationAnswer
from server.schemas.scores import ScoreAnswer
from server.schemas.users import HistoryAnswer, StoredEvent
from tests.server.console.tab import Tab, texts, visits_of

UNKNOWN = NotFound(404, "urn:atspeed:unknown-user", "Unknown user", "There is no user 'bob'.", None, None)
DENIED = Denied(403, "urn:atspeed:key-forbids", "Key forbids", "This needs a key with the scope catalog.", None, None)
Answer = TypeVar("Answer", bound=BaseModel)


def example(kind: type[Answer]) -> Answer:
    """The first example of an answer in the API's document."""
    return kind.model_validate(cast(Any, kind.model_config["json_schema_extra"])["examples"][0])


class Users:
    """Knows ann, and says of bob that there is none, once the test lets it."""

    def __init__(self) -> None:
        self.may_say = asyncio.Event()
        self.url, self.has_key = "http://127.0.0.1:8000", False

    async def history(self, user_id: str) -> HistoryAnswer:
        if user_id == "ann":
            return HistoryAnswer(user_id=user_id, events=[StoredEvent(item_id="of-ann", timestamp=1.0)])
        await self.may_say.wait()
        raise UNKNOWN

    async def profile(self, user_id: str) -> None:
        raise UNKNOWN

    async def recommend(self, **body: Any) -> RecommendationAnswer:
        if body.get("user_id") == "bob":
            raise UNKNOWN
        return example(RecommendationAnswer)

    async def score(self, items: list[str], **whom: Any) -> ScoreAnswer:
        return example(ScoreAnswer)

    async def items(self, **_: Any) -> None:
        raise DENIED


class OwnLists(Users):
    """Has a list of one item for each user, and another for a history."""

    async def recommend(self, **body: Any) -> RecommendationAnswer:
        answer = example(RecommendationAnswer)
        answer.items[0].item_id = answer.items[0].title = f"for {body.get('user_id', 'a history')}"
        return answer


def try_it(shown: Client, kind: type[Users] = Users) -> tuple[TryIt, Users]:
    api = kind()
    with shown:
        page = TryIt(cast(AsyncAtspeedClient, api), visits_of(Tab()), Question())
        page.build()
    scored = example(ScoreAnswer).items
    page._scores._picked = {item.item_id: f"scored {item.item_id}" for item in scored}
    return page, api


def of_ann(shown: Client) -> list[str]:
    """What is shown of ann, whose list and scores are those of the API's examples."""
    title = example(RecommendationAnswer).items[0].title
    return [text for text in texts(shown) if text in ("of-ann", title) or text.startswith("scored ")]


async def test_nothing_of_a_user_stands_under_the_next(shown: Client):
    page, api = try_it(shown)
    with shown:
        await page._choose("ann")
        assert len(of_ann(shown)) == 2 + len(page._scores._picked)
        choice = asyncio.create_task(page._choose("bob"))
        await asyncio.sleep(0)
        title = example(RecommendationAnswer).items[0].title
        assert of_ann(shown) == [title]
        api.may_say.set()
        await choice
    assert of_ann(shown) == []
    assert UNKNOWN.detail in texts(shown)


async def test_what_is_new_is_told_beside_another_list_of_the_same_user(shown: Client):
    page, api = try_it(shown, OwnLists)
    api.may_say.set()

    def marks() -> list[str]:
        return [text for text in texts(shown) if text == "new" or text.startswith("Gone ")]

    with shown:
        await page._choose("ann")
        assert marks() == []
        await page._add("of-ann", None)
        assert marks() == ["new", "Gone since the last list: for ann"]
        await page._choose("ann")
        assert marks() == ["new", "Gone since the last list: for a history"]
        await page._choose("cem")
        assert marks() == []


async def test_a_search_that_fails_says_so_where_it_stands(shown: Client):
    page, _ = try_it(shown)
    with shown:
        await page._choose("ann")
        before = of_ann(shown)
        for field in [each for each in shown.elements.values() if isinstance(each, ui.input) and "by id or title" in str(each.label)]:
            field.set_value("x")
        for _ in range(10):
            await asyncio.sleep(0)
    assert of_ann(shown) == before
    assert texts(shown).count(DENIED.detail) == 2


async def test_where_an_event_was_left_out_the_next_one_has_the_focus(shown: Client, monkeypatch: pytest.MonkeyPatch):
    page, _ = try_it(shown)
    page._question.events = [StoredEvent(item_id=each, timestamp=1.0) for each in "abc"]
    ran: list[str] = []
    monkeypatch.setattr(shown, "run_javascript", lambda code, **_: ran.append(code))

    def focused() -> list[str]:
        last = [code for code in ran if code.endswith("?.focus()")][-1]
        return [each.props["aria-label"] for each in shown.elements.values() if f"'{each.html_id}'" in last]

    with shown:
        await page._forget(1)
        assert focused() == ["Leave out a"]
        await page._forget(0)
        assert focused() == ["Leave out c"]
        await page._forget(0)


async def test_an_emptied_history_has_no_list(shown: Client):
    page, _ = try_it(shown)
    with shown:
        await page._choose("ann")
        await page._forget(0)
    assert of_ann(shown) == []
    assert NOBODY in texts(shown)


class Shop:
    """A catalog of two items with pictures, and no filters for this key."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def items(self, **_: Any) -> CatalogItemsAnswer:
        items = [CatalogItem(item_id=each, identifier=["<a_1>"], title=each) for each in ("one", "two")]
        return CatalogItemsAnswer(version="first", offset=0, items=items)

    async def item(self, item_id: str) -> CatalogItemAnswer:
        return CatalogItemAnswer(version="first", item_id=item_id, identifier=["<a_1>"], attributes={"image": "data:,"})

    async def items_like(self, item_id: str, limit: int) -> AlikeAnswer:
        return AlikeAnswer(version="first", item_id=item_id, identifier=["<a_1>"], alike=[])

    async def filters(self) -> None:
        self.asked.append("filters")
        raise DENIED

    async def catalogs(self) -> None:
        self.asked.append("catalogs")
        raise DENIED

    async def activate(self, *_: Any) -> None:
        raise DENIED

    async def add_items(self, *_: Any, **__: Any) -> ItemsAdded:
        return example(ItemsAdded)

    async def metrics(self) -> str:
        return "<html>Please log in.</html>"


async def test_a_key_without_filters_gets_the_pictures(shown: Client):
    question = Question()
    with shown:
        await RequestForm(cast(AsyncAtspeedClient, Shop()), question, asyncio.Event().wait).load()
    assert question.options["fields"] == ["image"]


@pytest.mark.parametrize(
    ("asked", "fields"),
    [({"fields": ["url"]}, ["url", "image"]), ({"fields": ["image", "url"]}, ["image", "url"]), ({"format": "ids"}, None)],
)
async def test_pictures_are_asked_for_beside_what_an_address_names(shown: Client, asked: dict[str, Any], fields: list[str] | None):
    """Of a list of ids alone there are none: the server refuses both together."""
    question = Question(options=asked)
    with shown:
        await RequestForm(cast(AsyncAtspeedClient, Shop()), question, asyncio.Event().wait).load()
    assert question.options.get("fields") == fields


async def test_the_item_that_is_shown_is_the_one_that_is_marked(shown: Client):
    with shown:
        page = Items(cast(AsyncAtspeedClient, Shop()), visits_of(Tab()), "one")
        page.build()
        await page._open()
        marks = [{item: link.props.get("aria-current") for item, link in page._links.items()}]
        await page._choose("two")
        marks.append({item: link.props.get("aria-current") for item, link in page._links.items()})
    assert marks == [{"one": "true", "two": None}, {"one": None, "two": "true"}]


async def test_figures_that_are_none_are_told_in_a_sentence(shown: Client):
    with shown:
        await Live(cast(AsyncAtspeedClient, Shop()))._look()
    assert NO_METRICS in texts(shown)


async def test_another_version_shows_versions_and_filters_anew(shown: Client, monkeypatch: pytest.MonkeyPatch):
    api, given = Shop(), list[Callable[[], Awaitable[None]]]()
    monkeypatch.setattr(operate, "NewItem", lambda client, changed: given.append(changed))
    with shown:
        operate.build_operate(cast(AsyncAtspeedClient, api), visits_of(Tab()))
        await given[0]()
    assert api.asked == ["catalogs", "filters"]

    async def yes(question: str, act: str) -> bool:
        return True

    calls: list[str] = []

    async def changed() -> None:
        calls.append("changed")

    monkeypatch.setattr(versions, "ask_first", yes)
    with shown:
        await Versions(cast(AsyncAtspeedClient, api), changed)._activate("second")
        item = NewItem(cast(AsyncAtspeedClient, api), changed)
        item._id.value, item._place.value = "three", "<a_1>"
        await item._add()
    assert calls == ["changed", "changed"]
