"""Bodies of uploads: catalogs before they are damaged, and one kind for each form that the server takes."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import Phase, find, settings
from hypothesis import strategies as st

from benchmarks.fuzz.uploads import BODIES, make_parquet
from drafting.catalog.catalog import CatalogError
from drafting.catalog.loading import load_catalog
from server.schemas.catalogs import UPLOAD_FORMS

# Any one, and not the smallest of them, for which thousands are tried.
ANY = settings(max_examples=2000, phases=[Phase.generate], database=None)


def is_catalog(body: bytes, suffix: str) -> bool:
    with tempfile.NamedTemporaryFile(suffix=suffix) as file:
        file.write(body)
        file.flush()
        try:
            return len(load_catalog(Path(file.name))) > 0
        except CatalogError:
            return False


def test_there_are_bodies_for_every_form():
    assert set(BODIES) == set(UPLOAD_FORMS)


@pytest.mark.parametrize("media_type", BODIES)
def test_some_are_catalogs_and_some_are_none(media_type: str):
    bodies: st.SearchStrategy[bytes] = BODIES[media_type]
    assert find(bodies, lambda body: is_catalog(body, UPLOAD_FORMS[media_type]), settings=ANY)
    assert find(bodies, lambda body: len(body) > 40 and not is_catalog(body, UPLOAD_FORMS[media_type]), settings=ANY)


def test_parquet_holds_attributes_that_arrow_has_no_type_for():
    rows = [{"item_id": name, "identifier": ["<a_1>"], "attributes": found} for name, found in {"1": {}, "2": {"x": 10**40}}.items()]
    assert is_catalog(make_parquet(rows), ".parquet")
