"""The tokenizer that prompts are made with, and how it treats the codes of a catalog.

It is one of the `tokenizers` library, so that prompts can be built where neither transformers nor torch is loaded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby, pairwise
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from tokenizers import Encoding, Tokenizer

from drafting.array_types import IntArray
from drafting.errors import PromptError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_NO_TEXT = "The prompt is no text: it holds one half of a surrogate pair."


class Way(NamedTuple):
    """How an added token treats what stands beside it in a text, as the tokenizers library names it."""

    lstrip: bool
    rstrip: bool
    single_word: bool
    normalized: bool


@dataclass(frozen=True, eq=False)
class PromptTokenizer:
    """A tokenizer as prompts need it.

    Attributes:
        rust: the tokenizer itself; it neither cuts nor pads a text.
        bos_token_id: id of its beginning-of-sequence token, if it has one.
        chat_template: source of the template that it writes chats with, if it has one.
        special_tokens: texts of its special tokens by role, as that template knows them.
        splits_special: True if it reads a special token that stands in a text as letters; `tokenizer.json` does not hold it.
    """

    rust: Tokenizer
    bos_token_id: int | None = None
    chat_template: str | None = None
    special_tokens: Mapping[str, Any] = field(default_factory=dict)
    splits_special: bool = False

    def __post_init__(self) -> None:
        self.rust.encode_special_tokens = self.splits_special
        self.rust.no_truncation()
        self.rust.no_padding()

    @classmethod
    def of(cls, tokenizer: "PreTrainedTokenizerBase") -> "PromptTokenizer":
        """The tokenizer behind one of transformers.

        Raises:
            PromptError: there is none.
        """
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            kind = type(tokenizer).__name__
            raise PromptError(f"Prompts can't be made with a {kind}, which is not of the tokenizers library: save it as tokenizer.json.")
        template = tokenizer.chat_template
        if isinstance(template, dict):
            template = template.get("default")
        special = {
            role: list(map(str, token)) if isinstance(token, list | tuple) else str(token)
            for role, token in tokenizer.special_tokens_map.items()
        }
        return cls(backend, tokenizer.bos_token_id, template, special, bool(tokenizer.split_special_tokens))

    @classmethod
    def of_text(
        cls,
        text: str,
        bos_token_id: int | None = None,
        chat_template: str | None = None,
        special_tokens: Mapping[str, Any] | None = None,
        *,
        splits_special: bool = False,
    ) -> "PromptTokenizer":
        """A tokenizer from the text of its `tokenizer.json`; no other thread runs while it is read."""
        return cls(Tokenizer.from_str(text), bos_token_id, chat_template, special_tokens or {}, splits_special)

    def encode(self, text: str, *, add_special_tokens: bool = False) -> IntArray:
        """The token ids of a text, `[tokens]` int64.

        Raises:
            PromptError: as `ids`.
        """
        return np.array(self.ids(text, add_special_tokens=add_special_tokens), np.int64)

    def ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        """The token ids of a text.

        Raises:
            PromptError: it is no text, but holds halves of surrogate pairs.
        """
        try:
            # One text is read by this thread, and without the places of tokens, which would take half as much time again.
            (encoding,) = self.rust.encode_batch_fast([text], add_special_tokens=add_special_tokens)
        except TypeError as error:
            raise PromptError(_NO_TEXT) from error
        ids: list[int] = encoding.ids
        return ids

    def encoding(self, text: str) -> Encoding:
        """The tokens of a text, with the places in it that they come from.

        Raises:
            PromptError: as `ids`.
        """
        try:
            return self.rust.encode(text, add_special_tokens=False)
        except TypeError as error:
            raise PromptError(_NO_TEXT) from error

    def around(self, text: str) -> tuple[IntArray, IntArray] | None:
        """What `tokenizer(text)` puts before and behind the tokens of a text, `[tokens]` each; None if it does not simply do that."""
        bare, whole = self.encode(text), self.encode(text, add_special_tokens=True)
        for first in range(len(whole) - len(bare) + 1):
            if np.array_equal(whole[first : first + len(bare)], bare):
                return whole[:first], whole[first + len(bare) :]
        return None

    def names(self, ids: Sequence[int]) -> list[str | None]:
        """Tokens as the vocabulary has them."""
        return [self.rust.id_to_token(number) for number in ids]

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        runs = groupby(tokens, self._misread.get)
        return "".join(
            self.rust.decode(list(run), skip_special_tokens=True) if text is None else text * len(list(run)) for text, run in runs
        )

    @cached_property
    def _misread(self) -> dict[int, str]:
        """The texts of added tokens that the library decodes as others: where bytes have letters, it takes some letters for bytes."""
        return {
            number: token.content
            for number, token in self.rust.get_added_tokens_decoder().items()
            if not (token.special or token.content.isascii() or self.rust.decode([number]) == token.content)
        }

    def ids_of(self, tokens: Sequence[str]) -> dict[str, int]:
        """The ids of those of these tokens that the vocabulary has."""
        ids = {token: self.rust.token_to_id(token) for token in tokens}
        return {token: number for token, number in ids.items() if number is not None}

    def reads_alike(self, codes: Sequence[str]) -> bool:
        """True if any one of these tokens can take the place of another in a text without another effect on the text beside it.

        They are then added tokens, which split a text before anything else is done to it, that all treat their neighbours in the same way,
        and no token begins with one of them.
        """
        ways = list(set(self.ways(codes)))
        if len(ways) != 1 or ways[0] is None or ways[0].single_word:
            return False
        names, added = set(codes), sorted(token.content for token in self.rust.get_added_tokens_decoder().values())
        return not any(shorter in names and longer.startswith(shorter) for shorter, longer in pairwise(added))

    def ways(self, tokens: Sequence[str]) -> list["Way | None"]:
        """How each of these treats what stands beside it in a text; None for those that are no added tokens."""
        added = {
            token.content: Way(token.lstrip, token.rstrip, token.single_word, token.normalized)
            for token in self.rust.get_added_tokens_decoder().values()
        }
        return [added.get(token) for token in tokens]
