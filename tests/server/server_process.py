"""A real `atspeed serve` for the tests, on one thread of the quickest host to start."""

from pathlib import Path

import httpx

from benchmarks import server_process

ROOT = Path(__file__).parents[2]


class ServerProcess(server_process.ServerProcess):
    """Runs `atspeed serve` with the given flags, logging to a file; `with` waits until it listens and ends it afterwards."""

    def __init__(self, folder: Path, *flags: str) -> None:
        super().__init__(folder, "--threads", "1", "--engine", "transformers", *flags)


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
