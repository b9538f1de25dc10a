"""A retry never repeats an event: whatever gets lost on the way to a real app or a real server, and whichever client sends."""

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from enum import Enum
from random import Random
from typing import Any
from uuid import uuid4

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.types import ASGIApp

from server.client import AtspeedError, Retries
from server.http.app import build_app
from tests.server.client.faces import FACES, Face
from tests.server.http.test_app import Bench
from tests.server.server_process import ServerProcess

AT_ONCE = Retries(attempts=4, first_seconds=0.0)


class Fault(Enum):
    """What happens to a request."""

    NONE = "none"
    NOT_CONNECTED = "not connected"
    LOST_BEFORE = "lost before the server had it"
    LOST_AFTER = "done, and its answer lost"
    REFUSED = "refused with 429"
    AWAY_BEFORE = "503, not done"
    AWAY_AFTER = "503, and done"


class Lossy(httpx.AsyncBaseTransport, httpx.BaseTransport):
    """A transport of either kind that does to requests what it is told, in turn, and then passes all on."""

    def __init__(self, inner: httpx.AsyncBaseTransport, faults: Iterable[Fault]) -> None:
        self._inner, self._faults = inner, iter(faults)
        self._runner = asyncio.Runner()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        fault = next(self._faults, Fault.NONE)
        if fault is Fault.NOT_CONNECTED:
            raise httpx.ConnectError("It is not connected.")
        if fault is Fault.LOST_BEFORE:
            raise httpx.WriteError("It is lost.")
        if fault in (Fault.REFUSED, Fault.AWAY_BEFORE):
            return httpx.Response(429 if fault is Fault.REFUSED else 503)
        response = await self._inner.handle_async_request(request)
        content = await response.aread()
        if fault is Fault.LOST_AFTER:
            raise httpx.ReadError("It is lost.")
        return httpx.Response(503 if fault is Fault.AWAY_AFTER else response.status_code, content=content)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._runner.run(self.handle_async_request(request))

    def close(self) -> None:
        self._runner.close()


def append_all(face: Face, user: str, batches: list[list[dict[str, Any]]]) -> set[int]:
    """Append batches of events; return the places of those that were acknowledged."""
    acknowledged = set()
    for place, batch in enumerate(batches):
        with suppress(AtspeedError):
            face.call("append_events", user, batch)
            acknowledged.add(place)
    return acknowledged


def numbered(sizes_with_ids: list[tuple[int, bool]]) -> list[list[dict[str, Any]]]:
    """Batches of events that can be told apart by their times."""
    batches, number = [], 0
    for size, has_ids in sizes_with_ids:
        events: list[dict[str, Any]] = []
        for _ in range(size):
            number += 1
            events.append({"item_id": f"item-{number % 20}", "timestamp": number} | ({"event_id": f"e-{number}"} if has_ids else {}))
        batches.append(events)
    return batches


def check(stored: Counter[float], batches: list[list[dict[str, Any]]], acknowledged: set[int]) -> None:
    """Nothing is stored twice, all that was acknowledged is stored, and a batch is stored as a whole or not at all."""
    assert set(stored.values()) <= {1}
    for place, batch in enumerate(batches):
        found = sum(stored[event["timestamp"]] for event in batch)
        assert found in (0, len(batch))
        assert found or place not in acknowledged


@pytest.fixture(scope="module")
def bench() -> Bench:
    return Bench()


@pytest.fixture(scope="module")
def app(bench: Bench) -> ASGIApp:
    return build_app(bench.services)


@given(
    kind=st.sampled_from(FACES),
    faults=st.lists(st.sampled_from(Fault), max_size=12),
    batches=st.lists(st.tuples(st.integers(1, 3), st.booleans()), min_size=1, max_size=4).map(numbered),
)
def test_no_event_is_stored_twice_whatever_is_lost(
    bench: Bench, app: ASGIApp, kind: str, faults: list[Fault], batches: list[list[dict[str, Any]]]
):
    user = uuid4().hex
    with Face(kind, "http://localhost", transport=Lossy(httpx.ASGITransport(app), faults), retries=AT_ONCE) as face:
        acknowledged = append_all(face, user, batches)
    history = asyncio.run(bench.histories.read(user))
    check(Counter(event.timestamp for event in history), batches, acknowledged)


@pytest.mark.parametrize("kind", FACES)
def test_no_event_is_stored_twice_on_a_real_server(kind: str, server: ServerProcess):
    batches = numbered([(2, number % 2 == 0) for number in range(24)])
    faults = Random(1).choices(list(Fault), k=60)
    inner = httpx.AsyncHTTPTransport(trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
    patient = Retries(attempts=60, first_seconds=0.0)
    with Face(kind, server.url, transport=Lossy(inner, faults), retries=patient) as face:
        acknowledged = append_all(face, f"lossy-{kind}", batches)
        stored = [event.timestamp for event in face.call("history", f"lossy-{kind}").events]
    # With ids, each batch outlasts what is lost; without, what may have been done is given up.
    assert set(range(0, 24, 2)) <= acknowledged < set(range(24))
    check(Counter(stored), batches, acknowledged)
