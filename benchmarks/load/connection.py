"""A client that takes little of the processors that a server needs: one open connection, one request at a time.

httpx takes longer over a request than the server does, and on few processors would be what is measured.
"""

import http.client
import json
import time
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.endings import BenchmarkError


@dataclass(frozen=True)
class Timed:
    """An answer, and the milliseconds it took, to its client and in the engine."""

    answer: dict[str, Any]
    milliseconds: float
    engine_milliseconds: float


class Connection:
    """A connection to a server; `with` closes it."""

    def __init__(self, url: str) -> None:
        host, _, port = url.rpartition("//")[2].rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=120)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def post(self, body: dict[str, Any], path: str = "/v1/recommendations") -> Timed:
        """Send a body, and wait for the answer.

        Raises:
            BenchmarkError: the server refuses it.
        """
        started = time.perf_counter()
        self._connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = self._connection.getresponse()
        answer, milliseconds = json.loads(response.read()), 1e3 * (time.perf_counter() - started)
        if response.status >= http.client.BAD_REQUEST:
            raise BenchmarkError(f"The server refused POST {path}: {answer.get('detail', response.status)}")
        return Timed(answer, milliseconds, answer.get("timing_ms", {}).get("engine", 0.0))
