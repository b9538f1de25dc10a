"""What the clients add to raw httpx is measured for both of them."""

from benchmarks.client import measure, table


def test_both_clients_are_timed_beside_raw_httpx() -> None:
    overheads = measure(requests=5, k=3)
    assert [each.name for each in overheads] == ["AtspeedClient", "AsyncAtspeedClient"]
    assert all(each.raw > 0 and each.client > 0 for each in overheads)
    assert len(table(overheads).splitlines()) == 3
