"""The whole server as one more system of a benchmark: what HTTP, the queue and the history store add to the engine's time.

Invariant: the server that is measured is the one that users start, in processes of its own, asked over a real connection by user id.
"""

import http.client
import json
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from benchmarks.systems.interleaved import SystemFailedError
from benchmarks.systems.question import Outcome, Question, SystemSpec
from drafting.catalog.loading import load_catalog

START_SECONDS = 120


class MeasuredServer:
    """`atspeed serve` on a free port, with an SQLite history store.

    Attributes:
        overhead_seconds: of every search, its time minus what the engine took.
    """

    def __init__(self, spec: SystemSpec, folder: Path) -> None:
        """`spec` is that of the engine inside the server; `folder` takes the histories."""
        self.name = "atspeed/http"
        self.overhead_seconds: list[float] = []
        self._catalog = load_catalog(spec.catalog)
        self._vocabulary = Tokenizer.from_file(str(spec.target / "tokenizer.json")).get_vocab()
        self._known: set[str] = set()
        self._connection = http.client.HTTPConnection("127.0.0.1", _free_port())
        flags = {"target": spec.target, "catalog": spec.catalog, "engine": spec.name.rpartition("/")[2], "threads": spec.threads}
        flags |= {"port": self._connection.port, "timeout-ms": 60_000, "plan": spec.plans[0]}
        flags |= {"histories": f"sqlite:///{(folder / 'histories.db').absolute()}"} | ({"draft": spec.draft} if spec.draft else {})
        command = [sys.executable, "-m", "server.cli", "serve"]
        for flag, value in flags.items():
            command += [f"--{flag}", str(value)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def wait_ready(self) -> None:
        """Returns when the server answers.

        Raises:
            SystemFailedError: it ended, or took too long.
        """
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            with suppress(ConnectionError):
                if self._ask("GET", "/ready")[0] == http.client.OK:
                    return
            time.sleep(0.1)
        raise SystemFailedError("The server did not become ready.")

    def search(self, question: Question) -> list[Outcome]:
        """Asks for users' lists one after another."""
        return [self._search(history, question.k) for history in question.histories]

    def _search(self, history: list[int], k: int) -> Outcome:
        """Asks for one user's list; the user's events are stored beforehand, outside the time."""
        # The server remembers the prompts of its users: for every list length there is another user.
        user = "-".join(map(str, (k, *history)))
        if user not in self._known:
            events = [{"item_id": self._catalog.item_ids[item], "timestamp": number} for number, item in enumerate(history)]
            self._expect("POST", f"/v1/users/{user}/events", {"events": events})
            self._known.add(user)
        started = time.perf_counter()
        answer = self._expect("POST", "/v1/recommendations", {"user_id": user, "k": k})
        seconds = time.perf_counter() - started
        self.overhead_seconds.append(seconds - answer["timing_ms"]["engine"] / 1e3)
        first = {item["rank"]: item["identifier"] for item in reversed(answer["items"])}
        identifiers = [tuple(self._vocabulary[token] for token in first[rank]) for rank in sorted(first)]
        return Outcome(seconds, identifiers, answer["usage"]["target_forwards"])

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        # A server closes a connection that was idle for seconds; the second try opens another.
        for last in (False, True):
            try:
                self._connection.request(method, path, json.dumps(body), {"content-type": "application/json"})
                response = self._connection.getresponse()
                return response.status, json.loads(response.read())
            except ConnectionError:
                self._connection.close()
                if last:
                    raise
        raise AssertionError("The loop above returns or raises.")

    def _expect(self, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        status, answer = self._ask(method, path, body)
        if status >= http.client.BAD_REQUEST:
            raise SystemFailedError(f"The server refused {method} {path}: {answer.get('detail', status)}")
        return answer

    def close(self) -> None:
        """Stops the server."""
        self._process.terminate()
        self._process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
