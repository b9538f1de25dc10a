"""Points in time that clients send: seconds since 1970, or RFC 3339 text with its offset from UTC.

Invariant: what passes is a number of seconds. A number that is too large for seconds is refused, never scaled: the sentence names the unit
that it looks like. A text without an offset is refused, too, because the clock of its sender is not known.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

LAST_SECOND = 253_402_300_799  # the end of the year 9999; a timestamp in milliseconds is far beyond it
TIMESTAMP_ERROR = "timestamp"
EXAMPLE = "2026-11-28T22:15:00Z"

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,20})?(?P<offset>[Zz]|[+-]\d\d:\d\d)?", re.ASCII)
_PER_SECOND = {"milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def _seconds(value: Any) -> Any:
    """Seconds of a text; other values as they are, unless they are a time in a smaller unit."""
    if isinstance(value, str):
        return _of_text(value)
    if isinstance(value, int | float) and LAST_SECOND < value <= LAST_SECOND * 10**9:
        unit, scale = next((unit, scale) for unit, scale in _PER_SECOND.items() if value <= LAST_SECOND * scale)
        meant = datetime.fromtimestamp(value // scale, UTC).isoformat().replace("+00:00", "Z")
        raise _refusal(f"must be in seconds since 1970: {value} looks like {unit} ({meant}), so divide it by {scale:,}")
    return value


def _of_text(text: str) -> float:
    match = _RFC_3339.fullmatch(text)
    if match is None:
        raise _refusal(f"must be seconds since 1970, or a date and time of RFC 3339 such as {EXAMPLE}")
    if match["offset"] is None:
        raise _refusal(f"has no offset from UTC: end it with Z for UTC, or with an offset such as +02:00, as in {EXAMPLE}")
    try:
        seconds = datetime.fromisoformat(text.upper()).timestamp()
    except (ValueError, OverflowError) as error:
        raise _refusal(f"is no date and time that there is: write it as in {EXAMPLE}") from error
    if seconds < 0:
        raise _refusal("must not lie before 1970")
    return seconds


def _refusal(reason: str) -> PydanticCustomError:
    return PydanticCustomError(TIMESTAMP_ERROR, "{reason}", {"reason": reason})


_SCHEMA = {"anyOf": [{"type": "number", "minimum": 0, "maximum": LAST_SECOND}, {"type": "string", "format": "date-time"}]}
Timestamp = Annotated[float, Field(ge=0, le=LAST_SECOND, allow_inf_nan=False), BeforeValidator(_seconds), WithJsonSchema(_SCHEMA)]
