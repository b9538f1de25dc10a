"""Reading a catalog from a file: an artefact, index JSON, JSONL or parquet, with identifiers as tokens, as one text or as integers.

Invariant: the same items give the same catalog and version from every format. A file that is not a catalog is refused with the line and the
reason. The formats, and the models that use them: docs/formats.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from drafting.catalog.artefact import SUFFIX, load_artefact
from drafting.catalog.attributes import TITLE
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.json_values import MAX_ATTRIBUTES, check_attributes, shown, too_many, untellable
from drafting.catalog.limits import UNLIMITED, ReadLimits
from drafting.catalog.parquet import read_parquet
from drafting.catalog.pattern import DEFAULT_PATTERN, TokenPattern, text_tokens
from drafting.errors import check_file

_LINES_AT_ONCE = 50_000
_FORM = '{"item_id": "…", "identifier": ["…", …]}'


class ItemLine(msgspec.Struct):
    """One line of a JSONL catalog: an item with the tokens of its identifier, or with integer codes."""

    item_id: str
    identifier: list[str] | str = []
    codes: list[int] = []
    title: str | None = None
    attributes: dict[str, Any] = {}


def load_catalog(
    path: Path,
    pattern: str = DEFAULT_PATTERN,
    on_items: Callable[[int], None] = lambda _: None,
    *,
    check: bool = False,
    limits: ReadLimits = UNLIMITED,
) -> Catalog:
    """Read a catalog: an artefact (`.catalog`), an index `{item: identifier}` (`.json`), parquet (`.parquet`), anything else as JSONL.

    An identifier is a list of tokens, one text of tokens such as `<|sid_begin|><s_a_3><s_b_9><|sid_end|>`, or a list of integers (in JSONL
    and parquet under the name `codes`).

    Args:
        pattern: text of the token of an integer code, see `TokenPattern`.
        on_items: called with the number of items of each batch that has been read.
        check: do not believe an artefact, see `load_artefact`; all other formats are checked as they are read.
        limits: how much it may be.

    Raises:
        CatalogError: the file is missing or malformed, or its contents are not a catalog.
    """
    tokens = TokenPattern(pattern)
    check_file(path, "The catalog", CatalogError)
    if path.suffix == SUFFIX:
        catalog = load_artefact(path, check=check)
        limits.check_items(len(catalog))
        return catalog
    if path.suffix == ".parquet":
        return read_parquet(path, tokens, on_items, limits)
    builder = CatalogBuilder(limits)
    try:
        source = _index_lines(path) if path.suffix == ".json" else _json_lines(path)
        while lines := list(islice(source, _LINES_AT_ONCE)):
            names = dict.fromkeys(name for line in lines for name in line.attributes)
            attributes = {name: [line.attributes.get(name) for line in lines] for name in names}
            attributes[TITLE] = [line.title for line in lines]
            builder.add([line.item_id for line in lines], [_tokens(line, tokens) for line in lines], attributes)
            on_items(len(lines))
    except OSError as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    return builder.catalog()


def _tokens(line: ItemLine, pattern: TokenPattern) -> Sequence[str]:
    identifier = line.identifier
    if isinstance(identifier, str):
        return text_tokens(line.item_id, identifier)
    return pattern.tokens(line.codes) if line.codes else identifier


def _index_lines(path: Path) -> Iterator[ItemLine]:
    data = path.read_bytes()
    try:
        # As pairs, because a dictionary would silently keep the last of two equal keys.
        pairs = json.loads(data, object_pairs_hook=list)
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"The catalog {path} is not JSON: {error}.") from error
    refusal = CatalogError(f"The catalog {path} is not an index of the form {{item: [token, …]}}.")
    if not data.lstrip().startswith(b"{"):
        raise refusal
    for item, identifier in pairs:
        if reason := untellable(item):
            raise CatalogError(f"The item {shown(item)} of the catalog {path} {reason}.")
        integers = isinstance(identifier, list) and identifier and isinstance(identifier[0], int)
        try:
            yield msgspec.convert({"item_id": item, "codes" if integers else "identifier": identifier}, ItemLine)
        except msgspec.ValidationError as error:
            raise refusal from error


def _json_lines(path: Path) -> Iterator[ItemLine]:
    decoder = msgspec.json.Decoder(ItemLine)
    names: set[str] = set()
    with path.open("rb") as file:
        for number, text in enumerate(file, start=1):
            if not text.strip():
                continue
            try:
                line = decoder.decode(text)
            except msgspec.ValidationError as error:
                raise CatalogError(f"Line {number} of the catalog {path} is not an item of the form {_FORM}: {error}.") from error
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                raise CatalogError(f"Line {number} of the catalog {path} is not JSON: {error}.") from error
            if TITLE in line.attributes:
                raise CatalogError(f"Line {number} of the catalog {path} has a title among its attributes: put it beside item_id.")
            names.update(line.attributes)
            if len(names) > MAX_ATTRIBUTES:
                raise CatalogError(f"Line {number} of the catalog {path} has one name of attributes too many. {too_many(len(names))}")
            try:
                check_attributes(line.item_id, {TITLE: line.title, **line.attributes})
            except ValueError as error:
                raise CatalogError(f"Line {number} of the catalog {path} can't be used. {error}") from error
            yield line
