"""Tokens that a tokenizer gets for a prompt, given as short patterns."""

import re
from collections.abc import Iterator, Sequence

from drafting.alignment.settings import TrainingError

MOST_TOKENS = 1_000_000
_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def numbered_tokens(patterns: Sequence[str]) -> list[str]:
    """The tokens of patterns: a pattern itself, or with `{0..1999}` in it, one token for each number.

    Raises:
        TrainingError: a token would be empty or begin or end with a space, or there are too many.
    """
    return [token for pattern in patterns for token in _tokens(pattern)]


def _tokens(pattern: str) -> Iterator[str]:
    if not pattern or pattern != pattern.strip():
        raise TrainingError(f"{pattern!r} can't be added as a token: a token is not empty, and has no space at its ends.")
    if (numbers := _NUMBERS.search(pattern)) is None:
        yield pattern
        return
    first, last = int(numbers[1]), int(numbers[2])
    if not 0 <= last - first < MOST_TOKENS:
        raise TrainingError(f"{pattern!r} can't be added as tokens: its numbers go up, and are at most {MOST_TOKENS:,}.")
    for number in range(first, last + 1):
        yield f"{pattern[: numbers.start()]}{number}{pattern[numbers.end() :]}"
