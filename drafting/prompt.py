"""The prompt: how a user's history becomes the token ids that a model reads.

Invariant: a prompt is assembled from separately tokenised pieces (text before the history, identifiers, separators, text after it), and
identifiers are the catalog's own token ids. Appending an item to a history therefore keeps every earlier token, which is what makes the
keys and values of a user's last prompt reusable; tokenising the joined text could merge tokens across the pieces.

A history that is longer than the model reads would lose its oldest item with every new one, and with it the whole prefix. So several old
items go at once: the window starts at the item with the smallest hash among those that it may start at. As long as that item is one of
them, the window starts there, whoever asks and however much of the history is given.
"""

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from drafting.errors import SetupError

logger = logging.getLogger(__name__)

PROMPT_FILE = "prompt.json"
HISTORY = "{history}"

# An odd multiplier whose upper half of the product depends on every bit of the factor (Knuth's multiplicative hashing).
_MIXER = np.uint64(0x9E3779B97F4A7C15)


class PromptError(SetupError):
    """A prompt template that cannot be used; the message is a sentence."""


class Tokenizer(Protocol):
    """What this module needs of a Hugging Face tokenizer."""

    bos_token_id: int | None

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]: ...


class ItemTokens(Protocol):
    """The identifiers of items as token ids: an array `[items, length]`, or `IdentifierTokens`, which looks them up when it is asked."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, items: npt.NDArray[np.int64], /) -> npt.NDArray[np.int64]: ...


@dataclass(frozen=True, eq=False)
class IdentifierTokens:
    """The identifiers of a catalog as a model's token ids, without a copy of the catalog.

    Attributes:
        codes: `[items, length]`, the catalog's codes.
        token_ids: `[codes]` int64, the id of each code's token.
    """

    codes: npt.NDArray[np.unsignedinteger]
    token_ids: npt.NDArray[np.int64]

    @property
    def shape(self) -> tuple[int, ...]:
        """Items and tokens per item."""
        return self.codes.shape

    def __getitem__(self, items: npt.NDArray[np.int64], /) -> npt.NDArray[np.int64]:
        tokens: npt.NDArray[np.int64] = self.token_ids[self.codes[items]]
        return tokens


@dataclass(frozen=True)
class PromptTemplate:
    """The contents of `prompt.json`, which lies beside the model that was trained with it.

    Attributes:
        template: the whole prompt, with `{history}` where the identifiers go.
        separator: text between two items.
        max_items: how many of the newest items the model reads at most.
        min_items: how many of the newest items it reads at least, of a history longer than `max_items`; None for half of them.
            The further below `max_items`, the longer a window stays where it is and the more of it is not computed again, but the less the
            model reads. Equal to `max_items`, the window moves with every item.
        add_bos: whether the tokenizer's beginning-of-sequence token comes first.
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
        """How many items of a long history a window may start at: the oldest ones that it could hold."""
        fewest = self.max_items - self.max_items // 2 if self.min_items is None else self.min_items
        return self.max_items - fewest + 1

    @classmethod
    def load(cls, model_dir: Path) -> "PromptTemplate":
        """Read `prompt.json` from a model directory; without one the default holds, and the log says so.

        Raises:
            PromptError: the file is there but is no prompt template.
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
        """Write the template beside the model."""
        (model_dir / PROMPT_FILE).write_text(json.dumps(asdict(self), indent=2) + "\n")


class PromptBuilder:
    """Turns histories (item indices, oldest first) into prompts for one model and one catalog."""

    def __init__(self, template: PromptTemplate, tokenizer: Tokenizer, identifiers: ItemTokens) -> None:
        """
        Args:
            identifiers: the catalog's, as the model's token ids.

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
        self._after = np.array(_encode(tokenizer, after), np.int64)
        self._separator = np.array(_encode(tokenizer, template.separator), np.int64)
        self._identifiers = identifiers

    @property
    def shared_tokens(self) -> npt.NDArray[np.int64]:
        """What every prompt begins with, `[tokens]`."""
        return self._before

    @property
    def max_tokens(self) -> int:
        """Tokens in the longest prompt that this builder makes."""
        item = self._identifiers.shape[1] + len(self._separator)
        return int(len(self._before) + self.template.max_items * item - len(self._separator) + len(self._after))

    def window(self, history: Sequence[int]) -> Sequence[int]:
        """The part of a history that the model reads: all of it, or between `min_items` and `max_items` of its newest items.

        Of a longer history only the newest `max_items + 1` items matter.
        """
        newest = history[-self.template.max_items :]
        if len(newest) == len(history):
            return history
        first = np.asarray(newest[: self.template.starts], np.uint64)
        return newest[int(((first + np.uint64(1)) * _MIXER >> np.uint64(32)).argmin()) :]

    def build(self, history: Sequence[int]) -> npt.NDArray[np.int64]:
        """The prompt of a history of at least one item index, `[tokens]`.

        Raises:
            PromptError: the history is empty, so there would be nothing to predict from.
        """
        if not history:
            raise PromptError("The history is empty: a prompt needs at least one item.")
        items = self._identifiers[np.asarray(self.window(history), np.int64)]
        # Every item is followed by the separator here, and the last one's is cut off again.
        items = np.concatenate([items, np.broadcast_to(self._separator, (len(items), len(self._separator)))], axis=1).reshape(-1)
        return np.concatenate([self._before, items[: len(items) - len(self._separator)], self._after])


def _encode(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False) if text else []
