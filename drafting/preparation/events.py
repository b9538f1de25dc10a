"""Interactions while they are read: flat arrays, and the names of users and items once each.

Invariant: memory is that of the names and of a few numbers an interaction, whatever else stands in the files.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from drafting.alignment.data.arrow_values import add_values
from drafting.alignment.data.columns import Column, TableBuilder
from drafting.alignment.data.details import ATTRIBUTES, KIND
from drafting.array_types import BoolArray, DoubleArray
from drafting.catalog.parquet import whole_numbers
from drafting.errors import InteractionError, quoted
from drafting.preparation.columns import NO_COLUMN, TIME, VALUE, Roles
from drafting.preparation.names import Names
from drafting.preparation.numbers import is_number, number_of
from drafting.preparation.rows import NAMED, BadLines, RowBatch
from drafting.preparation.times import parsed

# What programs write where a number is missing.
_MISSING = ("", "nan", "none", "null", "na")
_FORM_ADVICE = "Dates are ISO, unless --time-format FORM says what they are, such as %d/%m/%Y."


@dataclass(frozen=True, eq=False)
class Events:
    """Interactions in the order of the source.

    Attributes:
        user_names, item_names: the names, by number.
        users, items: `[n]` int32, numbers of names.
        times: `[n]`, in the unit of the source, or their order where it has no times.
        dated: whether times were dates and are seconds since 1970.
        values: `[n]`, NaN where there is none; None without a column of them.
        details: columns of one value for each interaction, `kind` and attributes.
    """

    user_names: Sequence[str]
    item_names: Sequence[str]
    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    times: DoubleArray
    dated: bool = False
    values: DoubleArray | None = None
    details: Mapping[str, Column] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.users)

    def where(self, kept: BoolArray) -> "Events":
        """Some of them, with the same names."""
        return replace(
            self,
            users=self.users[kept],
            items=self.items[kept],
            times=self.times[kept],
            values=None if self.values is None else self.values[kept],
            details={name: Column(column.codes[kept], column.values) for name, column in self.details.items()},
        )


@dataclass(frozen=True, eq=False)
class _Part:
    """The interactions of one batch; arrays are as of `Events`."""

    users: npt.NDArray[np.int32]
    items: npt.NDArray[np.int32]
    times: DoubleArray
    values: DoubleArray | None


class EventReader:
    """Reads interactions out of batches of rows."""

    def __init__(self, roles: Roles, keep: Sequence[str], bad: BadLines, time_format: str | None, kept_ids: Collection[str] = ()) -> None:
        """
        Args:
            keep: further columns, kept as attributes.
            kept_ids: those of them that hold ids, which are no numbers however they look.
        """
        self._roles, self._keep, self._bad, self._time_format = roles, keep, bad, time_format
        self._kept_ids = {*map(attribute, kept_ids)}
        self._users, self._items = Names(), Names()
        self._parts: list[_Part] = []
        self._details = TableBuilder()
        self._dated: bool | None = None
        self._count = self._seen = 0

    def read(self, batches: Iterator[RowBatch]) -> Events:
        """Read all of them.

        Raises:
            InteractionError: no line can be used, or a column holds values of a type that it can't have.
        """
        for rows in batches:
            self._add(rows)
        if not self._count:
            reason = self._bad.described or "the files have no rows"
            raise InteractionError(f"There is no interaction that can be used: {reason}.{self._bad.advised}")
        known = self._details.columns(self._count)
        details = {name: column if name in self._kept_ids else _with_numbers(name, column) for name, column in known.items()}
        values = [part.values for part in self._parts if part.values is not None]
        return Events(
            user_names=self._users.names,
            item_names=self._items.names,
            users=np.concatenate([part.users for part in self._parts]),
            items=np.concatenate([part.items for part in self._parts]),
            times=np.concatenate([part.times for part in self._parts]),
            dated=bool(self._dated),
            values=np.concatenate(values) if values else None,
            details=details,
        )

    def _add(self, rows: RowBatch) -> None:
        """Add the interactions of a batch, and report its rows that are none."""
        roles = self._roles
        users, items = (ids(rows.columns[name], name, rows) for name in (roles.user, roles.item))
        has_user, has_item = (column.is_valid().to_numpy(zero_copy_only=False) for column in (users, items))
        good = has_user & has_item
        # In text, a line without either is a blank one; objects may have both under other names, which is to be told.
        blank = ~has_user & ~has_item & rows.is_text
        reasons = [_Reason(~good & ~blank, "it lacks a user or an item")]
        if roles.time is None:
            times = np.arange(self._seen, self._seen + rows.size, dtype=np.float64)
        else:
            times, wrong = self._times(rows)
            advice = f"{_FORM_ADVICE} {_advice(TIME, roles.time)}"
            reasons.append(_Reason(wrong & good, f"its {roles.time} is no time", roles.time, advice))
            good &= ~wrong
        values = None
        if roles.value is not None:
            with _advised(VALUE, roles.value):
                values, wrong = _numbers(rows.columns[roles.value])
            reasons.append(_Reason(wrong & good, f"its {roles.value} is no number", roles.value, _advice(VALUE, roles.value)))
            good &= ~wrong
        self._report(rows, reasons)
        self._seen += rows.size
        self._bad.lines -= int(blank.sum())
        kept = pa.array(good)
        rated = None if values is None else values[good]
        self._parts.append(_Part(self._users.numbers(users.filter(kept)), self._items.numbers(items.filter(kept)), times[good], rated))
        self._add_details(rows, kept)
        self._count += int(good.sum())

    def _add_details(self, rows: RowBatch, kept: Any) -> None:
        """Add the kinds and the attributes of a batch.

        Args:
            kept: which of its rows are interactions, as an Arrow array.
        """
        kinds = {} if self._roles.kind is None else {KIND: self._roles.kind}
        for name, column in {**kinds, **{attribute(name): name for name in self._keep}}.items():
            with _advised(KIND, column) if name == KIND else nullcontext():
                is_id = name in self._kept_ids
                texts = ids(rows.columns[column], column, rows) if is_id else _text_kinds(rows.columns[column], name)
            add_values(self._details[name], self._count, texts.filter(kept))

    def _times(self, rows: RowBatch) -> tuple[DoubleArray, BoolArray]:
        assert self._roles.time is not None
        with _advised(TIME, self._roles.time):
            times, dated = parsed(rows.columns[self._roles.time], self._time_format)
        found = np.isfinite(times)
        if self._dated is None and found.any():
            # What the first time is, all must be: a number says nothing of its unit beside a date.
            self._dated = bool(dated[np.argmax(found)])
        return times, ~found | (dated != bool(self._dated))

    def _report(self, rows: RowBatch, reasons: Sequence["_Reason"]) -> None:
        for reason in reasons:
            wrong = np.flatnonzero(reason.wrong)
            for row in wrong[:NAMED].tolist():
                told = reason.sentence
                if reason.column is not None:
                    value = rows.columns[reason.column][row].as_py()
                    told += f", {'it has none' if value is None else quoted(str(value).strip())}"
                self._bad.add(rows.path, rows.line_of(row), told, reason.advice)
            self._bad.count(max(0, len(wrong) - NAMED))


@dataclass(frozen=True, eq=False)
class _Reason:
    """Why rows can't be used.

    Attributes:
        wrong: which rows, `[rows]`.
        column: whose value is told; None for none.
    """

    wrong: BoolArray
    sentence: str
    column: str | None = None
    advice: str = ""


def _advice(role: str, column: str) -> str:
    """How to decline a column that was guessed wrongly."""
    return f"If {column} holds no {role}s, say --{role} {NO_COLUMN}, or --{role} with the column that does."


@contextmanager
def _advised(role: str, column: str) -> Iterator[None]:
    """Say in a refusal of a column how to decline it."""
    try:
        yield
    except InteractionError as error:
        raise InteractionError(f"{error} {_advice(role, column)}") from error


def attribute(name: str) -> str:
    """The column of details that a kept column becomes; those of a data directory bear its name already."""
    return name if name.startswith(ATTRIBUTES) else ATTRIBUTES + name


def ids(column: Any, name: str, rows: RowBatch) -> Any:
    """A column of ids as large strings, null where there is none.

    Raises:
        InteractionError: it holds something else than texts and whole numbers.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type):
        column = whole_numbers(column, rows.path, name, InteractionError)
    kind = column.type
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
        whole = whole_numbers(column.drop_null(), rows.path, name, InteractionError)
        texts = np.full(len(column), None, object)
        texts[column.is_valid().to_numpy(zero_copy_only=False)] = whole.cast(pa.string()).to_pylist()
        return pa.array(texts, pa.large_string())
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_string_view(kind):
        try:
            column = column.cast(pa.large_string())
        except pa.ArrowInvalid as error:
            raise InteractionError(f"The column {name} of {rows.path} has texts that are not UTF-8.") from error
    if pa.types.is_integer(kind) or pa.types.is_null(kind):
        return column.cast(pa.large_string())
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise InteractionError(f"The column {name} of {rows.path} holds values of type {kind}: ids are texts or whole numbers.")
    texts = pc.utf8_trim_whitespace(column.cast(pa.large_string()))
    return pc.if_else(pc.equal(texts, ""), None, texts)


