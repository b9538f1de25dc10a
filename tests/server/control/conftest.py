"""The control stores under test: a fresh one for each test."""

from collections.abc import AsyncIterator, Callable

import pytest

from server.control import ControlStore, Limits, open_control_store

# Opens the store of the test, with whatever limits the test gives, as another replica would.
StoreFactory = Callable[..., ControlStore]


@pytest.fixture(params=["memory"])
def scheme(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_store(scheme: str) -> StoreFactory:
    opened: list[ControlStore] = []

    def make(**limits: float) -> ControlStore:
        # A store in memory is shared by sharing the object.
        if not opened:
            opened.append(open_control_store("memory://", Limits(**limits)))
        return opened[0]

    return make


@pytest.fixture
async def store(make_store: StoreFactory) -> AsyncIterator[ControlStore]:
    """An empty store."""
    opened = make_store()
    yield opened
    await opened.close()
