"""Tokenising only the new part of a text: a user's next prompt begins like the last one.

Invariant: the ids are those of the whole text. A text is cut only where a chunk begins (see `ChunkTokenizer`), and only if so much common
text follows that no longer token can begin there; so the text before the cut keeps its tokens. This is tried on sample texts when a prompt
is loaded: a tokenizer for which it does not hold reads every text as a whole.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock

import numpy as np

from drafting.array_types import IntArray
from drafting.lru import LruMap
from drafting.prompts.chunks import ChunkTokenizer
from drafting.prompts.tokenizer import PromptTokenizer

MOST_BYTES = 32 * 2**20
_TRIED_TEXTS, _TRIED_CUTS = 4, 8
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class ReadText:
    """A text that has been tokenised.

    Attributes:
        tokens: `[tokens]`, without special tokens around them.
    """

    text: str
    tokens: IntArray

    @property
    def bytes(self) -> int:
        return sys.getsizeof(self.text) + self.tokens.nbytes + 500


class TailTokenizer:
    """Tokenises the texts of users, and remembers the last one of each, the least recently read going first."""

    def __init__(self, tokenizer: PromptTokenizer, *, add_special_tokens: bool, most_bytes: int = MOST_BYTES) -> None:
        self._tokenizer = tokenizer
        self._special = add_special_tokens
        self._around: tuple[IntArray, IntArray] | None = None
        self._lock = Lock()
        self._known: LruMap[str, ReadText] = LruMap(most_bytes, lambda read: read.bytes)
        self._chunks = ChunkTokenizer(tokenizer)

    def try_on(self, texts: Sequence[str]) -> None:
        """Reuse tokens from now on, if that gives the tokens of whole texts for the first of these, which tell nothing of any user."""
        self._chunks.learn(texts)
        for text in texts[:_TRIED_TEXTS]:
            around = self._specials(text)
            places = [place for place, letter in enumerate(text) if letter == self._chunks.letter]
            tails = [0, *places[:: max(1, len(places) // _TRIED_CUTS)]]
            if around is None or any(
                not np.array_equal(self._chunks.encode(text[place:]), self._tokenizer.encode(text[place:])) for place in tails
            ):
                self._around = None
                return
            self._around = around

    def encode(self, text: str, user: str | None) -> IntArray:
        """The token ids of a text, `[tokens]` int64; `user` is whose last one may begin like it."""
        if self._around is None:
            return self._tokenizer.encode(text, add_special_tokens=self._special)
        before, after = self._around
        return np.concatenate([before, self._chunks.encode(text) if user is None else self._read(text, user), after])

    def forget(self, user: str) -> None:
        """Remember no text of a user any more."""
        with self._lock:
            self._known.forget(user)

    def _read(self, text: str, user: str) -> IntArray:
        """The tokens of a text, which is remembered as the last one of a user."""
        with self._lock:
            last = self._known.get(user)
        tokens = self._chunks.encode(text) if last is None else self._read_behind(last, text)
        with self._lock:
            self._known.keep(user, ReadText(text, tokens))
        return tokens

    def _read_behind(self, last: ReadText, text: str) -> IntArray:
        """Read what lies behind the last place where a chunk begins that it has in common with another."""
        common = _common_letters(last.text, text)
        if common == len(text) == len(last.text):
            return last.tokens
        place = self._cut(text, common)
        if 2 * place < len(last.text):
            return self._chunks.encode(text)
        # How many tokens the common beginning has is what the rest of the last text leaves.
        rest = len(self._chunks.encode(last.text[place:]))
        return np.concatenate([last.tokens[: len(last.tokens) - rest], self._chunks.encode(text[place:])])

    def _cut(self, text: str, common: int) -> int:
        """The last place where a chunk begins whatever stands behind so many letters; 0 if there is none."""
        letter, place = self._chunks.letter, common - self._chunks.longest + 1
        while letter and place > 0:
            place = text.rfind(letter, 0, place)
            if place > 0 and self._chunks.is_cut(text, place):
                return place
        return 0

    def _specials(self, text: str) -> tuple[IntArray, IntArray] | None:
        """The special tokens before and behind a text; None if they are not simply put around it."""
        around = self._tokenizer.around(text) if self._special else (_NONE, _NONE)
        if around is None or self._around is None:
            return around
        return around if all(map(np.array_equal, around, self._around)) else None


def _common_letters(one: str, other: str) -> int:
    """Number of letters at the beginning of two texts that are equal."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[low:middle] == other[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
