"""The prompt builder: from what is known of a user to the token ids that the target reads.

Invariant: a prompt is what the tokenizer makes of its whole text, as it was in training. Where codes are added tokens, which split a text
before anything else is done to it, it is assembled from pieces that were tokenised in their context, and compared with whole texts of
sample histories when it is loaded; elsewhere the whole text is tokenised each time. Appending an item to a history keeps all earlier
tokens, which makes prefix caching of a user's last prompt possible.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.identifiers import IdentifierTokens, covering_items
from drafting.prompts.pieces import Pieces, find_pieces
from drafting.prompts.template import HISTORY, PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState
from drafting.trie.arrays import common_prefix

# Items of a sample history: more than most prompts have, so that a catalog of many codes takes few samples.
_SAMPLE_ITEMS = 256


@dataclass(frozen=True, eq=False)
class PromptPart:
    """Neighbouring tokens of a prompt that have one origin.

    Attributes:
        kind: "before" and "after" the history, "item" or "separator".
        tokens: `[tokens]` int64.
        item: catalog index of an item; otherwise None.
    """

    kind: str
    tokens: IntArray
    item: int | None = None


class PromptBuilder:
    """Builds prompts from histories (item indices, oldest first) for one model and one catalog.

    Attributes:
        max_items: maximum number of items in a prompt; whether a history has more matters too.
        max_tokens: number of tokens of the longest possible prompt.
        shared_tokens: `[tokens]`, the tokens that prompts begin with.
        thinking: how the target writes text behind a prompt; None if it can't.
    """

    def __init__(self, template: PromptTemplate, tokenizer: PromptTokenizer, catalog: Catalog, start_token: int | None = None) -> None:
        """
        Args:
            start_token: the token with which the decoder of an encoder-decoder model begins; it ends every prompt.

        Raises:
            PromptError: the template asks for a beginning-of-sequence token that the tokenizer lacks, or the tokenizer cuts a code up.
            CatalogError: the tokenizer lacks a token of the catalog.
        """
        if template.add_bos and tokenizer.bos_token_id is None:
            raise PromptError('The prompt asks for a beginning-of-sequence token, but the tokenizer has none: set "add_bos" to false.')
        self.template = template
        self.max_items = template.max_items
        self._tokenizer = tokenizer
        self._catalog = catalog
        self._identifiers = IdentifierTokens(catalog.codes, catalog.vocabulary_ids(tokenizer.ids_of(catalog.tokens)))
        self._begin = np.array([tokenizer.bos_token_id] if template.add_bos else [], np.int64)
        self._end = np.array([] if start_token is None else [start_token], np.int64)
        samples = list(self._samples(covering_items(catalog)))
        self._pieces = self._find_pieces(samples) if tokenizer.reads_alike(catalog.tokens) else None
        self.shared_tokens, self.max_tokens = self._measure(samples)
        self.thinking = None if template.think is None else template.think.tokens(tokenizer.encode)

    def window(self, history: Sequence[int] | IntArray) -> Sequence[int] | IntArray:
        """The items of a history in the prompt: see `Window`."""
        return self.template.window.of(history)

    def build(self, user: UserState | Sequence[int] | IntArray) -> IntArray:
        """The prompt of a user, or of a history of item indices, `[tokens]`.

        Raises:
            PromptError: the history is empty.
        """
        items = self._shown(user)
        if self._pieces is not None:
            body = self._pieces.join(self._identifiers[items])
        else:
            _, body = self._fitting(items)
        return np.concatenate([self._begin, body, self._end])

    def parts(self, user: UserState | Sequence[int] | IntArray) -> list[PromptPart]:
        """The prompt that `build` makes, in parts, without empty ones.

        Raises:
            PromptError: the history is empty.
        """
        items = self._shown(user)
        if self._pieces is None:
            items, _ = self._fitting(items)
        text, places = self._text(items)
        encoding = self._tokenizer.encoding(text)
        # A token may reach over the spaces beside it, which belong to other parts.
        ends = [begin + len(text[begin:end].rstrip()) for begin, end in encoding.offsets]
        owners = [bisect_left(places, end) for end in ends]
        owned = [(0, token) for token in self._begin.tolist()]
        owned += zip(owners, encoding.ids, strict=True)
        owned += [(len(places), token) for token in self._end.tolist()]
        return [_part(owner, items, [token for _, token in group]) for owner, group in groupby(owned, lambda each: each[0])]

    def _shown(self, user: UserState | Sequence[int] | IntArray) -> IntArray:
        history = [event.item for event in user.events] if isinstance(user, UserState) else user
        if not len(history):
            raise PromptError("The history is empty: a prompt needs at least one item.")
        return np.asarray(self.window(history), np.int64)

    def _text(self, items: IntArray) -> tuple[str, list[int]]:
        return self.template.text(["".join(self._catalog.identifier(item)) for item in items.tolist()])

    def _fitting(self, items: IntArray) -> tuple[IntArray, IntArray]:
        """Items whose text is tokenised as a whole, without the oldest where they take more than `max_tokens`, and their tokens."""
        most = self.max_tokens - len(self._begin) - len(self._end)
        while len(tokens := self._tokenizer.encode(self._text(items)[0])) > most and len(items) > 1:
            items = items[1:]
        return items, tokens

    def _samples(self, covering: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
        """Histories that have every code, the shortest and the longest window among them, with the tokens of their whole texts.

        Raises:
            PromptError: the tokenizer cuts a code up.
        """
        most = self.max_items
        histories = [covering[:1], np.resize(covering, most)]
        for start in range(0, len(covering), max(most, _SAMPLE_ITEMS)):
            histories.append(covering[start : start + max(most, _SAMPLE_ITEMS)])
        for history in histories:
            tokens = self._tokenizer.encode(self._text(history)[0])
            self._check_whole(history, tokens)
            yield history, tokens

    def _check_whole(self, history: IntArray, tokens: IntArray) -> None:
        codes, needed = np.unique(self._catalog.codes[history], return_counts=True)
        tokens, ids = np.sort(tokens), self._identifiers.token_ids[codes]
        found = np.searchsorted(tokens, ids, "right") - np.searchsorted(tokens, ids, "left")
        for code in codes[found < needed].tolist():
            raise PromptError(
                f"The tokenizer cuts the code {self._catalog.tokens[code]!r} up in the text of a prompt, so the model never reads it: add "
                "the codes to the tokenizer as tokens of their own, as AddedToken(code, normalized=False) does."
            )

    def _find_pieces(self, samples: Sequence[tuple[IntArray, IntArray]]) -> Pieces | None:
        before, after = self.template.template.split(HISTORY)
        code = self._catalog.tokens[0], self._identifiers.token_ids[:1]
        pieces = find_pieces(before, self.template.separator, after, code, self._tokenizer.encode)
        if pieces is None or not all(np.array_equal(pieces.join(self._identifiers[items]), tokens) for items, tokens in samples):
            return None
        return pieces

    def _measure(self, samples: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, int]:
        """The tokens that prompts begin with, and the number of tokens of the longest one."""
        around = len(self._begin) + len(self._end)
        if self._pieces is not None:
            longest = len(self._pieces.join(self._identifiers[np.zeros(self.max_items, np.int64)]))
            return np.concatenate([self._begin, self._pieces.before]), around + longest
        shared = self._tokenizer.encode(self.template.template.split(HISTORY)[0])
        for _, tokens in samples:
            shared = shared[: common_prefix(shared, tokens)]
        longest = max(len(tokens) for items, tokens in samples if len(items) <= self.max_items)
        return np.concatenate([self._begin, shared]), around + longest


def _part(owner: int, items: IntArray, tokens: list[int]) -> PromptPart:
    """The part that lies before the `owner`-th place where an item begins or ends."""
    if owner % 2:
        return PromptPart("item", np.array(tokens, np.int64), int(items[owner // 2]))
    kind = "before" if not owner else "after" if owner == 2 * len(items) else "separator"
    return PromptPart(kind, np.array(tokens, np.int64))