def _numbers(column: Any) -> tuple[DoubleArray, BoolArray]:
    """A column as numbers, NaN where there is none; and where there is something else."""
    numbers, dated = parsed(column)
    return np.where(dated, np.nan, numbers), dated | (np.isnan(numbers) & column.is_valid().to_numpy(zero_copy_only=False) & _told(column))


def _told(column: Any) -> BoolArray:
    """Which values are no missing numbers (NaN, which floats and texts may say)."""
    if pa.types.is_floating(column.type):
        return np.zeros(len(column), np.bool_)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        texts = pc.utf8_lower(pc.utf8_trim_whitespace(column))
        said: BoolArray = ~pc.is_in(texts, pa.array(_MISSING, column.type)).to_numpy(zero_copy_only=False)
        return said
    return np.ones(len(column), np.bool_)


def _text_kinds(column: Any, name: str) -> Any:
    """A column of details, kinds and dates as texts, decimals as numbers."""
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if pa.types.is_decimal(column.type) and name != KIND:
        return _decimals(column)
    if not (pa.types.is_temporal(column.type) or name == KIND):
        return column
    try:
        return column.cast(pa.large_string())
    except pa.ArrowException as error:
        sentence = f"A column that is kept as {name} holds values of type {column.type}, which can't be read as texts."
        raise InteractionError(sentence) from error


def _decimals(column: Any) -> Any:
    """Decimals as numbers: those of a type without places behind the point, such as NUMBER(38, 0), as whole ones."""
    if column.type.scale == 0:
        with suppress(pa.ArrowException):
            return column.cast(pa.int64())
    return column.cast(pa.float64())


def _with_numbers(name: str, column: Column) -> Column:
    """A column of attributes whose texts are all numbers as these numbers."""
    if name == KIND:
        return Column(column.codes, tuple(map(str, column.values)))
    texts = [value for value in column.values if isinstance(value, str)]
    if not texts or len(texts) < len(column.values) or not all(map(is_number, texts)):
        return column
    return Column(column.codes, tuple(number_of(text) for text in texts))
