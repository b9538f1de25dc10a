"""The identifiers of a catalog's items as token ids of one model."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.tokenizer import PromptTokenizer

_ROWS_AT_ONCE = 2**16


@dataclass(frozen=True, eq=False)
class IdentifierTokens:
    """The identifiers of a catalog as token ids, without a copy of the catalog.

    Attributes:
        codes: `[items, length]`, codes of the catalog.
        token_ids: `[codes]` int64, token id of each code.
    """

    codes: npt.NDArray[np.unsignedinteger]
    token_ids: IntArray

    @classmethod
    def of(cls, catalog: Catalog, tokenizer: PromptTokenizer) -> "IdentifierTokens":
        """The identifiers of a catalog in the tokens of a tokenizer.

        Raises:
            CatalogError: the tokenizer lacks one of them.
        """
        return cls(catalog.codes, catalog.vocabulary_ids(tokenizer.ids_of(catalog.tokens)))

    def __getitem__(self, items: IntArray) -> IntArray:
        """The token ids of items, `[items, length]`."""
        tokens: IntArray = self.token_ids[self.codes[items]]
        return tokens


def covering_items(catalog: Catalog) -> IntArray:
    """Few items that have every code at every level of the catalog where any item has it, `[items]` in ascending order."""
    codes = catalog.codes
    first = np.full((codes.shape[1], len(catalog.tokens)), -1)
    # The last write to a place stays, so written from the end on, what stays is the first item that has the code.
    for start in range(0, len(codes), _ROWS_AT_ONCE)[::-1]:
        rows = np.arange(start, min(len(codes), start + _ROWS_AT_ONCE))[::-1]
        for level in range(codes.shape[1]):
            first[level, codes[rows, level]] = rows
    return np.unique(first[first >= 0])


def check_codes(catalog: Catalog, identifiers: IdentifierTokens, items: IntArray, tokens: IntArray) -> None:
    """Check that the tokens of a text hold all codes of the items that it names.

    Raises:
        PromptError: one of them is cut up.
    """
    codes, needed = np.unique(catalog.codes[items], return_counts=True)
    tokens, ids = np.sort(tokens), identifiers.token_ids[codes]
    found = np.searchsorted(tokens, ids, "right") - np.searchsorted(tokens, ids, "left")
    for code in codes[found < needed].tolist():
        raise PromptError(
            f"The tokenizer cuts the code {catalog.tokens[code]!r} up in the text of a prompt, so the model never reads it: add "
            "the codes to the tokenizer as tokens of their own, as AddedToken(code, normalized=False) does."
        )
