"""Prompts of the first form: one list of identifiers between two texts.

Where codes are added tokens, which split a text before anything else is done to it, a prompt is assembled from pieces that were tokenised
in their context, and compared with whole texts of sample histories when it is loaded; elsewhere the whole text is tokenised each time.

Invariant: a prompt shows its whole window and is never shortened. Its greatest length is foreseen from what each of its parts takes at most
in samples; a prompt that took more would be refused.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.identifiers import IdentifierTokens, check_codes, covering_items
from drafting.prompts.parts import PromptPart, grouped
from drafting.prompts.pieces import Pieces, find_pieces
from drafting.prompts.template import HISTORY, PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState
from drafting.trie.arrays import common_prefix

# Items of a sample history: more than most prompts have, so that a catalog of many codes takes few samples.
_SAMPLE_ITEMS = 256


class ListPrompts:
    """Prompts of one template and catalog.

    Attributes:
        reads: see `PromptBuilder`.
        max_tokens: number of tokens of the longest possible prompt.
        shared_tokens: `[tokens]`, the tokens that prompts begin with.
    """

    def __init__(self, form: PromptTemplate, tokenizer: PromptTokenizer, catalog: Catalog) -> None:
        """See `PromptBuilder`."""
        if form.add_bos and tokenizer.bos_token_id is None:
            raise PromptError(
                'The prompt asks for a beginning-of-sequence token, but the tokenizer has none: set "add_bos" to false in prompt.json.'
            )
        self._form = form
        self.reads: frozenset[str] = frozenset()
        self._tokenizer = tokenizer
        self._catalog = catalog
        self._identifiers = IdentifierTokens.of(catalog, tokenizer)
        self._begin = np.array([tokenizer.bos_token_id] if form.add_bos else [], np.int64)
        samples = list(self._samples(covering_items(catalog)))
        self._pieces = self._find_pieces(samples) if tokenizer.reads_alike(catalog.tokens) else None
        self.shared_tokens, self.max_tokens = self._measure(samples)

    def tokens(self, user: UserState | Sequence[int] | IntArray) -> IntArray:
        """The prompt, `[tokens]`.

        Raises:
            PromptError: the history is empty, or its codes are read otherwise than in any sample and take more than `max_tokens`.
        """
        items = self._shown(user)
        body = self._tokenizer.encode(self._text(items)[0]) if self._pieces is None else self._pieces.join(self._identifiers[items])
        tokens: IntArray = np.concatenate([self._begin, body])
        if len(tokens) > self.max_tokens:
            raise PromptError(
                f"The prompt takes {len(tokens):,} tokens, and at most {self.max_tokens:,} were foreseen, so the tokenizer cuts codes of "
                "this history up: add the codes to it as tokens of their own, as AddedToken(code, normalized=False) does."
            )
        return tokens

    def sample(self, items: IntArray) -> IntArray:
        """The prompt of these items; see `PromptBuilder`."""
        return self.tokens(items)

    def forget(self, user_id: str) -> None:
        """Do nothing: no text of a user is kept."""

    def parts(self, user: UserState | Sequence[int] | IntArray) -> list[PromptPart]:
        """The prompt in parts; see `PromptBuilder`."""
        items = self._shown(user)
        owners, ids = self._owners(items)
        owners, ids = [0] * len(self._begin) + owners, [*self._begin.tolist(), *ids]
        return grouped((self._owner(owner, items), token) for owner, token in zip(owners, ids, strict=True))

    def _owners(self, items: IntArray) -> tuple[list[int], list[int]]:
        """For each token of the items' text, the index in `places` of the first boundary at or after its end; and the token ids."""
        text, places = self._text(items)
        encoding = self._tokenizer.encoding(text)
        # A token may reach over the spaces beside it, which belong to other parts; one of nothing but spaces lies where it begins.
        ends = [begin + len(text[begin:end].rstrip() or text[begin:end][:1]) for begin, end in encoding.offsets]
        return [bisect_left(places, end) for end in ends], encoding.ids

    def _owner(self, place: int, items: IntArray) -> tuple[str, int, int | None]:
        """The part of the prompt that ends at boundary number `place`."""
        if place % 2:
            return "item", place, int(items[place // 2])
        return "before" if not place else "after" if place == 2 * len(items) else "separator", place, None

    def _shown(self, user: UserState | Sequence[int] | IntArray) -> IntArray:
        history = [event.item for event in user.events] if isinstance(user, UserState) else user
        if not len(history):
            raise PromptError("The history is empty: a prompt needs at least one item.")
        return np.asarray(self._form.window.of(history), np.int64)

    def _text(self, items: IntArray) -> tuple[str, list[int]]:
        return self._form.text(["".join(self._catalog.identifier(item)) for item in items.tolist()])

    def _samples(self, covering: IntArray) -> Iterator[tuple[IntArray, IntArray]]:
        """Histories that have every code, the shortest and the longest window among them, with the tokens of their whole texts."""
        most = self._form.max_items
        histories = [covering[:1], np.resize(covering, most)]
        # A prompt of one item never has a separator, which might cut a code up.
        items = max(most, _SAMPLE_ITEMS) if most > 1 else 1
        for start in range(0, len(covering), items):
            histories.append(covering[start : start + items])
        of_each_way = self._items_of_each_way(covering)
        histories += [np.array([item]) for item in of_each_way]
        if most > 1:
            histories.append(np.array(list(product(of_each_way, repeat=2))).reshape(-1))
        for history in histories:
            tokens = self._tokenizer.encode(self._text(history)[0])
            check_codes(self._catalog, self._identifiers, history, tokens)
            yield history, tokens

    def _items_of_each_way(self, covering: IntArray) -> list[int]:
        """Items among which are first and last codes of every way of treating what stands beside them."""
        way = dict(zip(self._catalog.tokens, self._tokenizer.ways(self._catalog.tokens), strict=True))
        identifiers = ((item, self._catalog.identifier(item)) for item in covering.tolist())
        return list({(way[identifier[0]], way[identifier[-1]]): item for item, identifier in identifiers}.values())

    def _find_pieces(self, samples: Sequence[tuple[IntArray, IntArray]]) -> Pieces | None:
        before, after = self._form.template.split(HISTORY)
        code = self._catalog.tokens[0], self._identifiers.token_ids[:1]
        pieces = find_pieces(before, self._form.separator, after, code, self._tokenizer.encode)
        if pieces is None or not all(np.array_equal(pieces.join(self._identifiers[items]), tokens) for items, tokens in samples):
            return None
        return pieces

    def _measure(self, samples: Sequence[tuple[IntArray, IntArray]]) -> tuple[IntArray, int]:
        """The tokens that prompts begin with, and the number of tokens of the longest one."""
        if self._pieces is not None:
            longest = len(self._pieces.join(self._identifiers[np.zeros(self._form.max_items, np.int64)]))
            return np.concatenate([self._begin, self._pieces.before]), len(self._begin) + longest
        shared = self._tokenizer.encode(self._form.template.split(HISTORY)[0])
        for _, tokens in samples:
            shared = shared[: common_prefix(shared, tokens)]
        before, item, separator, after = np.max([self._lengths(items) for items, _ in samples], axis=0).tolist()
        most = self._form.max_items
        return np.concatenate([self._begin, shared]), len(self._begin) + before + most * item + (most - 1) * separator + after

    def _lengths(self, items: IntArray) -> tuple[int, int, int, int]:
        """The most tokens that the parts of one text take: before the first item, an item, a separator, behind the last item."""
        owners, _ = self._owners(items)
        counts = np.bincount(owners, minlength=2 * len(items) + 1)
        return int(counts[0]), int(counts[1::2].max()), int(counts[2:-1:2].max(initial=0)), int(counts[-1])
