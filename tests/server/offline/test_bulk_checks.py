"""What is refused before a load: exactly what the API would refuse of the same events."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from drafting.alignment.data.columns import Column, TableBuilder
from drafting.errors import InteractionError
from drafting.preparation.events import Events
from drafting.prompts.user_state import Value
from server.offline.bulk_checks import check_events, check_profiles
from server.schemas.users import EventBody

IDS = st.sampled_from(["a", "b", "x" * 512, "x" * 513, "\u00fc" * 512])
ATTRIBUTES = st.dictionaries(
    st.sampled_from([f"name-{number}" for number in range(20)]),
    st.sampled_from([1, 2**53, 2**53 + 2, 1.5, True, "", "\u00fc\n" * 15, "x" * 200, "x" * 996, "x" * 998]),
    max_size=20,
)
LIKELY = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from([1, True, "x" * 330, "x" * 332]))
ROWS = st.tuples(
    IDS,
    st.sampled_from([0.0, 1.7e9, 253_402_300_799.0, 253_402_300_800.0, -1.0]),
    st.sampled_from([None, "buy", "k" * 64, "k" * 65]),
    st.sampled_from([None, 2.5, -(2.0**53), 2.0**53 + 2, float("inf")]),
    ATTRIBUTES | LIKELY,
    st.sampled_from([None, "e", "e" * 512, "e" * 513]),
)


def table_of(rows: Sequence[tuple[str, float, str | None, float | None, dict[str, Any], str | None]]) -> tuple[Events, Column]:
    table = TableBuilder()
    for number, (_, _, kind, _, attributes, event_id) in enumerate(rows):
        for name, value in {"kind": kind, "id": event_id, **{f"attributes.{name}": value for name, value in attributes.items()}}.items():
            table[name].add(number, value)
    details = table.columns(len(rows))
    items = [row[0] for row in rows]
    names = list(dict.fromkeys(items))
    numbers = np.array([names.index(item) for item in items], np.int32)
    values = np.array([np.nan if row[3] is None else row[3] for row in rows])
    users, times = np.zeros(len(rows), np.int32), np.array([row[1] for row in rows])
    ids = details.pop("id")
    return Events(["ann"], names, users, numbers, times, values=values, details=details), ids


def is_taken(row: tuple[str, float, str | None, float | None, dict[str, Any], str | None]) -> bool:
    item, time, kind, value, attributes, event_id = row
    body = {"item_id": item, "timestamp": time, "kind": kind, "value": value, "attributes": attributes, "event_id": event_id}
    try:
        EventBody.model_validate({name: part for name, part in body.items() if part is not None})
    except ValidationError:
        return False
    return True


@given(ROWS, st.sampled_from(range(6)))
def test_an_event_is_refused_where_the_api_refuses_it(
    row: tuple[str, float, str | None, float | None, dict[str, Any], str | None], part: int
) -> None:
    """Beside an event that nothing is wrong with; of most drawn ones something is, so each part is tried on its own as well."""
    plain = ("a", 1.0, "buy", 1.0, {"name-0": 1}, "e")
    for drawn in (row, (*plain[:part], row[part], *plain[part + 1 :])):
        events, ids = table_of([plain, drawn])  # type: ignore[list-item]
        try:
            check_events(events, ids)
            refused = False
        except InteractionError:
            refused = True
        assert refused is not is_taken(drawn)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"times": np.array([-5.0])},
            r": 1 of the data lie outside, first the event of user 'ann' with item 'a' \(-5 s\)\. Is --time-unit right\?$",
        ),
        ({"item_names": ["x" * 513]}, r"The item 'x{60}…' has 513 characters, and from 1 to 512 are possible\."),
        ({"user_names": ["x" * 513]}, "The user .* has 513 characters"),
        (
            {"values": np.array([2.0**54])},
            r"^The value of the event of user 'ann' with item 'a' can't be stored: it is not finite, or beyond .* \(2\^53\)\.",
        ),
        (
            {"details": {f"attributes.{number}": Column(np.zeros(1, np.int32), (number,)) for number in range(17)}},
            r"^The whole of the attributes of the event of user 'ann' with item 'a' can't be stored: it has 17 names, and 16 are .*\.$",
        ),
        (
            {"details": {f"attributes.{number}": Column(np.zeros(1, np.int32), ("x" * 600,)) for number in range(2)}},
            r"^The whole of the attributes of the event of .* can't be stored: it has 1,215 bytes as JSON, and 1,024 are possible\.$",
        ),
    ],
)
def test_a_refusal_says_what_is_wrong(change: dict[str, Any], sentence: str) -> None:
    events, _ = table_of([("a", 1.0, None, None, {}, None)])
    check_events(events)
    with pytest.raises(InteractionError, match=sentence):
        check_events(replace(events, **change))


def test_a_refusal_names_the_first_event_that_is_wrong() -> None:
    """Of millions, nobody finds one that has no name."""
    rows = [("a", 1.0, None, None, {"bio": "short"}, None), ("b", 2.0, None, None, {"bio": "x" * 2001}, None)]
    events, _ = table_of([*rows, ("c", 3.0, None, None, {"bio": "x" * 2001}, None)])
    with pytest.raises(
        InteractionError, match=r"^An attribute of the event of user 'ann' with item 'b' can't be stored: it can't hold 'bio': "
    ):
        check_events(events)


def test_ids_of_events_that_are_too_long() -> None:
    events, _ = table_of([("a", 1.0, None, None, {}, None)])
    check_events(events, Column(np.zeros(1, np.int32), (12,)))
    with pytest.raises(InteractionError, match=r"The event id 'e{60}…' has 513 characters"):
        check_events(events, Column(np.zeros(1, np.int32), ("e" * 513,)))


@pytest.mark.parametrize("value", [12.5, 2.0**54, True, ["e1"]])
def test_ids_of_events_are_texts_or_whole_numbers(value: Value) -> None:
    """Of other numbers, several ids may have become one, and so several events."""
    events, _ = table_of([("a", 1.0, None, None, {}, None)])
    check_events(events, Column(np.zeros(1, np.int32), (12.0,)))
    with pytest.raises(InteractionError, match=r"^The event id .* is neither a text nor a whole number up to 2\^53\. If `atspeed prepare"):
        check_events(events, Column(np.zeros(1, np.int32), (value,)))


@pytest.mark.parametrize(
    ("profiles", "sentence"),
    [
        (
            {"ann": {"age": 30}, "bob": {"bio": "x" * 2001}},
            "^The profile of user 'bob' can't be stored: it can't hold 'bio': its value has 2,001",
        ),
        ({"x" * 513: {"age": 30}}, "The user .* has 513 characters"),
    ],
)
def test_profiles_that_the_api_refuses(profiles: dict[str, dict[str, Value]], sentence: str) -> None:
    check_profiles({"ann": {"age": 30}, "bob": {"likes": ["war"]}})
    with pytest.raises(InteractionError, match=sentence):
        check_profiles(profiles)
