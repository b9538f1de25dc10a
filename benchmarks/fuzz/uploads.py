"""Bodies of uploads, one kind for each media type: catalogs that are right, nearly right, and damaged.

Invariant: every body begins as a catalog of the served model, so that what is refused is refused for what was changed in it. schemathesis
loads this module and draws from these strategies wherever the document names the media type.
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import schemathesis
from hypothesis import strategies as st

from benchmarks.fuzz.catalog import make_catalog, make_quantisation
from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import Catalog

# A few rows are enough to be a catalog, and to be wrong in every way.
_ROWS = 12

Row = dict[str, Any]


def as_parquet(catalog: Catalog) -> bytes:
    """A catalog as a parquet file."""
    return make_parquet([{"item_id": name, "identifier": list(catalog.identifier(row))} for row, name in enumerate(catalog.item_ids)])


def _artefact(catalog: Catalog) -> bytes:
    with tempfile.TemporaryDirectory(prefix="atspeed-fuzz-") as folder:
        save_artefact(catalog, path := Path(folder) / "version.catalog")
        return path.read_bytes()


def make_parquet(rows: list[Row]) -> bytes:
    """Rows as a parquet file."""
    sink = pa.BufferOutputStream()
    # As texts: Arrow has neither a struct without members nor integers of any size.
    plain = [row | {"attributes": json.dumps(row["attributes"])} if "attributes" in row else row for row in rows]
    pq.write_table(pa.Table.from_pylist(plain), sink)
    return bytes(sink.getvalue())


def _lines(rows: list[Row]) -> bytes:
    return "".join(f"{json.dumps(row)}\n" for row in rows).encode()


def _index(rows: list[Row]) -> bytes:
    return json.dumps({str(row.get("item_id")): row.get("identifier") for row in rows}).encode()


def _info(rows: list[Row]) -> bytes:
    """Lines of identifier, title and item id, as far as the rows' fields are texts."""
    fields = ((row.get("identifier"), row.get("title", ""), row.get("item_id")) for row in rows)
    lines = (
        "\t".join(["".join(map(str, codes)) if isinstance(codes, list) else str(codes), str(title), str(name)])
        for codes, title, name in fields
    )
    return "\n".join(lines).encode(errors="surrogatepass")


IDENTIFIERS = make_quantisation().identifiers()
WHOLE = _artefact(make_catalog(IDENTIFIERS[:_ROWS]))

rows = st.lists(
    st.fixed_dictionaries(
        {"item_id": st.integers(1, 10**6).map(str), "identifier": st.sampled_from(IDENTIFIERS).map(list)},
        optional={"title": st.text(max_size=20), "attributes": st.dictionaries(st.text(max_size=10), st.integers(), max_size=3)},
    ),
    min_size=1,
    max_size=_ROWS,
)
scalars = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.just("\ud800"))
# Column types differ from row to row only where JSON allows it; parquet has one type a column.
odd_values = st.one_of(scalars, st.lists(scalars, max_size=4), st.dictionaries(st.text(max_size=5), scalars, max_size=3))


@st.composite
def _odd_rows(draw: st.DrawFn) -> list[Row]:
    """Rows of which one field is something else in one of them."""
    made = draw(rows)
    field = draw(st.sampled_from(["item_id", "identifier", "title", "attributes"]))
    draw(st.sampled_from(made))[field] = draw(odd_values)
    return made


@st.composite
def _odd_columns(draw: st.DrawFn) -> list[Row]:
    """Rows of which one field is of another type in all of them."""
    made, field = draw(rows), draw(st.sampled_from(["item_id", "identifier", "title", "codes"]))
    kind: st.SearchStrategy[Any] = draw(
        st.sampled_from([st.integers(-5, 5), st.floats(), st.lists(st.integers(-5, 300), min_size=3, max_size=3), st.binary(max_size=5)])
    )
    for row in made:
        row[field] = draw(kind)
    return made


@st.composite
def _damaged(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """A body that was cut off, or of which some bytes are others."""
    body = bytearray(draw(bodies))
    if draw(st.booleans()):
        return bytes(body[: draw(st.integers(0, len(body)))])
    for _ in range(draw(st.integers(1, 8))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.integers(0, 255))
    return bytes(body)


def _all_kinds(right: st.SearchStrategy[bytes], odd: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    return st.one_of(right, odd, _damaged(right), st.binary(max_size=200))


BODIES = {
    "application/x-ndjson": _all_kinds(rows.map(_lines), _odd_rows().map(_lines)),
    "application/vnd.apache.parquet": _all_kinds(rows.map(make_parquet), _odd_columns().map(make_parquet)),
    "application/vnd.atspeed.index+json": _all_kinds(rows.map(_index), _odd_rows().map(_index)),
    "text/tab-separated-values": _all_kinds(rows.map(_info), _odd_rows().map(_info)),
    "application/octet-stream": _all_kinds(st.just(WHOLE), _damaged(st.just(WHOLE))),
}
for media_type, bodies in BODIES.items():
    schemathesis.openapi.media_type(media_type, bodies)
