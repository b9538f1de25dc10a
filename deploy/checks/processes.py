"""HTTP requests to programs on free ports of this machine; `benchmarks.server_process` starts and ends them."""

import time
from collections.abc import Callable
from typing import Any

import httpx

# What is asked here is on this machine, which no proxy of the user's environment can reach. Every request has a connection of its own: a
# server that is killed leaves no broken one to the next request.
_CLIENT = httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), trust_env=False)


def ask(url: str, body: Any = None, headers: dict[str, str] | None = None, timeout: float = 30.0) -> httpx.Response:
    """An answer; a body is posted as JSON. Raises httpx.TransportError where nothing answers."""
    if body is None:
        return _CLIENT.get(url, headers=headers, timeout=timeout)
    return _CLIENT.post(url, json=body, headers=headers, timeout=timeout)


def answers(url: str) -> bool:
    """True if a URL answers 200."""
    try:
        return ask(url, timeout=2).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


def wait_until(what: Callable[[], bool], seconds: float) -> float | None:
    """Wait until something is so; how many seconds that took, or None where it did not come to that."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if what():
            return time.monotonic() - started
        time.sleep(0.1)
    return None
