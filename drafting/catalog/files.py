"""Catalogs as users have them: index JSON, JSONL and parquet, with identifiers as tokens, as one text or as integer tuples.

Invariant: whatever the form, the same items give the same catalog, version included; and a file that is no catalog is refused with the
place and the reason, before anything is made of it. Formats and the models that come with them: docs/formats.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from drafting.catalog.attributes import TITLE
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.pattern import DEFAULT_PATTERN, TokenPattern, split_identifier

_LINES_AT_ONCE = 50_000
_FORM = '{"item_id": "…", "identifier": ["…", …]}'

Identifier = list[str] | str
Progress = Callable[[int], None]
T = TypeVar("T")


class ItemLine(msgspec.Struct):
    """One line of a JSONL catalog: an item with an identifier, or with the codes of one."""

    item_id: str
    identifier: Identifier = []
    codes: list[int] = []
    title: str | None = None
    attributes: dict[str, Any] = {}


def read_catalog(path: Path, pattern: str = DEFAULT_PATTERN, on_items: Progress = lambda _: None) -> Catalog:
    """Read an index of the form `{item: identifier}` from a `.json` file, parquet from `.parquet`, anything else as JSONL.

    An identifier is a list of tokens, one text of tokens such as `<|sid_begin|><s_a_3><s_b_9><|sid_end|>`, or a list of integers, which
    JSONL and parquet call `codes`.

    Args:
        pattern: how integers become tokens, see `TokenPattern`.
        on_items: called with how many more items have been read.

    Raises:
        CatalogError: the file is missing or malformed, or its contents are no catalog.
    """
    tokens = TokenPattern(pattern)
    try:
        if path.suffix == ".parquet":
            from drafting.catalog.parquet import read_parquet

            return read_parquet(path, tokens, on_items)
        builder = CatalogBuilder()
        lines = _index_lines(path) if path.suffix == ".json" else _json_lines(path)
        for some in _batches(lines, _LINES_AT_ONCE):
            names = dict.fromkeys(name for line in some for name in line.attributes)
            attributes = {name: [line.attributes.get(name) for line in some] for name in names}
            if any(line.title is not None for line in some):
                attributes[TITLE] = [line.title for line in some]
            builder.add([line.item_id for line in some], [_tokens(line, tokens) for line in some], attributes)
            on_items(len(some))
        return builder.catalog()
    except OSError as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error


def _tokens(line: ItemLine, pattern: TokenPattern) -> Sequence[str]:
    identifier = line.identifier
    if isinstance(identifier, str):
        split = split_identifier(identifier)
        if not split:
            raise CatalogError(f"The identifier of item {line.item_id!r} is not a row of tokens such as <a_1><b_2>, got {identifier!r}.")
        return split
    return pattern.tokens(line.codes) if line.codes else identifier


def _batches(lines: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(islice(lines, size)):
        yield batch


def _index_lines(path: Path) -> Iterator[ItemLine]:
    data = path.read_bytes()
    try:
        # As pairs, because a plain dictionary would keep the last of two equal keys and say nothing.
        pairs = json.loads(data, object_pairs_hook=list)
    except ValueError as error:
        raise CatalogError(f"The catalog {path} is not JSON: {error}.") from error
    refusal = CatalogError(f"The catalog {path} is not an index of the form {{item: [token, …]}}.")
    if not data.lstrip().startswith(b"{"):
        raise refusal
    for item, identifier in pairs:
        integers = isinstance(identifier, list) and identifier and isinstance(identifier[0], int)
        try:
            line = {"item_id": item, "codes" if integers else "identifier": identifier}
            yield msgspec.convert(line, ItemLine)
        except msgspec.ValidationError as error:
            raise refusal from error


def _json_lines(path: Path) -> Iterator[ItemLine]:
    decoder = msgspec.json.Decoder(ItemLine)
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = decoder.decode(text)
            except msgspec.ValidationError as error:
                raise CatalogError(f"Line {number} of the catalog {path} is not an item of the form {_FORM}: {error}.") from error
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise CatalogError(f"Line {number} of the catalog {path} is not JSON: {error}.") from error
            if TITLE in line.attributes:
                raise CatalogError(f"Line {number} of the catalog {path} has a title among its attributes: put it beside item_id.")
            yield line
