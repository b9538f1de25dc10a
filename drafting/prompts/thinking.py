"""The field `think` of `prompt.json`: how the target writes text before a list, and where the list begins after it.

Invariant: the end of a text and what follows it are the tokens that the tokenizer makes of both together after other text, as in the text
that a model was trained with: many tokenizers write a text differently at the beginning ("▁</", "</").
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from drafting.array_types import IntArray
from drafting.errors import PromptError

logger = logging.getLogger(__name__)

MOST_TOKENS = 32_768
# What a text may end with before its end: the first of them that keeps its own tokens there.
_BEFORE = ("a", ".", "\n")


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
        end, both = _behind_text(self.end, encode), _behind_text(self.end + self.after, encode)
        if not len(end) or not np.array_equal(both[: len(end)], end):
            raise PromptError(
                f"The tokenizer writes think.end, {self.end!r}, otherwise with {self.after!r} behind it: add it as a token of its own."
            )
        if len(end) > 1:
            logger.warning(
                "The tokenizer writes think.end, %r, as %d tokens: a text ends only where the model writes the very same ones, so it "
                "should be a token of its own.",
                self.end,
                len(end),
            )
        return ThinkingTokens(self.max_tokens, end, both[len(end) :])


def _behind_text(text: str, encode: Callable[[str], IntArray]) -> IntArray:
    """The tokens of a text where it stands behind another one, or at the beginning if it melts into whatever stands before it."""
    for before in _BEFORE:
        first, whole = encode(before), encode(before + text)
        if np.array_equal(whole[: len(first)], first):
            return whole[len(first) :]
    return encode(text)
