"""Items from JSON: an index `{item: identifier}`, or JSONL with an item a line.

Invariant: a line that is no item is refused with its number, and a key that is repeated gives both of its items, so that the repetition is
noticed.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from drafting.catalog.attributes import TITLE
from drafting.catalog.catalog import CatalogError
from drafting.catalog.forms import taken_for_lines
from drafting.catalog.json_values import MAX_ATTRIBUTES, check_attributes, too_many, untellable
from drafting.catalog.pattern import IdentifierTexts
from drafting.errors import quoted
from drafting.undecodable import UNDECODABLE

_FORM = '{"item_id": "…", "identifier": ["…", …]}'


class ItemLine(msgspec.Struct):
    """An item with its identifier: tokens, one text of tokens, or integer codes under a name of their own."""

    item_id: str | int
    identifier: list[str] | str = []
    codes: list[int] = []
    title: str | None = None
    attributes: dict[str, Any] = {}

    @property
    def name(self) -> str:
        """The item id as a text."""
        return str(self.item_id)

    @property
    def kind(self) -> str:
        """How its identifier is written."""
        if isinstance(self.identifier, str):
            return "one text each"
        return "lists of whole numbers" if self.codes else "lists of tokens"

    def tokens(self, texts: IdentifierTexts) -> list[str]:
        """The tokens of its identifier; `texts` reads the texts and codes of the catalog.

        Raises:
            CatalogError: as `IdentifierTexts.tokens`, or a code is below 0.
        """
        if isinstance(self.identifier, str):
            return texts.tokens(self.name, self.identifier)
        return texts.pattern.tokens(self.codes) if self.codes else self.identifier


def index_lines(path: Path) -> Iterator[ItemLine]:
    """The items of an index.

    Raises:
        CatalogError: the file is no index.
    """
    data = path.read_bytes()
    try:
        # As pairs, because a dictionary would silently keep the last of two equal keys.
        pairs = json.loads(data, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        hint = " If it has an item a line, call it .jsonl." if str(error).startswith("Extra data") else ""
        raise CatalogError(f"The catalog {path} is not JSON: {error}.{hint}") from error
    refusal = CatalogError(f"The catalog {path} is not an index of the form {{item: [token, …]}}.")
    if not data.lstrip().startswith(b"{"):
        raise refusal
    for item, identifier in pairs:
        if reason := untellable(item):
            raise CatalogError(f"The item {quoted(item)} of the catalog {path} {reason}.")
        integers = isinstance(identifier, list) and identifier and isinstance(identifier[0], int)
        try:
            yield msgspec.convert({"item_id": item, "codes" if integers else "identifier": identifier}, ItemLine)
        except msgspec.ValidationError as error:
            raise refusal from error


def json_lines(path: Path) -> Iterator[ItemLine]:
    """The items of JSONL.

    Raises:
        CatalogError: a line is no item.
    """
    decoder = msgspec.json.Decoder(ItemLine)
    names: set[str] = set()
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = decoder.decode(text)
            except UNDECODABLE as error:
                wanted = f"an item of the form {_FORM}" if isinstance(error, msgspec.ValidationError) else "JSON"
                hint = taken_for_lines(path) if number == 1 else ""
                raise CatalogError(f"Line {number} of the catalog {path} is not {wanted}: {error}.{hint}") from error
            if not line.identifier and not line.codes:
                reason = f"Item {line.name!r} has no identifier, or an empty one: `atspeed catalog build` makes identifiers for items."
                raise CatalogError(f"Line {number} of the catalog {path} can't be used. {reason}")
            if line.identifier and line.codes:
                reason = f"Item {line.name!r} has an identifier and codes, either of which is one: leave the other out."
                raise CatalogError(f"Line {number} of the catalog {path} can't be used. {reason}")
            if TITLE in line.attributes:
                raise CatalogError(f"Line {number} of the catalog {path} has a title among its attributes: put it beside item_id.")
            names.update(line.attributes)
            if len(names) > MAX_ATTRIBUTES:
                raise CatalogError(f"Line {number} of the catalog {path} has one name of attributes too many. {too_many(len(names))}")
            try:
                check_attributes(line.name, {TITLE: line.title, **line.attributes})
            except ValueError as error:
                raise CatalogError(f"Line {number} of the catalog {path} can't be used. {error}") from error
            yield line
