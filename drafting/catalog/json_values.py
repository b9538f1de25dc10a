"""JSON values of attributes: their text, and which values a catalog takes.

Invariant: a value that a catalog takes can be told to every client: UTF-8 carries its texts, 64 bits its integers and floats, and any
parser its nesting. What is refused is refused when it comes in, with the item's name beside the reason.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from drafting.errors import quoted

# Names of attributes in a catalog: each is a column over all items, so names that differ from item to item would cost items times names.
MAX_ATTRIBUTES = 100
MAX_NAME_CHARACTERS = 128
MAX_VALUE_CHARACTERS = 10_000
MAX_NESTING = 8
# What the libraries that write and read JSON bear.
MOST_LEVELS = 100
_TOLD_NAMES = 20
_LEAST_INTEGER, _GREATEST_INTEGER = -(1 << 63), (1 << 64) - 1


def json_text(value: Any) -> str:
    """The JSON text of a value; equal values have equal texts."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True, separators=(",", ":"))


def unusable(value: Any) -> str | None:
    """Why a catalog does not take a value, as the rest of a sentence that begins with it; None if it does.

    Args:
        value: a value that JSON may hold, and what Python's parser makes of NaN and the infinities.
    """
    if type(value) is str and value.isascii() and len(value) <= MAX_VALUE_CHARACTERS:
        return None
    if reason := untellable(value, MAX_NESTING):
        return reason
    text = json_text(value) if isinstance(value, list | dict) else value
    return f"has more than {MAX_VALUE_CHARACTERS:,} characters" if isinstance(text, str) and len(text) > MAX_VALUE_CHARACTERS else None


def untellable(value: Any, levels: int = MOST_LEVELS) -> str | None:
    """Why not every client can be told a value, as the rest of a sentence that begins with it; None if it can.

    Args:
        levels: how deep lists and objects may be nested.
    """
    level = [value]
    for _ in range(levels + 1):
        if reason := next((found for each in level if (found := _untellable_alone(each))), None):
            return reason
        level = [element for each in level if isinstance(each, list | dict) for element in _elements(each)]
        if not level:
            return None
    return f"is nested more than {levels} levels deep"


def unusable_name(name: str) -> str | None:
    """Why an attribute can't have a name, as the rest of a sentence that begins with it; None if it can."""
    if not 0 < len(name) <= MAX_NAME_CHARACTERS:
        return f"has a name of {len(name):,} characters, but 1 to {MAX_NAME_CHARACTERS} are possible"
    return None if is_encodable(name) else "has half of a surrogate pair in its name, which UTF-8 can't carry"


def check_attributes(item_id: str, attributes: Mapping[str, Any]) -> None:
    """Check that a catalog takes the attributes of an item.

    Raises:
        ValueError: it does not take one of them; the message is a sentence that names the item and the attribute.
    """
    for name, value in attributes.items():
        if reason := unusable_name(name) or unusable(value):
            raise ValueError(f"The attribute {quoted(name)} of item {quoted(item_id)} {reason}.")


def too_many(names: int, holder: str = "The catalog", role: str = "item") -> str:
    """The sentence for too many names of attributes.

    Args:
        holder: what would have them, as the sentence begins.
        role: what an attribute is of.
    """
    return (
        f"{holder} would have {names:,} names of attributes, but {MAX_ATTRIBUTES} are the most: each is a column over all {role}s. Names "
        f"that differ from {role} to {role} belong into one attribute, as a list."
    )


def listed(names: Iterable[str]) -> str:
    """Some names of attributes for a sentence, in order; the first of them if there are many."""
    found = sorted(names)
    more = f" and {len(found) - _TOLD_NAMES} more" if len(found) > _TOLD_NAMES else ""
    return ", ".join(found[:_TOLD_NAMES]) + more or "none"


def _untellable_alone(value: Any) -> str | None:
    match value:
        case str():
            return None if is_encodable(value) else "holds half of a surrogate pair, which UTF-8 can't carry"
        case bool() | None | list() | dict():
            return None
        case int():
            return None if _LEAST_INTEGER <= value <= _GREATEST_INTEGER else "holds an integer of more than 64 bits"
        case float():
            return None if value - value == 0 else "holds a number that is not finite"
    return f"holds a {type(value).__name__}, which is no JSON value"


def is_encodable(text: str) -> bool:
    """False for a text with half of a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _elements(value: list[Any] | dict[str, Any]) -> Iterable[Any]:
    return [*value.keys(), *value.values()] if isinstance(value, dict) else value
