"""The header `Retry-After`: a number of seconds, as this server writes it, or a date, as a gateway may."""

import math
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def seconds_to_wait(header: str | None) -> float | None:
    """Seconds from now that a header asks to wait, at least 0; None without one, or for one that says neither."""
    if header is None:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            then = parsedate_to_datetime(header)
        except ValueError:
            return None
        # HTTP knows no other clock than UTC's.
        seconds = (then.replace(tzinfo=then.tzinfo or UTC) - datetime.now(UTC)).total_seconds()
    return max(seconds, 0.0) if math.isfinite(seconds) else None
