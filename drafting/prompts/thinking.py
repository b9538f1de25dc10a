"""The field `think` of `prompt.json`: how the target writes text before a list, and where the list begins behind it.

Invariant: the end of a text and what follows it are the tokens that the tokenizer makes of both together, as it does where a model was
trained with them in one text.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.array_types import IntArray
from drafting.errors import PromptError

MOST_TOKENS = 32_768


@dataclass(frozen=True, eq=False)
class ThinkingTokens:
    """The texts of a `ThinkTemplate` as token ids.

    Attributes:
        max_tokens: the most tokens of text that a request may ask for.
        end: `[n]` int64, at least one.
        after: `[n]` int64.
    """

    max_tokens: int
    end: IntArray
    after: IntArray

    @property
    def most_tokens(self) -> int:
        """The most tokens that a prompt grows by."""
        return self.max_tokens + len(self.end) + len(self.after)


@dataclass(frozen=True)
class ThinkTemplate:
    """How the target writes text before a list.

    Attributes:
        end: text with which it ends, best a token of its own such as `</think>`: of several tokens, only the very same ones are found.
        max_tokens: the most tokens of text that a request may ask for.
        after: text between the end and the list.
        prompt: fields of `prompt.json` that are others for a request that thinks, such as the `after` of a chat.
    """

    end: str
    max_tokens: int = 1024
    after: str = ""
    prompt: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kinds = (type(self.end), type(self.max_tokens), type(self.after), type(self.prompt))
        if kinds != (str, int, str, dict) or not self.end or not 1 <= self.max_tokens <= MOST_TOKENS:
            raise PromptError(
                f"A prompt's think has a text end that is not empty, a text after, an object prompt, and max_tokens, a whole number from 1 "
                f"to {MOST_TOKENS}."
            )
        if "think" in self.prompt:
            raise PromptError("A prompt's think has other fields of the prompt in its prompt, and not think again.")

    @classmethod
    def of(cls, contents: object) -> "ThinkTemplate":
        """The field as JSON has it.

        Raises:
            PromptError: it is something else.
        """
        fields = {"end", "max_tokens", "after", "prompt"}
        if not isinstance(contents, dict) or "end" not in contents or not contents.keys() <= fields:
            raise PromptError(
                f'A prompt\'s think is an object with the fields "end", "max_tokens", "after" and "prompt", got {contents!r}.'
            )
        return cls(**contents)

    def tokens(self, encode: Callable[[str], IntArray]) -> ThinkingTokens:
        """The texts as a tokenizer writes them.

        Raises:
            PromptError: the end would be other tokens with what follows it than without.
        """
        end, whole = encode(self.end), encode(self.end + self.after)
        if not len(end) or not np.array_equal(whole[: len(end)], end):
            raise PromptError(
                f"The tokenizer writes think.end, {self.end!r}, otherwise with {self.after!r} behind it: add it as a token of its own."
            )
        return ThinkingTokens(self.max_tokens, end, whole[len(end) :])
