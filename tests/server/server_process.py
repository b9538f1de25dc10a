"""A real `atspeed serve` for the tests, on one thread of the quickest host to start."""

import json
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, Self

import httpx
import psutil
import pytest

from benchmarks import server_process

ROOT = Path(__file__).parents[2]


class ServerProcess(server_process.ServerProcess):
    """Runs `atspeed serve` with the given flags, logging to a file; `with` waits until it listens and ends it afterwards."""

    def __init__(self, folder: Path, *flags: str) -> None:
        # A tiny model has a hundred thousand slots in that; more would only have to be made at every start, and costs would be measured.
        quick = ("--threads", "1", "--engine", "transformers", "--kv-memory-gib", "0.05", "--plan", "none")
        super().__init__(folder, *quick, *flags)
        # An upload is read by a process of low priority, which gets little of a crowded machine.
        self.client.timeout = httpx.Timeout(120)

    @property
    def engine_directory(self) -> Path:
        """Where the engine has its temporary files: beside the socket to it, on which the API process listens."""
        (directory,) = {Path(bound.laddr).parent for bound in psutil.Process(self.process.pid).net_connections("unix") if bound.laddr}
        return directory

    def wait_for_engine(self) -> psutil.Process:
        """The engine process, from when it is born; right after its start a server has none.

        Raises:
            ProgramError: the server ended, or took too long.
        """
        self.wait_for(lambda: bool(self._engines()))
        return self.engine

    @contextmanager
    def stopped_engine(self) -> Iterator[None]:
        """An engine that takes arbitrarily long."""
        engine = self.engine
        engine.suspend()
        try:
            yield
        finally:
            engine.resume()

    @contextmanager
    def without_engine(self) -> Iterator[Self]:
        """The API process alone: the engine, which would load its model for seconds, is stopped as soon as it is there."""
        self.wait_for_engine()
        with self.stopped_engine():
            yield self

    def connect(self) -> HTTPConnection:
        """A connection that the server has taken on; what is posted on it has been sent, in full, when `post` returns."""
        connection = HTTPConnection(self.client.base_url.host, self.client.base_url.port or 80, timeout=60)
        connection.request("GET", "/version")
        connection.getresponse().read()
        return connection

    @contextmanager
    def waiting(self, count: int, **body: Any) -> Iterator[list[HTTPConnection]]:
        """Connections on which requests for lists have been given to the engine, which is stopped; their answers are to be read."""
        with ExitStack() as stack:
            connections = [stack.enter_context(closing(self.connect())) for _ in range(count)]
            for connection in connections:
                post(connection, "/v1/recommendations", body)
            # What came later is answered, so the server has read these.
            self.connect().close()
            yield connections


def post(connection: HTTPConnection, path: str, body: Any) -> None:
    """Send a request, and do not wait for its answer."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})


def problem(connection: HTTPConnection) -> tuple[int, str]:
    """Wait for an answer that is a problem: its status and its sentence."""
    response = connection.getresponse()
    return response.status, json.load(response)["detail"]


def alike(items: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines of a list, to be compared with those of another request for it.

    Scores are the same within rounding: a prompt that is cached takes another forward than one that is not, and not every CPU gives both
    the last bit alike.
    """
    return [line | {"score": pytest.approx(line["score"], abs=1e-4)} for line in items]


def assert_problem(response: httpx.Response, status: int, sentence: str) -> None:
    """The answer is a problem with this status and exactly this sentence."""
    body = response.json()
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    assert body["detail"] == sentence
    assert body["status"] == status
    assert body["type"]
    assert body["title"]
    assert body["instance"] == response.request.url.path
