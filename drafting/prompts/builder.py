"""The prompt builder: from what is known of a user to the token ids that the target reads.

Invariant: a prompt is what the tokenizer makes of its whole text, as it was in training. Appending an item to a history keeps the tokens
before it, as long as its window begins where it did, which makes prefix caching of a user's last prompt possible.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.prompts.list_prompts import ListPrompts
from drafting.prompts.loading import PromptForm, thinking_form
from drafting.prompts.parts import PromptPart
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState

if TYPE_CHECKING:
    from drafting.prompts.text_prompts import TextPrompts


class PromptBuilder:
    """Builds prompts for one model and one catalog.

    Attributes:
        form: what `prompt.json` says.
        tokenizer, start_token: as given.
        max_items: maximum number of items of the history in any prompt; whether there are more matters too.
        max_tokens: number of tokens of the longest possible prompt.
        shared_tokens: `[tokens]`, the tokens that prompts begin with.
        kinds: the kinds of events that a prompt lists apart, and how many of each at most; whether there are more matters too.
        reads: what a prompt reads beside the history: `profile`, `context`, and `behaviours.NAME` for each list. That of a request which
            thinks may read something else: `reads_of`.
        thinking: how the target writes text behind a prompt; None if it can't.
    """

    def __init__(self, form: PromptForm, tokenizer: PromptTokenizer, catalog: Catalog, start_token: int | None = None) -> None:
        """
        Args:
            start_token: the token with which the decoder of an encoder-decoder model begins; it ends every prompt.

        Raises:
            PromptError: the form asks for what the tokenizer lacks, a template can't be rendered, or the tokenizer cuts a code up.
            CatalogError: the tokenizer lacks a token of the catalog.
        """
        self.form, self.tokenizer, self.start_token = form, tokenizer, start_token
        self._end = np.array([] if start_token is None else [start_token], np.int64)
        self._prompts = self._thinking_prompts = _prompts_of(form, tokenizer, catalog)
        other = self._thinking_form = thinking_form(form)
        if other is not form:
            self._thinking_prompts = _prompts_of(other, tokenizer, catalog)
        self.max_items = max(form.max_items, other.max_items)
        self.kinds = {kind: max(form.kinds.get(kind, 0), other.kinds.get(kind, 0)) for kind in (*form.kinds, *other.kinds)}
        self.max_tokens = max(self._prompts.max_tokens, self._thinking_prompts.max_tokens) + len(self._end)
        self.shared_tokens = self._prompts.shared_tokens
        self.reads = self._prompts.reads
        self.thinking = None if form.think is None else form.think.tokens(tokenizer.encode)

    def reads_of(self, *, thinks: bool) -> frozenset[str]:
        """What the prompt of a request reads beside the history, as `reads`.

        Args:
            thinks: True if the target writes text behind it.
        """
        return (self._thinking_prompts if thinks else self._prompts).reads

    def most_items(self, *, thinks: bool) -> int:
        """Maximum number of items of the history in the prompt of a request; `thinks` as in `reads_of`."""
        return (self._thinking_form if thinks else self.form).max_items

    def window(self, history: Sequence[int] | IntArray) -> Sequence[int] | IntArray:
        """The items of a history in the prompt: see `Window`."""
        return self.form.window.of(history)

    def build(self, user: UserState | Sequence[int] | IntArray, *, thinks: bool = False) -> IntArray:
        """The prompt of a user, or of a history of item indices, oldest first, `[tokens]`.

        Args:
            thinks: True if the target writes text behind it.

        Raises:
            PromptError: the history is empty, what a template needs is missing, or the prompt is too long.
        """
        return np.concatenate([(self._thinking_prompts if thinks else self._prompts).tokens(user), self._end])

    def is_nothing(self, prompt: IntArray) -> bool:
        """True if a prompt has no token for the model to read: what an encoder reads ends before the decoder's start."""
        return len(prompt) <= len(self._end)

    def sample(self, items: IntArray) -> IntArray:
        """The prompt of a sample user with these items, of whom is known what the form asks for, `[tokens]`.

        Raises:
            PromptError: there are no items.
        """
        return np.concatenate([self._prompts.sample(items), self._end])

    def forget(self, user_id: str) -> None:
        """Keep nothing of a user in memory, such as the text of their last prompt, which a text form remembers."""
        self._prompts.forget(user_id)
        self._thinking_prompts.forget(user_id)

    def parts(self, user: UserState | Sequence[int] | IntArray) -> list[PromptPart]:
        """The prompt that `build` makes, in parts, without empty ones.

        Raises:
            PromptError: as `build`.
        """
        parts = self._prompts.parts(user)
        if not len(self._end):
            return parts
        if not parts or parts[-1].kind in ("item", "code"):
            return [*parts, PromptPart("after", self._end)]
        *others, last = parts
        return [*others, PromptPart(last.kind, np.concatenate([last.tokens, self._end]))]


def _prompts_of(form: PromptForm, tokenizer: PromptTokenizer, catalog: Catalog) -> "ListPrompts | TextPrompts":
    if isinstance(form, PromptTemplate):
        return ListPrompts(form, tokenizer, catalog)
    # It needs a library that training and serving have, and a bare GPU machine does not.
    from drafting.prompts.text_prompts import TextPrompts

    return TextPrompts(form, tokenizer, catalog)
