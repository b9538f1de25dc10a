"""Crowds of clients: both kinds are told apart, and a refusal fails the measurement."""

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any, cast

import pytest

from benchmarks.endings import BenchmarkError
from benchmarks.load.wide import Crowd, measure
from benchmarks.server_process import ServerProcess

ITEMS = [f"item-{number}" for number in range(40)]
# Of a wide list, and of any other that is asked for meanwhile.
SLOW_SECONDS = 0.05
REFUSED = 99


class Shop(ThreadingHTTPServer):
    """Takes `SLOW_SECONDS` over wide lists, and over all lists while one is made; refuses those of a width of `REFUSED`."""

    wide = 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        shop = cast(Shop, self.server)
        asked: dict[str, Any] = json.loads(self.rfile.read(int(self.headers["content-length"])))
        is_wide = asked["beam_width"] > 10
        shop.wide += is_wide
        if shop.wide:
            time.sleep(SLOW_SECONDS)
        shop.wide -= is_wide
        status = 429 if asked["beam_width"] == REFUSED else 200
        body = json.dumps({"timing_ms": {"engine": 1.0}} if status == 200 else {"detail": "Too much."}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def server() -> Iterator[ServerProcess]:
    with Shop(("127.0.0.1", 0), Handler) as shop:
        shop.daemon_threads = True
        threading.Thread(target=shop.serve_forever, args=(0.01,), daemon=True).start()
        engine = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=3 * 2**20))
        url = f"http://127.0.0.1:{shop.server_port}"
        yield cast(ServerProcess, SimpleNamespace(url=url, engine=engine, metric=lambda name: 7.0))
        shop.shutdown()


def test_narrow_lists_are_slower_beside_wide_ones(server: ServerProcess):
    found = measure(server, ITEMS, Crowd(2, 10), Crowd(1, 20), rounds=1, seconds=0.2)
    assert found.ratio == pytest.approx(found.beside_ms[1] / found.alone_ms[1], abs=0.01)
    # Some narrow lists come between two wide ones.
    assert found.alone_ms[0] < 1e3 * SLOW_SECONDS <= min(found.beside_ms[2], found.wide_ms[0])
    assert found.wide > 0
    assert found.narrow > 0
    assert (found.engine_mib, found.slots) == ([3, 3], 7)


def test_a_refused_list_fails_the_measurement(server: ServerProcess):
    with pytest.raises(BenchmarkError, match=r"refused POST /v1/recommendations: Too much\."):
        Crowd(2, REFUSED).ask(server.url, ITEMS, seconds=0.2)
