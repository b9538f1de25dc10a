"""Crowds of clients: both kinds are told apart, and a refusal fails the measurement."""

import itertools
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.load import wide
from benchmarks.load.wide import HISTORY_ITEMS, TIMEOUT_MS, Crowd, measure
from benchmarks.server_process import ServerProcess

ITEMS = [f"item-{number}" for number in range(40)]
REFUSED = 99
# Until two threads have met; only a test that fails takes so long.
PATIENCE_SECONDS = 60.0


class Shop(ThreadingHTTPServer):
    """Answers all lists but those of a width of `REFUSED`, and keeps what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        cast(Shop, self.server).asked.append(asked)
        status = 429 if asked["beam_width"] == REFUSED else 200
        body = json.dumps({"timing_ms": {"engine": 1.0}} if status == 200 else {"detail": "Too much."}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def shop() -> Iterator[Shop]:
    with Shop() as shop:
        shop.daemon_threads = True
        threading.Thread(target=shop.serve_forever, args=(0.01,), daemon=True).start()
        yield shop
        shop.shutdown()


def url_of(shop: Shop) -> str:
    return f"http://127.0.0.1:{shop.server_port}"


def crowd(*blocks: list[float], meets: threading.Barrier, alone: bool) -> Crowd:
    """Clients whose lists take so many milliseconds, block by block; every block that is not `alone` lasts until the others are there."""
    left = iter(enumerate(blocks))

    def ask(url: str, items: list[str], seconds: float) -> list[float]:
        number, found = next(left)
        if not (alone and number % 2 == 0):
            meets.wait(PATIENCE_SECONDS)
        return found

    return cast(Crowd, SimpleNamespace(ask=ask))


def test_narrow_lists_are_slower_beside_wide_ones():
    engine = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=3 * 2**20))
    server = cast(ServerProcess, SimpleNamespace(url="", engine=engine, metric=lambda name: 7.0))
    meets = threading.Barrier(2)
    # By turns alone and beside wide ones; the first block of each does not count.
    narrow = crowd([9000.0], [9000.0], [10.0, 20.0, 30.0], [50.0, 70.0], [20.0, 20.0], [60.0], meets=meets, alone=True)
    wide_ones = crowd([9000.0], [80.0, 90.0], [100.0], meets=meets, alone=False)
    found = measure(server, ITEMS, narrow, wide_ones, rounds=2, seconds=0.0)
    assert (found.alone_ms, found.beside_ms, found.wide_ms) == ((20.0, 29.6, 30.0), (60.0, 69.8, 70.0), (90.0, 99.8, 100.0))
    assert (found.narrow, found.wide, found.ratio) == (3, 3, 2.36)
    assert (found.engine_mib, found.slots) == ([3, 3, 3], 7)


def test_a_crowd_asks_for_lists_of_its_width_until_its_time_is_over(shop: Shop, monkeypatch: pytest.MonkeyPatch):
    # Each look at the clock takes a second: one when the crowd begins, four before lists, and the last of each client.
    seconds = itertools.count()
    monkeypatch.setattr(wide, "time", SimpleNamespace(monotonic=lambda: float(next(seconds))))
    found = Crowd(2, 10).ask(url_of(shop), ITEMS, seconds=4.5)
    assert len(found) == len(shop.asked) == 4
    assert min(found) > 0
    for asked in shop.asked:
        history = asked.pop("history")
        assert len(set(history)) == HISTORY_ITEMS
        assert asked == {"k": 10, "beam_width": 10, "timeout_ms": TIMEOUT_MS, "format": "ids"}


def test_a_refused_list_fails_the_measurement(shop: Shop):
    with pytest.raises(BenchmarkError, match=r"refused POST /v1/recommendations: Too much\."):
        Crowd(2, REFUSED).ask(url_of(shop), ITEMS, seconds=PATIENCE_SECONDS)
