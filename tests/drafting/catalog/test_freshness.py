"""The age of items: what `added_at` may say, and who counts as fresh."""

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pytest

from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.freshness import NEVER, added_days, added_since, day_of, today
from drafting.catalog.text_column import TextColumn

DAY = 86_400
SEEN = 20_781  # 2026-11-24


@pytest.mark.parametrize(
    ("value", "day"),
    [
        (0, 0),
        (DAY - 1, 0),
        (DAY, 1),
        (SEEN * DAY + 0.5, SEEN),
        ("1970-01-01", 0),
        ("2026-11-24", SEEN),
        ("2026-11-24T23:59:59", SEEN),
        ("2026-11-24T23:59:59Z", SEEN),
        ("2026-11-24T23:59:59-01:00", SEEN + 1),
        ("1969-12-31", -1),
        ("9999-12-31T23:59:59-10:00", 2_932_896),
        (True, None),
        (-1, None),
        (1_795_400_000_000, None),
        (float("inf"), None),
        ("yesterday", None),
        ("", None),
        ([], None),
        (None, None),
    ],
)
def test_the_day_of_a_value(value: Any, day: int | None) -> None:
    assert day_of(value) == day


def test_columns_say_what_their_values_do() -> None:
    rng = np.random.default_rng(0)
    forms = [lambda day: day * DAY + 7, lambda day: day * DAY + 0.25, lambda day: f"{datetime.fromtimestamp(day * DAY, UTC):%Y-%m-%d}"]
    values: list[Any] = [forms[rng.integers(3)](int(rng.integers(30_000))) for _ in range(500)]
    values += [None, True, "never", 1e15, 1e300, {"day": 1}, -3, 0]
    days = added_days(AttributeColumn.of_values(values))
    assert days.tolist() == [NEVER if day_of(value) is None else day_of(value) for value in values]
    for since in (0, 15_000, 29_999, 40_000):
        expected = [day is not None and day >= since for day in map(day_of, values)]
        assert added_since(days, since).members().tolist() == expected


def test_nothing_is_fresh_where_nobody_says_when_it_came() -> None:
    assert added_days(AttributeColumn.empty(3)).tolist() == [NEVER] * 3
    assert not len(added_since(added_days(AttributeColumn.empty(3)), 0))


def test_today_is_the_day_of_now() -> None:
    assert today() in {day_of(datetime.now(UTC).isoformat()), day_of(datetime.now(UTC).date().isoformat())}


def test_what_is_no_json_is_not_fresh() -> None:
    """Only a catalog of another origin holds such texts; they must not keep an engine from loading it."""
    texts = ["1,2", "0x1f", "9" * 5000, "1e999", "{", "[1", "NaN", '"\ud800"', '"2026-11-24', "", "7 8", "86400", '"2026-11-24"']
    days = added_days(AttributeColumn(np.arange(len(texts), dtype=np.int32), TextColumn.of(texts)))
    assert days.tolist() == [NEVER] * 11 + [1, SEEN]
