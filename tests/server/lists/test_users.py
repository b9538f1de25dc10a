"""What a prompt is made of: what the request brings before what is stored, and nothing that the catalog does not have."""

from drafting.prompts.user_state import UserEvent, UserState
from server.histories import Event, StoredUser
from server.lists.users import known_user, none_known, suffices, told_unknown, unread
from server.schemas.given import GivenUser
from tests.models import random_catalog

CATALOG = random_catalog(items=20)
STORED = StoredUser(
    [
        Event("item-4", 1.0, "id", "watch", 0.0, {"device": "tv"}),
        Event("gone", 2.0, None, "buy"),
        Event("item-2", 3.0),
        Event("item-4", 4.0, None, "buy", 2.0),
    ],
    {"age": 34},
)


def given(**body: object) -> GivenUser:
    return GivenUser.model_validate(body)


def test_stored_events_are_told_in_full_without_those_of_items_that_have_left():
    user = known_user(CATALOG, given(), 10, stored=STORED, user_id="ann")
    events = [UserEvent(4, "watch", 0.0, 1.0, {"device": "tv"}), UserEvent(2, time=3.0), UserEvent(4, "buy", 2.0, 4.0)]
    assert user.state == UserState(events, {}, {"age": 34}, {}, "ann")
    assert user.met == [4, 2, 4]


def test_what_the_request_brings_takes_the_place_of_what_is_stored():
    body = given(behaviours={"buy": ["item-7", {"item_id": "item-8", "kind": "gift", "value": 3}]}, profile={}, context={"query": "war"})
    user = known_user(CATALOG, body, 10, stored=STORED, user_id="ann")
    assert user.state.behaviours == {"buy": [UserEvent(7, "buy"), UserEvent(8, "gift", 3.0)]}
    assert (user.state.profile, user.state.context) == ({}, {"query": "war"})
    assert user.met == [4, 2, 4, 7, 8]
    assert known_user(CATALOG, given(profile={"age": 1}), 10, stored=STORED).state.profile == {"age": 1}


def test_of_long_lists_the_newest_are_told_and_all_are_met():
    items = [f"item-{number}" for number in range(8)]
    rich = [{"item_id": item, "timestamp": number} for number, item in enumerate(items)]
    for entries in (items, rich):
        user = known_user(CATALOG, given(history=entries, behaviours={"buy": entries}), 3)
        assert [event.item for event in user.state.events] == [event.item for event in user.state.behaviours["buy"]] == [5, 6, 7]
        assert user.met == [*range(8), *range(8)]
    assert [event.time for event in user.state.events] == [5.0, 6.0, 7.0]
    assert known_user(CATALOG, given(history=items), 0).state.events == []
    stored = known_user(CATALOG, given(), 2, stored=STORED)
    assert [event.item for event in stored.state.events] == [2, 4]
    assert stored.met == [4, 2, 4]


def test_of_whom_nothing_is_known():
    user = known_user(CATALOG, given(), 5)
    assert (user.state, user.met) == (UserState([]), [])
    assert known_user(CATALOG, given(), 5, stored=StoredUser([])).state == UserState([])


def test_what_is_not_in_the_catalog_is_passed_over_and_told():
    history = ["gone", {"item_id": "item-1", "value": 2}, {"item_id": "lost"}]
    told = {"buy": ["item-2", "left"], "like": ["away"]}
    user = known_user(CATALOG, given(history=history, behaviours=told), 5)
    assert user.state == UserState([UserEvent(1, value=2.0)], {"buy": [UserEvent(2, "buy")], "like": []})
    assert (user.history, user.met) == ([1], [1, 2])
    assert user.unknown == {"history": ["gone", "lost"], "behaviours": ["left", "away"]}
    assert list(told_unknown({"history": ["gone"], "exclude": ["a", "b"]})) == [
        "The catalog has no item 'gone', which history names: it is passed over.",
        "The catalog does not have 2 items that exclude names, such as 'a': they are passed over.",
    ]
    assert none_known(user.unknown) == "The catalog has none of the 2 items that history names, such as 'gone'."
    assert known_user(CATALOG, given(), 5, stored=STORED).unknown == {}


def test_what_a_prompt_does_not_read_is_known_and_no_kind_of_the_request_is_said():
    body = given(behaviours={"buy": ["item-1"], "like": ["item-2"], "none": []}, profile={"age": 3}, context={"query": "rain"})
    assert unread(body, ()) == ["behaviours", "profile", "context"]
    assert unread(body, {"behaviours.watch", "behaviours.buy", "profile"}) == ["behaviours other than buy and watch", "context"]
    assert unread(body, {"behaviours.buy", "behaviours.like", "profile", "context"}) == []
    assert unread(given(history=["item-1"], profile={}), ()) == []


def test_a_prompt_may_be_made_of_what_it_reads_of_a_request():
    assert suffices(given(context={"query": "rain"}), {"context"})
    assert suffices(given(behaviours={"buy": ["item-1"]}), {"behaviours.buy"})
    assert not suffices(given(context={"query": "rain"}, behaviours={"buy": ["item-1"]}), {"behaviours.like", "profile"})
    assert not suffices(given(profile={"age": 3}, behaviours={"buy": []}), {"behaviours.buy", "profile", "context"})
