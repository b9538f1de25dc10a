"""A client whose engine process is the fake worker, for as long as a test asks it something."""

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from server.engine.client import EngineClient
from server.engine.heartbeat import Patience
from server.engine.supervisor import PATIENCE, EngineStatus
from server.engine_settings import EngineOptions
from server.metrics.registry import Metrics
from server.submit import Submit
from tests.server.engine_process import process_id
from verification.result import BeamResult


@asynccontextmanager
async def started(
    behaviour: str = "answers", catalog_version: str = "v1", max_pending: int = 10, patience: Patience = PATIENCE
) -> AsyncIterator[tuple[EngineClient, list[str]]]:
    failures: list[str] = []
    options = EngineOptions(target=behaviour, catalog="")
    client = EngineClient(options, catalog_version, Metrics(), max_pending=max_pending, patience=patience, on_failure=failures.append)
    client.supervisor.start()
    try:
        yield client, failures
    finally:
        await client.supervisor.stop()
        assert process_id(client.supervisor) is None
        assert client.supervisor.status is EngineStatus.STOPPED


def submit(request_id: str) -> Submit:
    now = time.monotonic()
    return Submit(request_id, [0], 1, 1, [], now + 10, now)


async def search(client: EngineClient, submit: Submit) -> BeamResult:
    with client.admit(submit) as request:
        return (await client.search(request)).result
