"""The control stores under test: one Redis for the whole run, a fresh file, prefix or object for each test."""

import itertools
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from server.control import ControlStore, Limits, open_control_store
from tests.server.conftest import REDIS_FIXTURES

# Opens the store of the test once more, as another replica would, with whatever limits the test gives.
StoreFactory = Callable[..., ControlStore]
_numbers = itertools.count()


@pytest.fixture(params=["memory", "sqlite", "redis", "sentinel", "cluster"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
async def make_store(scheme: str, request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[StoreFactory]:
    opened: list[ControlStore] = []
    prefix = f"control-{next(_numbers)}"

    def make(**limits: float) -> ControlStore:
        if scheme == "memory" and opened:
            # A store in memory is shared by sharing the object.
            return opened[0]
        match scheme:
            case "memory":
                url = "memory://"
            case "sqlite":
                url = f"sqlite:///{tmp_path}/control.db"
            case _:
                url = request.getfixturevalue(REDIS_FIXTURES[scheme]).url
        # A generous timeout: the contract is no test of how busy this machine is.
        opened.append(open_control_store(url, Limits(**({"timeout_seconds": 20.0} | limits)), prefix))
        return opened[-1]

    yield make
    for store in opened:
        await store.close()


@pytest.fixture
def store(make_store: StoreFactory) -> ControlStore:
    """An empty store."""
    return make_store()
