"""Reading a catalog from a file, whatever its form (`forms.py`), with identifiers as tokens, as one text or as integers.

Invariant: the same items give the same catalog and version from every form. A file that is not a catalog is refused with the line and the
reason. The forms, and the models that use them: docs/catalogs.md and docs/formats.
"""

import logging
from collections.abc import Callable
from itertools import chain, islice
from pathlib import Path

from drafting.catalog.artefact import load_artefact
from drafting.catalog.attributes import TITLE
from drafting.catalog.builder import CatalogBuilder
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.code_matrix import MatrixItems, read_matrix
from drafting.catalog.forms import CatalogForm, form_of
from drafting.catalog.info_file import info_lines
from drafting.catalog.json_files import index_lines, json_lines
from drafting.catalog.limits import UNLIMITED, ReadLimits
from drafting.catalog.parquet import read_parquet
from drafting.catalog.pattern import DEFAULT_PATTERN, IdentifierTexts, TokenPattern
from drafting.catalog.reading import Reading
from drafting.errors import check_file

logger = logging.getLogger(__name__)

_LINES_AT_ONCE = 50_000
_LINES_OF = {CatalogForm.INDEX: index_lines, CatalogForm.LINES: json_lines, CatalogForm.INFO: info_lines}


def load_catalog(
    path: Path,
    pattern: str = DEFAULT_PATTERN,
    on_items: Callable[[int], object] = lambda _: None,
    *,
    check: bool = False,
    limits: ReadLimits = UNLIMITED,
    matrix: MatrixItems | None = None,
    on_form: Callable[[str], object] | None = None,
) -> Catalog:
    """Read a catalog: an artefact, an index, JSONL, MiniOneRec's info file, parquet or a matrix of codes (see `CatalogForm`).

    An identifier is a list of tokens, one text of tokens such as `<|sid_begin|><s_a_3><s_b_9><|sid_end|>` or `C3C9`, or integers: a list
    (in JSONL and parquet under the name `codes`), a text such as `3-9`, or the row or column of a matrix.

    Args:
        pattern: text of the token of an integer code, see `TokenPattern`.
        on_items: called with the number of items of each batch that has been read.
        check: do not believe an artefact, see `load_artefact`; all other forms are checked as they are read.
        limits: how much it may be.
        matrix: what a matrix does not say of its items.
        on_form: called with a sentence's part about each thing that has been found; by default it is logged.

    Raises:
        CatalogError: the file is missing or malformed, or its contents are not a catalog.
    """
    tell = on_form or (lambda found: logger.info("The catalog %s is %s.", path, found))
    reading = Reading(TokenPattern(pattern), limits, on_items, tell)
    check_file(path, "The catalog", CatalogError)
    form = form_of(path)
    if form is not CatalogForm.MATRIX and matrix is not None and matrix != MatrixItems():
        raise CatalogError(f"{path} is {form.value}, which says itself which items it has: that is asked of a matrix of codes alone.")
    match form:
        case CatalogForm.ARTEFACT:
            catalog = load_artefact(path, check=check)
            limits.check_items(len(catalog))
            tell(form.value)
            return catalog
        case CatalogForm.PARQUET:
            return read_parquet(path, reading)
        case CatalogForm.MATRIX:
            return read_matrix(path, reading, matrix or MatrixItems())
    return _read_lines(path, form, reading)


def _read_lines(path: Path, form: CatalogForm, reading: Reading) -> Catalog:
    builder, texts = CatalogBuilder(reading.limits), IdentifierTexts(reading.pattern)
    try:
        source = _LINES_OF[form](path)
        if (first := next(source, None)) is not None:
            reading.on_form(f"{form.value}, with identifiers as {first.kind}")
            source = chain([first], source)
        while lines := list(islice(source, _LINES_AT_ONCE)):
            names = dict.fromkeys(name for line in lines for name in line.attributes)
            attributes = {name: [line.attributes.get(name) for line in lines] for name in names}
            attributes[TITLE] = [line.title for line in lines]
            builder.add([line.name for line in lines], [line.tokens(texts) for line in lines], attributes)
            reading.on_items(len(lines))
    except OSError as error:
        raise CatalogError(f"The catalog {path} cannot be read: {error.strerror}.") from error
    if (left_out := texts.left_out) is not None:
        reading.on_form(left_out)
    return builder.catalog()
