"""Prompts of the second form: what a template, or a chat of templates, makes of all that is known of a user.

The whole text of every prompt is tokenised, but for what a user's last one had at its beginning. When a prompt is loaded its templates are
rendered for sample users, so that what can never be rendered, or is too long for anyone, is refused then, and the tokens of all codes are
looked for in the texts.
"""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.bounds import MAX_SECONDS, Steps
from drafting.prompts.identifiers import IdentifierTokens, check_codes, covering_items
from drafting.prompts.parts import PromptPart, grouped
from drafting.prompts.sample_user import sample_user
from drafting.prompts.source import TemplateFault, TextTemplate, TooLong, TooSlow
from drafting.prompts.tails import TailTokenizer
from drafting.prompts.text_form import ChatForm, ListWindow, TextForm
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from drafting.prompts.views import ItemTexts, Lists, Named, shown
from drafting.trie.arrays import common_prefix

logger = logging.getLogger(__name__)

KNOWN = ("history", "behaviours", "user", "context", "user_id")
# Letters that a text may have: more than most tokens have, and some for the shortest prompts.
_LETTERS_PER_TOKEN, _LETTERS = 32, 10_000
_SEPARATORS = (", ", " ", "", "\n")
_SAMPLE_ITEMS = 64

# It takes the variables, and what it may do.
Render = Callable[[Mapping[str, Any], Steps], str]


class _TooManyTokens(PromptError):
    """A prompt is longer than `max_tokens`."""


class _ChatRefused(PromptError):
    """The tokenizer's chat template can't write these messages."""


class TextPrompts:
    """Prompts of one form and catalog.

    Attributes:
        reads: see `PromptBuilder`.
        max_tokens: tokens that a prompt may have.
        shared_tokens: `[tokens]`, the tokens that the prompts of sample users begin with.
    """

    def __init__(self, form: TextForm, tokenizer: PromptTokenizer, catalog: Catalog) -> None:
        """See `PromptBuilder`."""
        self._form = form
        self._tokenizer = tokenizer
        self._catalog = catalog
        self._texts = ItemTexts(catalog)
        self._identifiers = IdentifierTokens.of(catalog, tokenizer)
        self.max_tokens = form.max_tokens
        self._render, names = _renderer(form, tokenizer, _LETTERS + _LETTERS_PER_TOKEN * form.max_tokens)
        lists = {f"behaviours.{kind}" for kind in form.behaviours} if "behaviours" in names else set[str]()
        self.reads = frozenset(lists | ({"profile"} if "user" in names else set()) | ({"context"} & names))
        self._tails = TailTokenizer(tokenizer, add_special_tokens=form.add_special_tokens)
        self.shared_tokens = self._try()

    def tokens(self, user: UserState | Sequence[int] | IntArray) -> IntArray:
        """The prompt, `[tokens]`.

        Raises:
            PromptError: what the template needs is missing, or it is longer than `max_tokens` with the newest item of each list.
        """
        state = user if isinstance(user, UserState) else UserState.of_items(user)
        return self._fitting(state)[1]

    def _fitting(self, user: UserState) -> tuple[str, IntArray]:
        """The text with as many items of the longest lists as there is room for, and its tokens.

        What is tried to find it has as much work to do, together, as one text, so that what is found is the same on every machine.
        """
        user, end = self._newest(user), time.thread_time() + MAX_SECONDS
        try:
            return self._tried(user, None, Steps(end))
        except (TooLong, _TooManyTokens):
            # What can't fit costs no more than this.
            best = self._tried(user, 1, Steps(end))
        steps = Steps(end)
        fitting, too_many = 1, max(len(user.events), *map(len, user.behaviours.values()), 1)
        while too_many - fitting > 1:
            items = (fitting + too_many) // 2
            try:
                best, fitting = self._tried(user, items, steps), items
            except (TooLong, _TooManyTokens):
                too_many = items
            except TooSlow:
                raise
            except TemplateFault:
                break  # no work is left
        return best

    def _tried(self, user: UserState, most_items: int | None, steps: Steps) -> tuple[str, IntArray]:
        """The text with at most so many items in a list, and its tokens."""
        text = self.text(user, most_items, steps)
        tokens = self._tails.encode(text, user.user_id)
        if len(tokens) > self.max_tokens:
            sentence = f"takes {len(tokens):,} tokens with few items, more than the {self.max_tokens:,} of max_tokens in prompt.json"
            raise _TooManyTokens(f"The prompt {sentence}.")
        return text, tokens

    def _newest(self, user: UserState) -> UserState:
        """A user with no more events in each list than may matter."""
        history = self._form.history
        lists = {kind: _events_of(user, kind)[-window.max_items - 1 :] for kind, window in self._form.behaviours.items()}
        return replace(user, events=user.events[-history.max_items - 1 :], behaviours=lists)

    def sample(self, items: IntArray) -> IntArray:
        """The prompt of a sample user, or the bare identifiers where the template can't be written for one; see `PromptBuilder`."""
        if not len(items):
            raise PromptError("The history is empty: a prompt needs at least one item.")
        try:
            return self.tokens(sample_user(items, tuple(self._form.behaviours)))
        except PromptError:
            return self._identifiers[items].reshape(-1)[-self.max_tokens :]

    def forget(self, user_id: str) -> None:
        """Keep no text of a user in memory."""
        self._tails.forget(user_id)

    def parts(self, user: UserState | Sequence[int] | IntArray) -> list[PromptPart]:
        """The prompt in parts; see `PromptBuilder`."""
        codes = set(self._identifiers.token_ids.tolist())
        tokens = self.tokens(user).tolist()
        return grouped((("code" if token in codes else "text", 0, None), token) for token in tokens)

    def text(self, user: UserState, most_items: int | None = None, steps: Steps | None = None) -> str:
        """The text of a prompt.

        Args:
            most_items: of each list, if it would be too long with whole windows.
            steps: what the template may do; by default as much as for any one text.

        Raises:
            PromptError: what the template needs is missing.
        """
        lists = {name: self._shown(window, _events_of(user, name), most_items) for name, window in self._form.behaviours.items()}
        variables = {
            "history": self._shown(self._form.history, user.events, most_items),
            "behaviours": Lists(lists),
            "user": Named(user.profile, "user"),
            "context": Named(user.context, "context"),
        }
        return self._render(variables if user.user_id is None else variables | {"user_id": user.user_id}, steps or Steps())

    def _shown(self, form: ListWindow, events: Sequence[UserEvent], most_items: int | None) -> Sequence[Any]:
        window = form.window if most_items is None else form.window.narrowed(most_items)
        newest = events[len(events) - len(window.of([event.item for event in events])) :]
        return shown(self._texts, newest if form.order == "oldest" else newest[::-1])

    def _try(self) -> IntArray:
        """Render for sample users, and find what their prompts have in common."""
        shared: IntArray | None = None
        tried: list[str] = []
        for items, user in self._samples():
            try:
                text, tokens = self._fitting(user)
            except TemplateFault:
                raise
            except PromptError as error:
                if isinstance(error, _ChatRefused | _TooManyTokens) and not self._fits_anyone():
                    raise TemplateFault(str(error)) from error
                logger.warning("The prompt could not be tried on a sample user, so its codes are checked in plain lists alone: %s", error)
                self._check_lists()
                return np.empty(0, np.int64)
            written = [item for item in items.tolist() if "".join(self._catalog.identifier(item)) in text]
            if written:
                check_codes(self._catalog, self._identifiers, np.unique(written), tokens)
            shared = tokens if shared is None else shared[: common_prefix(shared, tokens)]
            tried.append(text)
        self._tails.try_on(tried)
        return np.empty(0, np.int64) if shared is None else self._common(shared)

    def _fits_anyone(self) -> bool:
        """True if a prompt can be written for some user of one item, of whom all is known, or nothing."""
        for item in covering_items(self._catalog)[:_SAMPLE_ITEMS, None]:
            for user in (sample_user(item, tuple(self._form.behaviours)), UserState.of_items(item)):
                try:
                    self._fitting(user)
                except PromptError:
                    continue
                return True
        return False

    def _check_lists(self) -> None:
        """Look for the tokens of all codes in lists as templates write them: a code that is cut up in all of them is so in any prompt."""
        for items, _ in self._samples():
            texts = ["".join(self._catalog.identifier(item)) for item in items.tolist()]
            faults = []
            for separator in _SEPARATORS:
                tokens = self._tokenizer.encode(separator.join(texts), add_special_tokens=self._form.add_special_tokens)
                try:
                    check_codes(self._catalog, self._identifiers, np.unique(items), tokens)
                    break
                except PromptError as error:
                    faults.append(error)
            else:
                raise faults[0]

    def _common(self, tokens: IntArray) -> IntArray:
        """The first of these tokens that prompts of other users share: with another first item, other values, or no values at all."""
        items = covering_items(self._catalog)
        first = self._catalog.codes[items, 0]
        other = items[(first != first[0]).argmax()][None]
        for user in (UserState.of_items(other), sample_user(other, tuple(self._form.behaviours), "2")):
            try:
                text = self.text(user)
            except PromptError:
                continue  # the template needs what this user lacks
            tokens = tokens[: common_prefix(tokens, self._tokenizer.encode(text, add_special_tokens=self._form.add_special_tokens))]
        return tokens

    def _samples(self) -> Iterator[tuple[IntArray, UserState]]:
        """Users whose histories have every code, the shortest and the longest window among them."""
        covering, most = covering_items(self._catalog), self._form.max_items
        size = min(most, _SAMPLE_ITEMS)
        parts = [covering[start : start + size] for start in range(0, len(covering), size)]
        for items in (covering[:1], np.resize(covering, most), *parts):
            yield items, sample_user(items, tuple(self._form.behaviours))


