"""Texts in chunks that are tokenised apart from each other, which is faster than whole: most chunks are codes, whose ids are known.

Invariant: the tokens of a text are those of its chunks. A chunk begins with an added token that the tokenizer splits off before anything
else is done to a text, so what stands before such a token has no influence on how the rest is read. Where these tokens stand is seen from
the text alone: they begin with a letter that no such token holds after its first place, so none that began earlier reaches over it.
"""

from collections import Counter
from collections.abc import Iterable
from itertools import chain, compress, count, pairwise

import numpy as np

from drafting.array_types import IntArray
from drafting.prompts.tokenizer import PromptTokenizer

# Letters behind the token that a chunk begins with, so that it is kept: what stands between codes, but no titles.
_LETTERS_KEPT = 16


class ChunkTokenizer:
    """Tokenises texts in chunks.

    Attributes:
        letter: the letter that chunks begin with; "" if a text has no place that is proved to be the beginning of one.
        longest: letters of the longest token that a chunk may begin with, whose place is certain with so many letters known.
    """

    def __init__(self, tokenizer: PromptTokenizer) -> None:
        self._tokenizer = tokenizer
        self.letter = self._letter()
        added = tokenizer.rust.get_added_tokens_decoder()
        found = {token.content: number for number, token in added.items() if self.letter and token.content.startswith(self.letter)}
        raw = {token.content for token in added.values() if not token.normalized}
        # Tokens by their letters behind the first one, None for those that take what stands before them, too.
        stripping = {token.content for token in added.values() if token.lstrip}
        self._begin: dict[str, int | None] = {
            content[1:]: None if content in stripping else number for content, number in found.items() if content in raw
        }
        self._sizes = sorted(set(map(len, self._begin)), reverse=True)
        self._first_ids = {number for number in self._begin.values() if number is not None}
        self.longest = 1 + max(self._sizes, default=0)
        # Without the letter in front. A code alone is one token, however spaces around it are treated.
        self._known = {content: [number] for content, number in self._begin.items() if number is not None}

    def learn(self, texts: Iterable[str]) -> None:
        """Keep the tokens of short chunks of texts that tell nothing of any user, such as those of sample users."""
        if not self.letter:
            return
        short = self.longest + _LETTERS_KEPT
        chunks = {chunk: None for text in texts for chunk in self._cut(text)[0][1:] if len(chunk) <= short and chunk not in self._known}
        if chunks and (read := self._read(["", *chunks])) is not None:
            self._known |= dict(zip(chunks, read[1:], strict=True))

    def encode(self, text: str) -> IntArray:
        """The token ids of a text, `[tokens]` int64, without special tokens around them."""
        if not self.letter:
            return self._tokenizer.encode(text)
        chunks, unread = self._cut(text)
        read = self._read([chunks[number] for number in unread])
        if read is None:
            return self._tokenizer.encode(text)
        tokens = list(map(self._known.get, chunks))
        for number, found in zip(unread, read, strict=True):
            tokens[number] = found
        return np.fromiter(chain.from_iterable(filter(None, tokens)), np.int64)

    def is_cut(self, text: str, place: int) -> bool:
        """True if a chunk begins at a place of a text that holds the letter."""
        return self._first_id(text[place + 1 : place + self.longest]) is not None

    def _cut(self, text: str) -> tuple[list[str], list[int]]:
        """The chunks of a text without the letter in front, what stands before the first one among them; and which are not known."""
        chunks = text.split(self.letter)
        unread = self._unread(chunks)
        if inside := [number for number in unread[1:] if self._first_id(chunks[number]) is None]:
            begins = sorted(set(range(len(chunks))).difference(inside))
            chunks = [self.letter.join(chunks[begin:end]) for begin, end in pairwise([*begins, len(chunks)])]
            unread = self._unread(chunks)
        return chunks, unread

    def _unread(self, chunks: list[str]) -> list[int]:
        """Which chunks have tokens that are not known: the first one, and others."""
        return [0, *(number for number, chunk in enumerate(chunks) if number and chunk not in self._known)]

    def _first_id(self, chunk: str) -> int | None:
        """The id of the token that a text begins with, the letter in front left out; None if no chunk begins there."""
        for size in self._sizes:
            if (begin := chunk[:size]) in self._begin:
                return self._begin[begin]
        return None

    def _read(self, chunks: list[str]) -> list[list[int]] | None:
        """The tokens of each of these; None if they can't be told apart.

        An unknown letter may become the same token as a chunk begins with.
        """
        tokens = self._tokenizer.ids(self.letter.join(chunks))
        begins = list(compress(count(), map(self._first_ids.__contains__, tokens)))
        if len(begins) != len(chunks) - 1:
            return None
        return [tokens[begin:end] for begin, end in pairwise([0, *begins, len(tokens)])]

    def _letter(self) -> str:
        """The letter that most codes begin with and that stands nowhere else in what splits a text; "" if there is none.

        A token that must be a word of its own looks at the letters beside it, in other chunks, too.
        """
        added = self._tokenizer.rust.get_added_tokens_decoder().values()
        raw = [token.content for token in added if not token.normalized]
        if any(token.single_word for token in added) or self._tokenizer.rust.encode_special_tokens:
            return ""
        inside = set("".join(content[1:] for content in raw))
        firsts = Counter(content[0] for content in raw if content and not content[0].isspace() and content[0] not in inside)
        return max(firsts, key=firsts.__getitem__, default="")
