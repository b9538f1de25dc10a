"""Both clients behind one way to call them, so that every test of the client is written once and runs through each."""

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, Self

import httpx

from server.client import AsyncAtspeedClient, AtspeedClient

FACES = ("sync", "async")


class Face:
    """One of the clients: `face.call("history", "42")` returns what its method returns, or raises what that raises."""

    def __init__(self, kind: str, url: str, **options: Any) -> None:
        self.kind = kind
        self._runner = asyncio.Runner()
        options = {"trust_env": False} | options
        self.client = AtspeedClient(url, **options) if kind == "sync" else AsyncAtspeedClient(url, **options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, method: str, *args: Any, **kwargs: Any) -> Any:
        answer = getattr(self.client, method)(*args, **kwargs)
        return self._runner.run(answer) if inspect.iscoroutine(answer) else answer

    def close(self) -> None:
        self.call("close")
        self._runner.close()


def mocked(kind: str, handler: Callable[[httpx.Request], httpx.Response], **options: Any) -> Face:
    """A client that a function answers."""
    return Face(kind, "http://server", transport=httpx.MockTransport(handler), **options)
