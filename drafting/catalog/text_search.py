"""Search for items by the beginning of their id or by a part of their title, without regard to case.

Invariant: nothing is kept beside the catalog. A search is a few passes of NumPy over the bytes that are there (perhaps in a mapped file),
during which other threads go on, so a new version is searched like any other as soon as it is served.
"""

import json
from collections.abc import Sequence

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import Bytes, TextColumn

_PIECE = 1 << 18
# What a match is, the best first.
_ID, _ID_BEGINS, _TITLE_BEGINS, _WORD_BEGINS, _WITHIN, _NONE = range(6)
# After so many characters few enough places are left to look at them one by one.
_DENSE = 2

_WORD = np.zeros(256, bool)
_WORD[128:] = True
_WORD[list(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")] = True

# For each character of a text its forms in UTF-8, upper and lower case, all of one length.
_Forms = Sequence[Sequence[bytes]]


def find_items(catalog: Catalog, text: str) -> IntArray:
    """The items whose id begins with a text or whose title holds it, `[items]` catalog indices.

    First comes the item of that id, then ids that begin so, titles that do, titles with a word that does, and other titles; each of these
    in the catalog's order.
    """
    kinds = np.full(len(catalog), _NONE, np.uint8)
    if (titles := catalog.attributes.get(TITLE)) is not None:
        # Items without a title have the code -1, the last place.
        kinds = np.append(_title_kinds(titles.values, text), np.uint8(_NONE))[titles.codes]
    kinds[_beginning(catalog.item_ids, _forms(text))] = _ID_BEGINS
    if (same := catalog.index_of(text)) is not None:
        kinds[same] = _ID
    found = np.flatnonzero(kinds != _NONE)
    return found[np.argsort(kinds[found], kind="stable")]


def _forms(text: str) -> _Forms:
    forms = []
    for character in text:
        own = character.encode("utf-8", "surrogatepass")
        cases = {case.encode("utf-8", "surrogatepass") for case in (character.lower(), character.upper())}
        forms.append([own, *(case for case in cases if len(case) == len(own) and case != own)])
    return forms


def _title_kinds(titles: TextColumn, text: str) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    """How well each title, as JSON, matches a text, `[titles]`: one of the kinds above."""
    forms = _forms(json.dumps(text, ensure_ascii=False)[1:-1])
    places = _places(titles.data, forms)
    rows = np.searchsorted(titles.offsets, places, side="right") - 1
    # Between the quotes of a text: other values have none, and no title.
    first = titles.offsets[rows]
    within = (titles.data[first] == ord('"')) & (places > first) & (places + sum(len(form[0]) for form in forms) < titles.offsets[rows + 1])
    places, rows, first = places[within], rows[within], first[within]
    kinds = np.full(len(titles), _NONE, np.uint8)
    kinds[rows] = _WITHIN
    kinds[rows[~_WORD[titles.data[places - 1]]]] = _WORD_BEGINS
    kinds[rows[places == first + 1]] = _TITLE_BEGINS
    return kinds


def _places(data: Bytes, forms: _Forms) -> IntArray:
    """Where in some bytes a text stands, `[places]`, ascending."""
    length = sum(len(form[0]) for form in forms)
    found = [np.empty(0, np.int64)]
    for start in range(0, len(data) - length + 1, _PIECE):
        piece = data[start : start + _PIECE + length - 1]
        count = len(piece) - length + 1
        here, offset = np.ones(count, bool), 0
        for form in forms[:_DENSE]:
            here &= _equal([piece[offset + byte : offset + byte + count] for byte in range(len(form[0]))], form)
            offset += len(form[0])
        found.append(start + _continuing(piece, np.flatnonzero(here), forms[_DENSE:], offset))
    return np.concatenate(found)


def _beginning(texts: TextColumn, forms: _Forms) -> IntArray:
    """The rows that begin with a text, `[rows]`."""
    rows = np.flatnonzero(texts.lengths >= sum(len(form[0]) for form in forms))
    places = _continuing(texts.data, texts.offsets[rows], forms, 0)
    return np.searchsorted(texts.offsets, places, side="right") - 1


def _continuing(data: Bytes, places: IntArray, forms: _Forms, offset: int) -> IntArray:
    """Those of some places from which, `offset` bytes on, the forms stand one behind another."""
    for form in forms:
        places = places[_equal([data[places + offset + byte] for byte in range(len(form[0]))], form)]
        offset += len(form[0])
    return places


def _equal(columns: Sequence[Bytes], form: Sequence[bytes]) -> BoolArray:
    """Where the bytes of a character, a column for each, are one of its forms."""
    found: BoolArray = np.zeros(len(columns[0]), bool)
    for case in form:
        same: BoolArray = columns[0] == case[0]
        for column, byte in zip(columns[1:], case[1:], strict=True):
            same = same & (column == byte)
        found |= same
    return found