def _events_of(user: UserState, kind: str) -> Sequence[UserEvent]:
    given = user.behaviours.get(kind)
    return [event for event in user.events if event.kind == kind] if given is None else given


def _renderer(form: TextForm, tokenizer: PromptTokenizer, most: int) -> tuple[Render, set[str]]:
    """A function that writes the text of a prompt, of at most `most` letters; and the names that it reads."""
    if not isinstance(form, ChatForm):
        template = TextTemplate(form.template, "The template in prompt.json", KNOWN)
        return lambda variables, steps: template.render(variables, most, steps), template.names
    if tokenizer.chat_template is None:
        raise PromptError("The prompt is a chat, but the tokenizer has no chat template: save one beside it, as chat_template.jinja.")
    chat = TextTemplate(tokenizer.chat_template, "The tokenizer's chat template", None)
    contents = [
        (message.role, TextTemplate(message.content, f"Message {number} of the chat in prompt.json", KNOWN))
        for number, message in enumerate(form.messages, 1)
    ]
    given = {**tokenizer.special_tokens, "tools": None, "documents": None, "add_generation_prompt": form.add_generation_prompt}

    def render(variables: Mapping[str, Any], steps: Steps) -> str:
        messages = [{"role": role, "content": content.render(variables, most, steps)} for role, content in contents]
        try:
            return chat.render({**given, **form.variables, "messages": messages}, most, steps) + form.after
        except TemplateFault:
            raise
        except PromptError as error:
            raise _ChatRefused(str(error)) from error

    return render, {name for _, content in contents for name in content.names}
