"""The stores under test: one Redis for the whole run, a fresh file, prefix or object for each test."""

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from server.histories import HistoryStore, open_history_store
from tests.server.conftest import REDIS_FIXTURES

StoreFactory = Callable[..., HistoryStore]
_numbers = itertools.count()


@pytest.fixture(params=["memory", "sqlite", "redis", "sentinel", "cluster"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_store(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> StoreFactory:
    """Opens empty stores, but at a place that is named again, with any options of `open_history_store`; the test closes them."""

    def make(place: str | None = None, **options: object) -> HistoryStore:
        number = place or next(_numbers)
        match scheme:
            case "sqlite":
                return open_history_store(f"sqlite:///{tmp_path}/histories-{number}.db", **options)
            case "redis" | "sentinel" | "cluster":
                # A generous timeout: the contract is no test of how busy this machine is.
                defaults = {"timeout_seconds": 10.0, "key_prefix": f"test-{number}"}
                return open_history_store(request.getfixturevalue(REDIS_FIXTURES[scheme]).url, **(defaults | options))
            case _:
                return open_history_store("memory://", **options)

    return make


@pytest.fixture
async def store(make_store: StoreFactory) -> AsyncIterator[HistoryStore]:
    """An empty store that shows at most five events a user."""
    opened = make_store(max_events=5)
    yield opened
    await opened.close()
