"""Numbers that are written as texts.

Invariant: a text with zeros in front, such as the code `007`, or with more than 16 digits before its point is none. Zeros at the end of a
fraction say nothing: `12.10` is 12.1.
"""

import re

_NUMBER = re.compile(r"-?(0|[1-9]\d{0,15})(\.\d+)?")


def is_number(text: str) -> bool:
    """Whether a text is a number without zeros in front."""
    return _NUMBER.fullmatch(text) is not None


def number_of(text: str) -> int | float:
    """The number that a text is.

    Raises:
        ValueError: it is none.
    """
    return float(text) if "." in text else int(text)
