"""A real `atspeed serve` for the tests, on one thread of the quickest host to start."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx

from benchmarks import server_process

ROOT = Path(__file__).parents[2]


class ServerProcess(server_process.ServerProcess):
    """Runs `atspeed serve` with the given flags, logging to a file; `with` waits until it listens and ends it afterwards."""

    def __init__(self, folder: Path, *flags: str) -> None:
        # A tiny model has a hundred thousand slots in that; more would only have to be made at every start.
        super().__init__(folder, "--threads", "1", "--engine", "transformers", "--kv-memory-gib", "0.05", *flags)

    @contextmanager
    def stopped_engine(self) -> Iterator[None]:
        """An engine that takes arbitrarily long."""
        engine = self.engine
        engine.suspend()
        try:
            yield
        finally:
            engine.resume()

    def connect(self) -> HTTPConnection:
        """A connection that the server has taken on; what is posted on it has been sent, in full, when `post` returns."""
        connection = HTTPConnection(self.client.base_url.host, self.client.base_url.port or 80, timeout=60)
        connection.request("GET", "/version")
        connection.getresponse().read()
        return connection


def post(connection: HTTPConnection, path: str, body: Any) -> None:
    """Send a request, and do not wait for its answer."""
    connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})


def problem(connection: HTTPConnection) -> tuple[int, str]:
    """Wait for an answer that is a problem: its status and its sentence."""
    response = connection.getresponse()
    return response.status, json.load(response)["detail"]


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
