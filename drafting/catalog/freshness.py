"""Freshness of items: the day on which each item was added to the catalog.

The attribute `added_at` holds seconds since 1970, or an ISO date or time such as "2026-11-24"; a time without a zone is UTC.

Invariant: age is counted in whole UTC days, so the set of fresh items of an age is the same for all requests of a day. An item whose
`added_at` is missing or not understood is not fresh.
"""

import json
import time
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.column_values import ColumnValues
from drafting.catalog.text_column import TextColumn
from drafting.trie.item_set import ItemSet

ADDED_AT = "added_at"
NEVER = np.iinfo(np.int32).min
_DAY_SECONDS = 86_400
_EPOCH = date(1970, 1, 1).toordinal()
# The end of the year 9999: a time in milliseconds is far beyond it.
_LAST_SECOND = 253_402_300_799

Days = npt.NDArray[np.int32]


def today() -> int:
    """The current day in UTC, in days since 1970."""
    return int(time.time() // _DAY_SECONDS)


def day_of(value: Any) -> int | None:
    """The day of a value of `added_at`, in days since 1970; None if the value is not understood."""
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            return None
        # Converting a time of the first or last year of the calendar may overflow; its exact day does not matter.
        inside = moment.tzinfo is not None and 1 < moment.year < 9999
        return (moment.astimezone(UTC) if inside else moment).toordinal() - _EPOCH
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST_SECOND:
        return None
    return int(value // _DAY_SECONDS)


def added_days(column: AttributeColumn) -> Days:
    """The day on which each item was added, `[items]` int32 days since 1970; `NEVER` if unknown.

    Args:
        column: column of the attribute `added_at`.
    """
    found: Days = np.append(_days_of(column.values), np.int32(NEVER))[column.codes]
    return found


def days_of_items(column: AttributeColumn, items: IntArray) -> Days:
    """As `added_days`, of some items alone: `[items]` catalog indices."""
    codes, place = np.unique(column.codes[items], return_inverse=True)
    days = np.full(len(codes), NEVER, np.int32)
    days[codes >= 0] = _days_of(column.values.take(codes[codes >= 0]))
    return days[place]


def added_since(days: Days, day: int) -> ItemSet:
    """The items added on `day` (days since 1970) or later."""
    return ItemSet.of(days >= day)


def _days_of(values: TextColumn) -> Days:
    """The day of each value, `[values]` int32; numbers are converted all at once, because there may be one per item."""
    days = np.full(len(values), NEVER, np.int32)
    if not len(values):
        return days
    rows, numbers = ColumnValues(values).numbers()
    seconds = numbers.real
    days[rows] = np.where((seconds >= 0) & (seconds <= _LAST_SECOND), np.floor(seconds / _DAY_SECONDS), NEVER)
    for row in np.flatnonzero(values.data[values.offsets[:-1]] == ord('"')).tolist():
        if (day := _day_of_text(values[row])) is not None:
            days[row] = day
    return days


def _day_of_text(text: str) -> int | None:
    try:
        return day_of(json.loads(text))
    except ValueError:
        return None
