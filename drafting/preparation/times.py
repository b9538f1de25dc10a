"""Times: numbers of any unit, ISO dates or dates of a named form, as seconds since 1970.

Invariant: a unit is told from the magnitude of all numbers of a column together, never one by one, so that all get the same; numbers that
are too small for dates are an order and nothing more, and stay as they are. A text is the same date, or none, whatever stands beside it.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from drafting.array_types import BoolArray, DoubleArray
from drafting.errors import InteractionError

AUTO, SECONDS, ORDER, DAYS = "auto", "seconds", "order", "yyyymmdd"
_PER_SECOND = {SECONDS: 1.0, "milliseconds": 1e3, "microseconds": 1e6, "nanoseconds": 1e9}
UNITS = (AUTO, *_PER_SECOND, DAYS, ORDER)
# Seconds since 1970 of 1973 and of 5138: what lies between them in one unit lies outside in all others.
_LEAST_SECONDS, _END_SECONDS = 1e8, 1e11
_NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*$"
_ZONE = r"(?P<zone>Z|[+-]\d\d:?\d\d)$"
# As BigQuery and Ruby write what ISO calls Z.
_NAMED_UTC = r"\s+(UTC|GMT)$"
# A part of a form; %%Z holds none but a percent sign.
_PART = re.compile(r"%(.)")
# C's names for parts that Python knows by other ones. What C pads with a space, a text may pad with a zero or not at all.
_SPELT_OUT = {
    "F": "%Y-%m-%d",
    "T": "%H:%M:%S",
    "R": "%H:%M",
    "D": "%m/%d/%y",
    "r": "%I:%M:%S %p",
    "e": "%d",
    "h": "%b",
    "k": "%H",
    "l": "%I",
}


@dataclass(frozen=True)
class Unit:
    """A unit of times.

    Attributes:
        name: one of `UNITS` but `auto`.
        sentence: how it was found, as the end of a sentence that begins with the times.
    """

    name: str
    sentence: str

    @property
    def dated(self) -> bool:
        """Whether times are dates."""
        return self.name != ORDER


def check_form(form: str) -> None:
    """Refuse a form of dates that none can be read by.

    Raises:
        InteractionError: it is so.
    """
    if "%" not in form:
        raise InteractionError(f"--time-format {form!r} names no parts of a date: it is written like %d/%m/%Y %H:%M.")
    parts = _PART.findall(form)
    if "Z" in parts:
        raise InteractionError(
            "--time-format takes no %Z, as several zones share a name: %z reads +02:00, and where all times are UTC, its name is written "
            "as it stands, such as '%d/%m/%Y %H:%M UTC'."
        )
    if "s" in parts:
        raise InteractionError("--time-format takes no %s: seconds since 1970 are numbers, which --time-unit seconds reads.")


def parsed(column: Any, form: str | None = None) -> tuple[DoubleArray, BoolArray]:
    """A column of times as numbers, NaN where there is none; and which of them are seconds already because they were dates.

    Args:
        form: of dates, as `strptime` takes it, in texts or in the digits of numbers.

    Raises:
        InteractionError: its values are neither dates nor numbers nor texts.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        microseconds = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64())
        return _floats(microseconds) / 1e6, np.ones(len(column), np.bool_)
    is_number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_decimal(column.type)
    if is_number and form is None:
        return _floats(column.cast(pa.float64(), safe=False)), np.zeros(len(column), np.bool_)
    # A form holds for numbers, too: 20240506123000 is none of any unit. pandas makes floats of those with a gap.
    if pa.types.is_floating(column.type):
        with suppress(pa.ArrowException):
            column = column.cast(pa.int64())
    texts = pc.utf8_trim_whitespace(_texts(column))
    numeric = np.zeros(len(texts), np.bool_)
    if form is None:
        numeric = pc.match_substring_regex(texts, _NUMBER).fill_null(False).to_numpy(zero_copy_only=False)
    numbers = np.full(len(texts), np.nan)
    numbers[numeric] = _floats(texts.filter(pa.array(numeric)).cast(pa.float64()))
    others = ~numeric & texts.is_valid().to_numpy(zero_copy_only=False)
    if others.any():
        rest = texts.filter(pa.array(others))
        numbers[others] = _dates(rest) if form is None else _dates_of(rest, form)
    return numbers, others


def found_unit(numbers: DoubleArray, said: str = AUTO) -> Unit:
    """The unit of numbers `[n]`.

    Raises:
        InteractionError: there is no such unit, or the numbers are no dates of it.
    """
    if said not in UNITS:
        raise InteractionError(f"There is no unit of time {said!r}: choose {', '.join(UNITS)}.")
    if said != AUTO:
        return Unit(said, f"are taken for {_called(said)}, as was said")
    if _are_days(numbers):
        return Unit(DAYS, "are dates, a year, a month and a day in eight digits")
    middle = float(np.median(np.abs(numbers))) if len(numbers) else 0.0
    if middle < _LEAST_SECONDS:
        return Unit(ORDER, "are too small for dates, so they are an order and nothing more")
    for name, factor in _PER_SECOND.items():
        if middle < _END_SECONDS * factor or name == "nanoseconds":
            shown = datetime.fromtimestamp(min(middle / factor, _END_SECONDS), UTC)
            return Unit(name, f"are {name}, as the middle one, {middle:.0f}, is then in {shown:%B %Y}")
    raise AssertionError("the last unit takes all")


