"""Values of columns of details as Arrow columns and back; of a batch only the different ones become Python objects.

Invariant: a value that is written is read with its type. An Arrow column has one type, so numbers some of which are whole, and values of
several types, are written as texts of JSON; the metadata of the column's field says so.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from drafting.alignment.data.columns import MISSING, Column, ColumnBuilder
from drafting.catalog.json_values import json_text
from drafting.errors import InteractionError

_AS_JSON: Mapping[bytes, bytes] = {b"atspeed.values": b"json"}


def add_values(builder: ColumnBuilder, row: int, column: Any, metadata: Mapping[bytes, bytes] | None = None) -> None:
    """Add an Arrow array to a column, for the rows from `row` on.

    Args:
        metadata: of the field that the array comes from.

    Raises:
        InteractionError: a value is no text, number, boolean or list of these, or no JSON although the metadata says so.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_nested(column.type):
        builder.extend(row, np.arange(len(column)), column.to_pylist())
        return
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    values = encoded.dictionary.to_pylist()
    if _AS_JSON.items() <= (metadata or {}).items():
        try:
            values = list(map(json.loads, values))
        except ValueError as error:
            raise InteractionError(f"A column of values that are written as JSON holds something else: {error}.") from error
    builder.extend(row, encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False), values)


def arrow_values(column: Column) -> tuple[Any, Mapping[bytes, bytes] | None]:
    """The different values of a column as an Arrow array, and the metadata that its field needs."""
    import pyarrow as pa

    if len({type(value) for value in column.values}) <= 1:
        # Arrow has no type for integers beyond 64 bits, and takes none beyond 63 without being told the type.
        with suppress(OverflowError):
            return pa.array(column.values), None
    return pa.array(map(json_text, column.values), pa.large_string()), _AS_JSON
