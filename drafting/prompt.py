"""The prompt: the token ids of a user's history.

Invariant: a prompt is assembled from separately tokenised pieces (text before the history, identifiers, separators, text after it), and
identifiers are the token ids of the catalog. Appending an item to a history therefore keeps all earlier tokens, which makes prefix caching
of a user's last prompt possible; tokenising the joined text could merge tokens across the pieces.

Dropping the oldest item of a long history with every new one would change the prefix each time. So several old items are dropped at once:
the window starts at the item with the smallest hash among the allowed first items. As long as that item is allowed, the window starts
there, however much of the history is given.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.errors import SetupError

logger = logging.getLogger(__name__)

PROMPT_FILE = "prompt.json"
HISTORY = "{history}"

# Multiplier of Knuth's multiplicative hashing.
_MIXER = np.uint64(0x9E3779B97F4A7C15)


class PromptError(SetupError):
    """A prompt cannot be built; the message is a sentence."""


class Tokenizer(Protocol):
    """The methods of a Hugging Face tokenizer that prompts need."""

    bos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class ItemTokens(Protocol):
    """The identifiers of items as token ids: an array `[items, length]`, or `IdentifierTokens`, which looks them up."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, items: IntArray, /) -> IntArray: ...


@dataclass(frozen=True, eq=False)
class IdentifierTokens:
    """The identifiers of a catalog as token ids, without a copy of the catalog.

    Attributes:
        codes: `[items, length]`, codes of the catalog.
        token_ids: `[codes]` int64, token id of each code.
    """

    codes: npt.NDArray[np.unsignedinteger]
    token_ids: IntArray

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of items, and number of tokens per item."""
        return self.codes.shape

    def __getitem__(self, items: IntArray, /) -> IntArray:
        tokens: IntArray = self.token_ids[self.codes[items]]
        return tokens


@dataclass(frozen=True)
class PromptTemplate:
    """The contents of `prompt.json` in the directory of a model.

    Attributes:
        template: text of the prompt, with `{history}` in place of the identifiers.
        separator: text between the identifiers of two items.
        max_items: maximum number of items in a prompt, the newest ones of the history.
        min_items: minimum number of items in the prompt of a history longer than `max_items`; None for half of `max_items`.
            A smaller number makes prefix caching more effective, because the window moves less often, but shortens prompts. If equal to
            `max_items`, the window moves with every item.
        add_bos: True if the prompt starts with the tokenizer's beginning-of-sequence token.
    """

    template: str = HISTORY
    separator: str = ""
    max_items: int = 20
    min_items: int | None = None
    add_bos: bool = True

    def __post_init__(self) -> None:
        kinds = {name: type(value) for name, value in asdict(self).items()}
        fewest = kinds.pop("min_items")
        if kinds != {"template": str, "separator": str, "max_items": int, "add_bos": bool} or fewest not in (int, type(None)):
            raise PromptError(
                "A prompt's template and separator are text, max_items and min_items are whole numbers and add_bos is true or false."
            )
        if self.template.count(HISTORY) != 1:
            raise PromptError(f"A prompt template must contain {HISTORY} exactly once, got {self.template!r}.")
        if self.max_items < 1:
            raise PromptError(f"A prompt must hold at least one item, got max_items = {self.max_items}.")
        if self.min_items is not None and not 1 <= self.min_items <= self.max_items:
            raise PromptError(f"min_items must lie between 1 and max_items = {self.max_items}, got {self.min_items}.")

    @property
    def starts(self) -> int:
        """Number of items of a long history at which a window may start: the oldest of its newest `max_items`."""
        fewest = self.max_items - self.max_items // 2 if self.min_items is None else self.min_items
        return self.max_items - fewest + 1

    @classmethod
    def load(cls, model_dir: Path) -> "PromptTemplate":
        """Read `prompt.json` from a model directory; without the file, return the default and log a warning.

        Raises:
            PromptError: the file is not a prompt template.
        """
        path = model_dir / PROMPT_FILE
        if not path.exists():
            logger.warning("%s has no %s: using the default prompt %s", model_dir, PROMPT_FILE, cls())
            return cls()
        try:
            return cls(**json.loads(path.read_bytes()))
        except (ValueError, TypeError) as error:
            raise PromptError(f"{path} is not a prompt template: {error}") from error

    def save(self, model_dir: Path) -> None:
        """Write `prompt.json` to a model directory."""
        (model_dir / PROMPT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


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
    """Builds prompts from histories (item indices, oldest first) for one model and one catalog."""

    def __init__(self, template: PromptTemplate, tokenizer: Tokenizer, identifiers: ItemTokens, start_token: int | None = None) -> None:
        """
        Args:
            identifiers: identifiers of the catalog as token ids of the model.
            start_token: the token with which the decoder of an encoder-decoder model begins; it ends every prompt.

        Raises:
            PromptError: the template asks for a beginning-of-sequence token that the tokenizer lacks.
        """
        before, after = template.template.split(HISTORY)
        start = []
        if template.add_bos:
            if tokenizer.bos_token_id is None:
                raise PromptError('The prompt asks for a beginning-of-sequence token, but the tokenizer has none: set "add_bos" to false.')
            start = [tokenizer.bos_token_id]
        self.template = template
        self._before = np.array(start + _encode(tokenizer, before), np.int64)
        self._after = np.array(_encode(tokenizer, after) + ([] if start_token is None else [start_token]), np.int64)
        self._separator = np.array(_encode(tokenizer, template.separator), np.int64)
        self._identifiers = identifiers

    @property
    def shared_tokens(self) -> IntArray:
        """The tokens at the beginning of every prompt, `[tokens]`."""
        return self._before

    @property
    def max_tokens(self) -> int:
        """Number of tokens of the longest possible prompt."""
        item = self._identifiers.shape[1] + len(self._separator)
        return int(len(self._before) + self.template.max_items * item - len(self._separator) + len(self._after))

    def window(self, history: Sequence[int] | IntArray) -> Sequence[int] | IntArray:
        """The items of a history in the prompt: all of them, or between `min_items` and `max_items` of the newest.

        Only the newest `max_items + 1` items of the history matter.
        """
        newest = history[-self.template.max_items :]
        if len(newest) == len(history):
            return history
        first = np.asarray(newest[: self.template.starts], np.uint64)
        return newest[int(((first + np.uint64(1)) * _MIXER >> np.uint64(32)).argmin()) :]

    def build(self, history: Sequence[int] | IntArray) -> IntArray:
        """The prompt of a history of item indices, `[tokens]`.

        Raises:
            PromptError: the history is empty.
        """
        if not len(history):
            raise PromptError("The history is empty: a prompt needs at least one item.")
        items = self._identifiers[np.asarray(self.window(history), np.int64)]
        # Every item is followed by the separator; the last separator is cut off.
        items = np.concatenate([items, np.broadcast_to(self._separator, (len(items), len(self._separator)))], axis=1).reshape(-1)
        return np.concatenate([self._before, items[: len(items) - len(self._separator)], self._after])

    def parts(self, history: Sequence[int] | IntArray) -> list[PromptPart]:
        """The prompt that `build` makes, in parts, without empty ones.

        Raises:
            PromptError: the history is empty.
        """
        if not len(history):
            raise PromptError("The history is empty: a prompt needs at least one item.")
        window = np.asarray(self.window(history), np.int64)
        pieces = zip(window.tolist(), self._identifiers[window], strict=True)
        items = [part for item, tokens in pieces for part in (PromptPart("item", tokens, item), PromptPart("separator", self._separator))]
        parts = [PromptPart("before", self._before), *items[:-1], PromptPart("after", self._after)]
        return [part for part in parts if len(part.tokens)]


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False) if text else []
