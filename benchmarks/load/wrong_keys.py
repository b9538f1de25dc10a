"""Latency of lists beside requests with wrong keys: one client asks for lists, in turns alone and beside 1,667 wrong keys a second.

Run:  python -m benchmarks.load.wrong_keys [OUTPUT.json]
"""

import json
import multiprocessing
import socket
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import httpx
import psutil
import typer

from benchmarks.endings import end_on_sigterm
from benchmarks.load.small_model import make_model, served
from benchmarks.options import in_a_directory
from server.client import AtspeedClient
from server.keys.file import add_key
from server.keys.key import Scope

KEYS_PER_SECOND = 100_000 / 60
CONNECTIONS = 8
ROUNDS, ROUND_SECONDS, WARM_UP_SECONDS, ALONE_SECONDS = 8, 5.0, 3.0, 8.0
FLAGS = ("--engine", "transformers", "--threads", "1")
REQUEST = b"GET /v1/catalog HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer atspeed_" + b"q" * 43 + b"\r\n\r\n"


@dataclass(frozen=True)
class Cost:
    """Figures of both states, and the cost of a wrong key.

    Attributes:
        quiet_p50_ms, quiet_p90_ms: latency of lists alone.
        beside_p50_ms, beside_p90_ms: latency of lists beside wrong keys.
        keys_per_second: wrong keys that were refused in a second.
        key_us: processor time of the API process for each of them, without lists.
    """

    quiet_p50_ms: float
    quiet_p90_ms: float
    beside_p50_ms: float
    beside_p90_ms: float
    keys_per_second: float
    key_us: float


def flood(port: int, seconds: float) -> int:
    """Send wrong keys at their rate, on a few connections in turn; how many were refused."""
    refused, begun = 0, time.monotonic()
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(CONNECTIONS)]
        while (passed := time.monotonic() - begun) < seconds:
            connection = connections[refused % CONNECTIONS]
            connection.sendall(REQUEST)
            if not connection.recv(65536).startswith(b"HTTP/1.1 401 "):
                raise SystemExit("A wrong key was not refused.")
            refused += 1
            if (early := refused / KEYS_PER_SECOND - passed) > 0:
                time.sleep(early)
    return refused


def latencies(client: AtspeedClient, history: list[str], seconds: float) -> list[float]:
    """Seconds that each list takes, one after the other."""
    found: list[float] = []
    begun = time.monotonic()
    while time.monotonic() - begun < seconds:
        started = time.perf_counter()
        client.recommend(history=history, k=10)
        found.append(time.perf_counter() - started)
    return found


def measure(url: str, key: str, api: psutil.Process) -> Cost:
    """Measure a server that is ready, by the key of its one holder."""
    port = httpx.URL(url).port
    quiet: list[float] = []
    beside: list[float] = []
    refused = 0
    with AtspeedClient(url, key=key, deadline=30, trust_env=False) as client, multiprocessing.get_context("spawn").Pool(1) as other:
        history = [line.item_id for line in client.items(limit=5).items]
        latencies(client, history, WARM_UP_SECONDS)
        for _ in range(ROUNDS):
            quiet += latencies(client, history, ROUND_SECONDS)
            keys = other.apply_async(flood, (port, ROUND_SECONDS))
            beside += latencies(client, history, ROUND_SECONDS)
            refused += keys.get()
        before = sum(api.cpu_times()[:2])
        alone = other.apply(flood, (port, ALONE_SECONDS))
        spent = sum(api.cpu_times()[:2]) - before
    (quiet_p50, quiet_p90), (beside_p50, beside_p90) = map(_median_and_last_decile, (quiet, beside))
    return Cost(quiet_p50, quiet_p90, beside_p50, beside_p90, round(refused / ROUNDS / ROUND_SECONDS), round(1e6 * spent / alone))


def _median_and_last_decile(seconds: list[float]) -> tuple[float, float]:
    """Both in milliseconds."""
    deciles = statistics.quantiles(seconds, n=10)
    return round(1000 * deciles[4], 2), round(1000 * deciles[8], 2)


def main(
    output: Annotated[Path | None, typer.Argument(help="Also write the figures to this JSON file.", callback=in_a_directory)] = None,
) -> None:
    """Measure what wrong keys cost lists (two minutes, idle machine)."""
    end_on_sigterm()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_model(folder)
        key = add_key(folder / "keys.json", "shop", [Scope.RECOMMEND])
        with served(folder, *FLAGS, "--keys", str(folder / "keys.json")) as server:
            cost = measure(server.url, key, psutil.Process(server.process.pid))
    more = cost.beside_p50_ms / cost.quiet_p50_ms - 1
    print(f"alone p50 {cost.quiet_p50_ms} ms, p90 {cost.quiet_p90_ms} ms")
    print(f"beside {cost.keys_per_second} wrong keys a second p50 {cost.beside_p50_ms} ms ({more:+.1%}), p90 {cost.beside_p90_ms} ms")
    print(f"processor time of the API process for a wrong key: {cost.key_us} us")
    if output is not None:
        output.write_text(json.dumps(asdict(cost), indent=2) + "\n")


if __name__ == "__main__":
    typer.run(main)
