"""A user who comes back, on a real server. No time of a shared machine is asserted."""

from benchmarks.load.returning import measure_returning
from drafting.catalog.catalog import Catalog
from tests.server.server_process import ServerProcess


def test_only_what_is_new_is_computed(server: ServerProcess, catalog: Catalog):
    with server.api() as api:
        found = measure_returning(api, list(catalog.item_ids), users=4, k=2, length=3)
    item = catalog.identifier_length
    assert found.users == 4
    assert 3 * item <= found.first_computed < found.prompt_tokens == 4 * item + 1, "what all prompts begin with may be cached"
    assert item <= found.second_computed <= item + 1
    assert found.computed_share == found.second_computed / found.first_computed
    assert found.first_ms > 0 < found.second_ms
