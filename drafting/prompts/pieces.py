"""The prompt of a list of identifiers in pieces that are tokenised once, each in its context.

A tokenizer may write a text differently after a code than at the beginning ("▁,"), or leave out the spaces beside codes. So each piece is
what the tokenizer makes of it where it stands: before a code, between two, or after one.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drafting.array_types import IntArray


@dataclass(frozen=True, eq=False)
class Pieces:
    """The tokens of a prompt around the identifiers, each `[tokens]` int64.

    Attributes:
        before: of the text before the first identifier.
        separator: of the text between two.
        after: of the text behind the last.
    """

    before: IntArray
    separator: IntArray
    after: IntArray

    def join(self, identifiers: IntArray) -> IntArray:
        """The prompt of identifiers `[items, length]`, oldest first, `[tokens]`."""
        # Every item is followed by the separator; the last separator is cut off.
        length = identifiers.shape[1]
        items = np.empty((len(identifiers), length + len(self.separator)), np.int64)
        items[:, :length], items[:, length:] = identifiers, self.separator
        return np.concatenate([self.before, items.reshape(-1)[: items.size - len(self.separator)], self.after])


def find_pieces(before: str, separator: str, after: str, code: tuple[str, IntArray], encode: Callable[[str], IntArray]) -> Pieces | None:
    """The pieces of these texts beside a code, given with its tokens; None if the tokenizer does not keep the code whole beside them."""
    text, tokens = code
    try:
        first = _rest(encode(before + text), np.empty(0, np.int64), tokens)
        begin = np.concatenate([first, tokens])
        return Pieces(
            first,
            _rest(encode(before + text + separator + text), begin, tokens),
            _rest(encode(before + text + after), begin, np.empty(0, np.int64)),
        )
    except _Differs:
        return None


class _Differs(Exception):
    """Tokens do not begin or end as they should."""


def _rest(tokens: IntArray, begin: IntArray, end: IntArray) -> IntArray:
    """The tokens between `begin` and `end`."""
    last = len(tokens) - len(end)
    if last < len(begin) or not np.array_equal(tokens[: len(begin)], begin) or not np.array_equal(tokens[last:], end):
        raise _Differs
    return tokens[len(begin) : last]
