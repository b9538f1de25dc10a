"""Numbers that are written as texts.

Invariant: a text is taken for a number only if the number is written like it again, so no code such as `007` loses its zeros.
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
