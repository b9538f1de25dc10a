"""What the Python client adds to a request over raw httpx.

Invariant: raw httpx and the client take turns, one request each, over connections that stay open. They ask a thread that gives everyone the
same list and does nothing else. Processor time of the asking thread is measured, so a crowded machine changes it little; the rest of a
request is waiting for the answer, which takes both the same. What the client adds is the median of the differences between neighbouring
requests: making the request, typing the answer, and the bookkeeping of retries and deadlines.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import orjson

from server.client import AsyncAtspeedClient, AtspeedClient
from server.schemas.recommendations import RecommendationAnswer

BAR_MS = 0.2
WARM_UP = 50

Ask = Callable[[], Awaitable[Any]]


@dataclass(frozen=True)
class Overhead:
    """What one client takes, in milliseconds of the thread's processor.

    Attributes:
        name: the client's class.
        raw, client: p50 of a request by httpx alone, whose answer is a dictionary, and by the client, whose answer is typed.
        added: median of the differences of neighbouring requests.
    """

    name: str
    raw: float
    client: float
    added: float


def measure(requests: int, k: int) -> list[Overhead]:
    """The overhead of both clients, for lists of `k` items."""
    with _list_server(k) as url:
        return [asyncio.run(_measure_sync(url, requests, k)), asyncio.run(_measure_async(url, requests, k))]


def table(overheads: Sequence[Overhead]) -> str:
    """The overheads as lines of a terminal."""
    lines = ["client              raw httpx, p50 ms  client, p50 ms  added ms"]
    lines += [f"{each.name:18s}  {each.raw:17.3f}  {each.client:14.3f}  {each.added:8.3f}" for each in overheads]
    return "\n".join(lines)


async def _measure_sync(url: str, requests: int, k: int) -> Overhead:
    with httpx.Client(base_url=url, trust_env=False) as http, AtspeedClient(url, trust_env=False, deadline=10) as client:

        async def ask_raw() -> None:
            http.post("/v1/recommendations", json=_body(k)).raise_for_status().json()

        async def ask_client() -> None:
            client.recommend(user_id="42", k=k)

        return await _compare("AtspeedClient", requests, ask_raw, ask_client)


async def _measure_async(url: str, requests: int, k: int) -> Overhead:
    async with httpx.AsyncClient(base_url=url, trust_env=False) as http, AsyncAtspeedClient(url, trust_env=False, deadline=10) as client:

        async def ask_raw() -> None:
            (await http.post("/v1/recommendations", json=_body(k))).raise_for_status().json()

        async def ask_client() -> None:
            await client.recommend(user_id="42", k=k)

        return await _compare("AsyncAtspeedClient", requests, ask_raw, ask_client)


async def _compare(name: str, requests: int, ask_raw: Ask, ask_client: Ask) -> Overhead:
    """Ask in turns; who is first changes from turn to turn."""
    asks = (ask_raw, ask_client)
    times = np.empty((WARM_UP + requests, 2))
    for number, turn in enumerate(times):
        for place in (number % 2, 1 - number % 2):
            started = time.thread_time()
            await asks[place]()
            turn[place] = 1000 * (time.thread_time() - started)
    raw, client = times[WARM_UP:].T
    return Overhead(name, float(np.median(raw)), float(np.median(client)), float(np.median(client - raw)))


def _body(k: int) -> dict[str, Any]:
    return {"user_id": "42", "k": k, "timeout_ms": 10_000}


@contextmanager
def _list_server(k: int) -> Iterator[str]:
    """The URL of a thread that answers every request with the same list."""
    answer = dict(RecommendationAnswer.model_json_schema()["examples"][0])
    answer["items"] = [answer["items"][0] | {"item_id": str(rank), "rank": rank} for rank in range(1, k + 1)]
    port: Future[int] = Future()
    with asyncio.Runner() as runner, ThreadPoolExecutor(1) as thread:
        serving = runner.get_loop().create_task(_serve(orjson.dumps(answer), port.set_result))
        thread.submit(runner.get_loop().run_until_complete, serving)
        try:
            yield f"http://127.0.0.1:{port.result()}"
        finally:
            runner.get_loop().call_soon_threadsafe(serving.cancel)


async def _serve(answer: bytes, listens_on: Callable[[int], None]) -> None:
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer)

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A client that hangs up ends it.
        with suppress(asyncio.IncompleteReadError), closing(writer):
            while True:
                asked = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", asked, re.IGNORECASE)
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(head + answer)

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    listens_on(server.sockets[0].getsockname()[1])
    await server.serve_forever()
