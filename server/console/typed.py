"""What people type into fields, as values that a request can hold.

Invariant: a value that is returned has JSON in UTF-8, so that it can be sent and stand in an address; all else is refused in a sentence.
Python's own reader lets more pass: NaN, numbers that are infinite, halves of surrogate pairs.
"""

import json
import math
from typing import Any

from drafting.errors import first_line

# More than any field of a request takes, and less than Python refuses to convert.
_MOST_DIGITS = 15


def json_of(text: str) -> Any:
    """The value of a text in JSON.

    Raises:
        ValueError: it is none.
    """
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise ValueError(f"This is no JSON: {first_line(error).partition(';')[0].rstrip('.')}.") from error
    return value


def whole_number(text: str) -> int:
    """A whole number of at least 0.

    Raises:
        ValueError: the text is none, or is too long for one.
    """
    if not text.isdecimal() or len(text) > _MOST_DIGITS:
        raise ValueError(f"{text[:_MOST_DIGITS]} is no whole number, or a very large one.")
    return int(text)


def numbers_of(words: list[str]) -> list[float]:
    """Words as numbers; none of them if one is none.

    Raises:
        ValueError: one is not finite.
    """
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return []
    if not all(map(math.isfinite, numbers)):
        raise ValueError("Numbers must be finite.")
    return numbers
