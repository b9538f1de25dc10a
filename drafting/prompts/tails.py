"""Tokenising what is new of a text: a user's next prompt begins like the last one.

Invariant: the ids are those of the whole text. A text is cut only where an added token begins that splits it before anything else is done
to it, with so much common text behind that no longer token can begin there; so what stands before the cut has the tokens that it had. It
is tried on sample texts when a prompt is loaded: a tokenizer for which it does not hold reads every text as a whole.
"""

import sys
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from threading import Lock

import numpy as np
from tokenizers import Encoding

from drafting.array_types import IntArray
from drafting.prompts.tokenizer import PromptTokenizer

MOST_BYTES = 32 * 2**20
# Places to cut a text at: most new prompts differ from the last one behind its last items.
_LAST_CUTS, _EVERY = 8, 16
_TRIED_CUTS = 8


@dataclass(frozen=True, eq=False)
class ReadText:
    """A text that has been tokenised.

    Attributes:
        tokens: `[tokens]`, without special tokens around them.
        cuts: places in the text where it may be cut, ascending, and the number of tokens before each.
    """

    text: str
    tokens: IntArray
    cuts: list[tuple[int, int]]

    @property
    def bytes(self) -> int:
        return sys.getsizeof(self.text) + self.tokens.nbytes + 100 * len(self.cuts) + 500


class TailTokenizer:
    """Tokenises the texts of users, and remembers the last one of each, the least recently read going first."""

    def __init__(self, tokenizer: PromptTokenizer, *, add_special_tokens: bool, most_bytes: int = MOST_BYTES) -> None:
        self._tokenizer = tokenizer
        self._special = add_special_tokens
        self._around: tuple[IntArray, IntArray] | None = None
        self._lock = Lock()
        self._known: OrderedDict[str, ReadText] = OrderedDict()
        self._most_bytes, self._bytes = most_bytes, 0
        added = tokenizer.rust.get_added_tokens_decoder()
        self._longest = max((len(token.content) for token in added.values()), default=0)
        self._splits = np.zeros(max(added, default=0) + 1, bool)
        self._contents = {number: token.content for number, token in added.items()}
        for number, token in added.items():
            self._splits[number] = not (token.normalized or token.lstrip or token.single_word)

    def try_on(self, texts: Iterable[str]) -> None:
        """Reuse tokens from now on, if that gives the tokens of whole texts for these."""
        for text in texts:
            around = self._specials(text)
            read = self._read(text)
            step = max(1, len(read.cuts) // _TRIED_CUTS)
            if around is None or any(
                not np.array_equal(read.tokens[count:], self._tokenizer.encode(text[place:])) for place, count in read.cuts[::step]
            ):
                self._around = None
                return
            self._around = around

    def encode(self, text: str, user: str | None) -> IntArray:
        """The token ids of a text, `[tokens]` int64; `user` is whose last one may begin like it."""
        if self._around is None or user is None:
            return self._tokenizer.encode(text, add_special_tokens=self._special)
        with self._lock:
            last = self._known.get(user)
        read = self._read(text) if last is None else self._read_behind(last, text)
        with self._lock:
            self._remember(user, read)
        before, after = self._around
        return np.concatenate([before, read.tokens, after])

    def forget(self, user: str) -> None:
        """Remember no text of a user any more."""
        with self._lock:
            self._drop(user)

    def _read(self, text: str) -> ReadText:
        encoding = self._tokenizer.encoding(text)
        tokens = np.array(encoding.ids, np.int64)
        return ReadText(text, tokens, self._cuts(text, encoding, tokens, 0, 0))

    def _read_behind(self, last: ReadText, text: str) -> ReadText:
        """Read what lies behind the last place where the text may be cut that it has in common with another."""
        common = _common_letters(last.text, text)
        if common == len(text) == len(last.text):
            return last
        kept = [cut for cut in last.cuts if cut[0] <= common - self._longest]
        if not kept:
            return self._read(text)
        place, count = kept[-1]
        encoding = self._tokenizer.encoding(text[place:])
        tail = np.array(encoding.ids, np.int64)
        return ReadText(text, np.concatenate([last.tokens[:count], tail]), kept[:-1] + self._cuts(text, encoding, tail, place, count))

    def _cuts(self, text: str, encoding: Encoding, tokens: IntArray, place: int, count: int) -> list[tuple[int, int]]:
        """The cuts of the part of a text that begins at a place and has so many tokens before it.

        An unknown letter becomes a token that may be among the added ones, too, but does not split the text: its letters are others.
        """
        splitting = np.flatnonzero(self._splits[np.minimum(tokens, len(self._splits) - 1)] & (tokens < len(self._splits)))
        chosen = [*splitting[:-_LAST_CUTS:_EVERY].tolist(), *splitting[-_LAST_CUTS:].tolist()]
        places = ((encoding.token_to_chars(number), number) for number in chosen)
        return [
            (place + span[0], count + number)
            for span, number in places
            if span is not None and text.startswith(self._contents[int(tokens[number])], place + span[0])
        ]

    def _specials(self, text: str) -> tuple[IntArray, IntArray] | None:
        """The special tokens before and behind a text; None if they are not simply put around it."""
        bare, whole = self._tokenizer.encode(text), self._tokenizer.encode(text, add_special_tokens=self._special)
        for first in range(len(whole) - len(bare) + 1):
            if np.array_equal(whole[first : first + len(bare)], bare):
                around = whole[:first], whole[first + len(bare) :]
                same = self._around is None or all(map(np.array_equal, around, self._around))
                return around if same else None
        return None

    def _remember(self, user: str, read: ReadText) -> None:
        self._drop(user)
        self._known[user] = read
        self._bytes += read.bytes
        while self._bytes > self._most_bytes:
            self._drop(next(iter(self._known)))

    def _drop(self, user: str) -> None:
        if (gone := self._known.pop(user, None)) is not None:
            self._bytes -= gone.bytes


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
