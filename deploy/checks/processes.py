"""Programs that a check runs beside the server, on free ports of this machine.

Invariant: a program is ready when it answers over HTTP and gone when its `with` ends, so one check never meets what another left.
"""

import json
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

START_SECONDS = 60.0
# What is asked here is on this machine, which no proxy of the user's environment can reach.
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def free_port() -> int:
    """A TCP port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 30.0) -> tuple[int, dict[str, str], bytes]:
    """Status, headers and body of an answer; a body is posted as JSON. Raises OSError where nothing answers."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"} | (headers or {}))
    try:
        with _OPENER.open(request, timeout=timeout) as answer:
            return answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, {name.lower(): value for name, value in error.headers.items()}, error.read()


def answers(url: str) -> bool:
    """Whether a URL answers 200."""
    try:
        return ask(url, timeout=2)[0] == 200
    except OSError:
        return False


def wait_until(what: Callable[[], bool], seconds: float) -> float | None:
    """Waits until something is so; how many seconds that took, or None where it did not come to that."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if what():
            return time.monotonic() - started
        time.sleep(0.1)
    return None


@contextmanager
def running(command: list[str], log: Path, ready_url: str) -> Iterator["subprocess.Popen[bytes]"]:
    """A program, from its first answer to its end. Raises SystemExit, with its log, where it does not answer."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output)
    try:
        if wait_until(lambda: answers(ready_url) or process.poll() is not None, START_SECONDS) is None or process.poll() is not None:
            raise SystemExit(f"{command[0]} did not start:\n{log.read_text()}")
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
