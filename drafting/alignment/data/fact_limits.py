"""What may be known of users, requests and events: objects of short names and plain values, by name.

Invariant: what passes can be stored, told to any client and written into a prompt: texts are UTF-8, numbers are finite and the same in
every JSON parser, nothing is nested deeper than a list. Reasons say no values, because this is what is known of a person.
"""

from collections.abc import Iterable
from typing import Any

import msgspec

from drafting.beam.rule import LARGEST_JSON_INTEGER
from drafting.catalog.json_values import is_encodable
from drafting.errors import quoted

# Of a profile, or of the context of a request.
MAX_FACTS, MAX_FACTS_BYTES = 50, 8192
MAX_NAME = 64
MAX_TEXT = 2000
MAX_VALUES = 100


def unusable_facts(facts: dict[str, Any], most: int, most_bytes: int, *, lists: bool) -> str | None:
    """Why facts can't be taken, as the rest of a sentence that begins with them; None if they can.

    Args:
        most: number of names that are possible.
        most_bytes: bytes of JSON that are possible.
        lists: whether a value may be a list.
    """
    if len(facts) > most:
        return f"has {len(facts):,} names, and {most} are possible"
    if reason := unusable_names(facts):
        return reason
    for name, value in facts.items():
        if reason := unusable_value(value, lists=lists):
            return f"can't hold {quoted(name)}: its value {reason}"
    size = len(msgspec.json.encode(facts))
    return f"has {size:,} bytes as JSON, and {most_bytes:,} are possible" if size > most_bytes else None


def unusable_profile(profile: dict[str, Any]) -> str | None:
    """Why a profile can't be taken as a whole, as the rest of a sentence that begins with it; None if it can."""
    return unusable_facts(profile, MAX_FACTS, MAX_FACTS_BYTES, lists=True)


def unusable_names(names: Iterable[str]) -> str | None:
    """Why one of some names can't be taken, as the rest of a sentence that begins with what has them; None if all can."""
    if all(0 < len(name) <= MAX_NAME and is_encodable(name) for name in names):
        return None
    return f"has a name that can't be used: names have 1 to {MAX_NAME} characters, which UTF-8 can carry"


def unusable_value(value: Any, *, lists: bool = True) -> str | None:
    """Why a value can't be taken, as the rest of a sentence that begins with it; None if it can."""
    if lists and isinstance(value, list):
        if len(value) > MAX_VALUES:
            return f"is a list of {len(value):,}, and {MAX_VALUES} are possible"
        return next((f"is a list in which one {reason}" for each in value if (reason := unusable_value(each, lists=False))), None)
    if isinstance(value, str):
        if len(value) > MAX_TEXT:
            return f"has {len(value):,} characters, and {MAX_TEXT:,} are possible"
        return None if is_encodable(value) else "holds text that UTF-8 can't carry"
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        # NaN lies between no bounds.
        return None if abs(value) <= LARGEST_JSON_INTEGER else "is not finite, or beyond what every JSON parser reads alike (2^53)"
    return f"is no text, number{', boolean or list of these' if lists else ' or boolean'}"
