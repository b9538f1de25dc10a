"""Tokens of identifiers: patterns that turn integer codes into tokens, and splitting of identifiers that are written as one text.

Invariant: a pattern gives different codes of a level different tokens.
"""

import re
import string
from collections.abc import Sequence
from typing import NamedTuple

from drafting.catalog.catalog import CatalogError

DEFAULT_PATTERN = "<{letter}_{code}>"

_TOKEN = re.compile(r"<[^<>]*>")
_BRACKET = re.compile(r"<\|.*(begin|start|end)\|>")
# Letters and a number, as FORGE writes its tokens: C1989C14585C22548. One alone may as well be a name.
_BARE = re.compile(r"[A-Za-z]+_?[0-9]{1,15}")
# Whole numbers with something between them, in parentheses or not: 3-17-200, (3, 17, 200).
_NUMBERS = re.compile(r"[(\[]?([0-9]{1,15}(?:(?:, ?|[ _-])[0-9]{1,15})+)[)\]]?")


class TokenPattern:
    """A pattern of tokens: text with the field `{code}`, and `{letter}` (a, b, … by level) or `{level}` (1, 2, …)."""

    def __init__(self, pattern: str = DEFAULT_PATTERN) -> None:
        """
        Raises:
            CatalogError: the pattern has other fields, or no `{code}`.
        """
        try:
            fields = {name for _, name, _, _ in string.Formatter().parse(pattern) if name is not None}
        except ValueError as error:
            raise CatalogError(f"The token pattern {pattern!r} is malformed: {error}.") from error
        if "code" not in fields or fields - {"code", "letter", "level"}:
            raise CatalogError(f"A token pattern holds {{code}} and at most {{letter}} and {{level}} besides, got {pattern!r}.")
        self._pattern = pattern

    def tokens(self, codes: Sequence[int]) -> list[str]:
        """The tokens of the integer codes of one identifier; raises what `token` does."""
        return [self.token(level, code) for level, code in enumerate(codes)]

    def token(self, level: int, code: int) -> str:
        """The token of a code; levels count from 0.

        Raises:
            CatalogError: the code is below 0, as -1 where shorter identifiers are filled up, which no item has.
        """
        if code < 0:
            raise CatalogError(f"An identifier has the code {code}: codes count from 0, and all identifiers have as many.")
        return self._pattern.format(code=code, level=level + 1, letter=string.ascii_lowercase[level % 26])


class SplitText(NamedTuple):
    """An identifier that was written as one text.

    Attributes:
        tokens: those of the identifier.
        around: the begin and the end token that stood around them, "" for none.
    """

    tokens: list[str]
    around: tuple[str, str]


class IdentifierTexts:
    """Reads the identifiers of one catalog that are written as texts: tokens, or integer codes with something between them.

    Invariant: begin and end tokens are left out of identifiers, so they are the same around all of them: items that only these tell apart
    would become one.

    Attributes:
        pattern: makes tokens of integer codes.
    """

    def __init__(self, pattern: TokenPattern) -> None:
        self.pattern = pattern
        # The first item, and the tokens around its identifier.
        self._first: tuple[str, tuple[str, str]] | None = None

    def tokens(self, item_id: str, identifier: str) -> list[str]:
        """The tokens of an item's identifier.

        Raises:
            CatalogError: the text is neither tokens nor codes, or has other begin and end tokens than those before.
        """
        if numbers := _NUMBERS.fullmatch(identifier.strip()):
            return self.pattern.tokens([int(number) for number in re.findall("[0-9]+", numbers[1])])
        split = split_identifier(identifier)
        if split is None or not split.tokens:
            raise CatalogError(f"The identifier of item {item_id!r} is not a row of tokens such as <a_1><b_2>, got {identifier!r}.")
        first_item, around = self._first = self._first or (item_id, split.around)
        if split.around != around:
            raise CatalogError(
                f"The identifier of item {item_id!r} has {_named(split.around)}, and that of item {first_item!r} has {_named(around)}: "
                "these are left out of identifiers, so they must be the same for all items. Write identifiers as lists of tokens, of which "
                "none is left out, or make a catalog of each kind."
            )
        return split.tokens

    @property
    def left_out(self) -> str | None:
        """What has been left out, as a sentence goes on after "The catalog is"; None if nothing has."""
        if self._first is None or not any(self._first[1]):
            return None
        return f"read without {_named(self._first[1])} of its identifiers, which the prompt has to write"


def _named(around: tuple[str, str]) -> str:
    named = [f"the {place} token {token}" for place, token in zip(("begin", "end"), around, strict=True) if token]
    return " and ".join(named) or "no begin and end tokens"


def split_identifier(text: str) -> SplitText | None:
    """An identifier written as one text, without begin and end tokens around it; None if the text is not made of tokens."""
    for form, fewest in ((_TOKEN, 1), (_BARE, 2)):
        tokens = form.findall(text)
        if len(tokens) >= fewest and "".join(tokens) == text.strip():
            break
    else:
        return None
    begin, end = (token if _BRACKET.fullmatch(token) else "" for token in (tokens[0], tokens[-1]))
    inside = tokens[bool(begin) : len(tokens) - bool(end)]
    return None if any(_BRACKET.fullmatch(token) for token in inside) else SplitText(inside, (begin, end))
