"""Values of Arrow columns, of which only the different ones of a batch become Python objects."""

from typing import Any

import numpy as np

from drafting.alignment.data.columns import MISSING, ColumnBuilder


def add_values(builder: ColumnBuilder, row: int, column: Any) -> None:
    """Add an Arrow array to a column, for the rows from `row` on.

    Raises:
        InteractionError: a value is no text, number, boolean or list of these.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_nested(column.type):
        builder.extend(row, np.arange(len(column)), column.to_pylist())
        return
    encoded = column if pa.types.is_dictionary(column.type) else pc.dictionary_encode(column)
    builder.extend(row, encoded.indices.fill_null(MISSING).to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist())
