"""Tokens that a tokenizer gets for a prompt, given as short patterns."""

import itertools
import math
import re
from collections.abc import Sequence

from drafting.alignment.settings import TrainingError

MOST_TOKENS = 1_000_000
_NUMBERS = re.compile(r"\{(\d{1,9})\.\.(\d{1,9})\}")


def numbered_tokens(patterns: Sequence[str]) -> list[str]:
    """The tokens of patterns: a pattern itself, or with `{0..1999}` in it, one token for each number; for each pair of numbers with two.

    Raises:
        TrainingError: a token would be empty or begin or end with a space, numbers go down, or there are more than `MOST_TOKENS` in all.
    """
    parts = [_parts(pattern) for pattern in patterns]
    if (count := sum(math.prod(map(len, each)) for each in parts)) > MOST_TOKENS:
        raise TrainingError(f"The patterns of tokens to add make {count:,} tokens: they may make {MOST_TOKENS:,} in all.")
    return ["".join(map(str, token)) for each in parts for token in itertools.product(*each)]


def _parts(pattern: str) -> list[Sequence[str | int]]:
    """The parts of a pattern, each with its choices: a single text, or a range of numbers."""
    if not pattern or pattern != pattern.strip():
        raise TrainingError(f"{pattern!r} can't be added as a token: a token is not empty, and has no space at its ends.")
    texts = _NUMBERS.split(pattern)
    parts: list[Sequence[str | int]] = [texts[:1]]
    for first, last, text in zip(texts[1::3], texts[2::3], texts[3::3], strict=True):
        if int(last) < int(first):
            raise TrainingError(f"{pattern!r} can't be added as tokens: its numbers go up, from the smaller to the larger.")
        parts += [range(int(first), int(last) + 1), [text]]
    return parts
