"""A real `atspeed serve` for the tests: an API process and its engine process, on a free port."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

START_SECONDS = 90.0
ROOT = Path(__file__).parents[2]


class ServerProcess:
    """Runs `atspeed serve` with the given flags, logging to a file; `with` waits until it listens and ends it afterwards."""

    def __init__(self, folder: Path, *flags: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.log_file = folder / "server.log"
        self._command = [sys.executable, "-m", "server.cli", "serve", "--port", "0", "--threads", "1", "--engine", "transformers", *flags]

    def __enter__(self) -> Self:
        self.start()
        self.wait_for(lambda: "listening on" in self.log)
        url = re.search(r"listening on (\S+),", self.log)
        assert url is not None
        self.client = httpx.Client(base_url=url[1], timeout=30)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(30)

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def start(self) -> None:
        with self.log_file.open("wb") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=subprocess.STDOUT, cwd=ROOT, env=os.environ | {"COLUMNS": "200"}
            )

    def run(self) -> tuple[int, str]:
        """Runs a server that is expected to end by itself; exit status and log."""
        self.start()
        return self.process.wait(START_SECONDS), self.log

    def wait_until_ready(self, seconds: float = START_SECONDS) -> Self:
        self.wait_for(lambda: self.client.get("/ready").status_code == 200, seconds)
        return self

    def wait_for(self, condition: Callable[[], bool], seconds: float = START_SECONDS) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert self.process.poll() is None, f"the server ended with status {self.process.returncode}:\n{self.log}"
            assert time.monotonic() < deadline, f"still waiting after {seconds} s:\n{self.log}"
            time.sleep(0.02)

    @property
    def engine(self) -> psutil.Process:
        """The engine process."""
        (child,) = psutil.Process(self.process.pid).children()
        return child

    def recommend(self, **body: Any) -> httpx.Response:
        return self.client.post("/v1/recommendations", json=body)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric over all series that have these labels."""
        families = text_string_to_metric_families(self.client.get("/metrics").text)
        samples = (sample for family in families for sample in family.samples)
        return sum(sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items())


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