def in_seconds(numbers: DoubleArray, unit: Unit) -> DoubleArray:
    """Numbers of a unit as seconds since 1970; those of an order as they are.

    Raises:
        InteractionError: a number is no date.
    """
    if unit.name == ORDER:
        return numbers
    if unit.name == DAYS:
        if not _are_days(numbers):
            raise InteractionError("The times are no dates of the form yyyymmdd: say another --time-unit.")
        days = numbers.astype(np.int64)
        months = (days // 10_000 - 1970) * 12 + days // 100 % 100 - 1
        dates = months.astype("datetime64[M]").astype("datetime64[D]") + (days % 100 - 1).astype("timedelta64[D]")
        seconds: DoubleArray = dates.astype("datetime64[s]").astype(np.float64)
        return seconds
    scaled: DoubleArray = numbers / _PER_SECOND[unit.name]
    return scaled


def strange(numbers: DoubleArray, unit: Unit) -> int:
    """How many numbers are no dates between 1973 and the year 5138 in their unit."""
    if unit.name not in _PER_SECOND:
        return 0
    seconds = numbers / _PER_SECOND[unit.name]
    return int(np.count_nonzero((seconds < _LEAST_SECONDS) | (seconds >= _END_SECONDS)))


def _called(unit: str) -> str:
    return "an order" if unit == ORDER else f"dates of the form {unit}" if unit == DAYS else unit


def _are_days(numbers: DoubleArray) -> bool:
    """Whether all numbers are dates in eight digits."""
    if not len(numbers) or not ((numbers >= 1900_01_01) & (numbers <= 2199_12_31) & (numbers == np.floor(numbers))).all():
        return False
    days = np.unique(numbers.astype(np.int64))
    month, day = days // 100 % 100, days % 100
    if not ((month >= 1) & (month <= 12) & (day >= 1)).all():
        return False
    first = ((days // 10_000 - 1970) * 12 + month - 1).astype("datetime64[M]")
    length = ((first + 1).astype("datetime64[D]") - first.astype("datetime64[D]")).astype(np.int64)
    return bool((day <= length).all())


def _floats(column: Any) -> DoubleArray:
    numbers: DoubleArray = column.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    numbers = np.where(np.isfinite(numbers), numbers, np.nan)
    return numbers


def _texts(column: Any) -> Any:
    kind = column.type
    if not pa.types.is_nested(kind) and not pa.types.is_temporal(kind):
        try:
            return column.cast(pa.large_string())
        except pa.ArrowException:
            pass
    raise InteractionError(f"Times and ratings are dates, numbers or texts, and a column of them holds values of type {kind}.")


def _dates(texts: Any) -> DoubleArray:
    """ISO dates as seconds, NaN for those that are none."""
    texts = pc.replace_substring_regex(texts, _NAMED_UTC, "Z")
    try:
        if pc.all(pc.match_substring_regex(texts, _ZONE)).as_py():
            dates = texts.cast(pa.timestamp("us", "UTC"))
        else:
            dates = texts.cast(pa.timestamp("us"))
    except pa.ArrowException:
        return _one_by_one(texts, lambda text: datetime.fromisoformat(text.replace("/", "-")))
    return _floats(dates.cast(pa.int64())) / 1e6


def _dates_of(texts: Any, form: str) -> DoubleArray:
    """Dates of a form as seconds, NaN for those that are none."""
    form = _PART.sub(lambda part: _SPELT_OUT.get(part[1], part[0]), form)
    zoned = _PART.findall(form)[-1:] == ["z"] and form.endswith("%z")
    seconds = _zoned(texts, form.removesuffix("%z")) if zoned else _written(texts, form)
    others = np.isnan(seconds)
    seconds[others] = _one_by_one(texts.filter(pa.array(others)), lambda text: datetime.strptime(text, form))
    return seconds


def _written(texts: Any, form: str) -> DoubleArray:
    """Dates that are written like the text again, as seconds, and NaN for others: Arrow takes 31/02/2024 for 2 March."""
    try:
        dates = pc.strptime(texts, form, "s", error_is_null=True)
        sure = pc.equal(pc.strftime(dates, form).cast(texts.type), texts).fill_null(False).to_numpy(zero_copy_only=False)
    except pa.ArrowException:
        return np.full(len(texts), np.nan)
    return np.where(sure, _floats(dates.cast(pa.int64())), np.nan)


def _zoned(texts: Any, form: str) -> DoubleArray:
    """Dates with a zone at their end, which Arrow would write as UTC's; `form` is of what stands before it."""
    zones = pc.struct_field(pc.extract_regex(texts, _ZONE), "zone").fill_null("")
    seconds: DoubleArray = _written(pc.replace_substring_regex(texts, _ZONE, ""), form)
    return seconds + _one_by_one(zones, lambda zone: datetime.strptime(f"1970{zone}", "%Y%z"))


def _one_by_one(texts: Any, read: Callable[[str], datetime]) -> DoubleArray:
    """Dates as seconds, read once for each different text; NaN for those that are none."""
    encoded = pc.dictionary_encode(texts)
    different = np.array([_date(text, read) for text in encoded.dictionary.to_pylist()], np.float64)
    seconds: DoubleArray = different[encoded.indices.to_numpy()]
    return seconds


def _date(text: str, read: Callable[[str], datetime]) -> float:
    try:
        date = read(text)
        return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
    except (ValueError, OverflowError):
        return float("nan")
