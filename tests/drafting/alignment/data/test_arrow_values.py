"""Values of details that go through a parquet file come back with their types."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.alignment.data.arrow_values import add_values, arrow_values
from drafting.alignment.data.columns import Column, ColumnBuilder
from drafting.errors import InteractionError
from drafting.prompts.user_state import Value


@pytest.mark.parametrize("values", [(5, 4.5), (5, "5", True, 1.0), (1, 2), ("a", "b"), (2**64 - 1, 3), ()], ids=repr)
def test_values_come_back_with_their_types(tmp_path: Path, values: tuple[Value, ...]) -> None:
    codes = np.array([*range(len(values)), -1, *range(len(values))], np.int32)
    array, metadata = arrow_values(Column(codes, values))
    column = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), array)
    pq.write_table(pa.table([column], pa.schema([pa.field("price", column.type, metadata=metadata)])), tmp_path / "file")
    read = pq.read_table(tmp_path / "file")
    builder = ColumnBuilder("price")
    add_values(builder, 0, read.column("price").combine_chunks(), read.schema.field("price").metadata)
    found = builder.column(len(codes))
    assert [repr(found[row]) for row in range(len(codes))] == [repr(value) for value in (*values, None, *values)]


def test_texts_that_are_no_json_although_the_metadata_says_so_are_refused() -> None:
    _, metadata = arrow_values(Column(np.arange(2, dtype=np.int32), (5, 4.5)))
    with pytest.raises(InteractionError, match="written as JSON holds something else"):
        add_values(ColumnBuilder("price"), 0, pa.array(["{"]), metadata)
