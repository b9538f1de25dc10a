"""Latency of narrow lists beside wide ones: clients ask for narrow lists all the time, in turns alone and beside clients of wide lists.

Invariant: one server, both states in turns, so that a machine that drifts drifts for both; the first block of each state does not count.
Needs an idle machine.
"""

import json
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from random import Random

import numpy as np

from benchmarks.load.connection import Connection
from benchmarks.load.small_model import make_model, served
from benchmarks.server_process import ServerProcess
from drafting.catalog.loading import load_catalog

NARROW, HISTORY_ITEMS = 10, 20
TIMEOUT_MS = 60_000


@dataclass(frozen=True)
class Crowd:
    """Clients that each ask for one list at a time.

    Attributes:
        clients, width: how many, and the width of their beams; lists are as long.
    """

    clients: int
    width: int

    def ask(self, url: str, items: list[str], seconds: float) -> list[float]:
        """The milliseconds of each list that was asked for within so many seconds; none may be refused."""
        until = time.monotonic() + seconds
        with ThreadPoolExecutor(self.clients) as pool:
            return [each for part in pool.map(partial(self._ask_on, url, items, until), range(self.clients)) for each in part]

    def _ask_on(self, url: str, items: list[str], until: float, number: int) -> list[float]:
        random, found = Random(number), []
        asked = {"k": self.width, "beam_width": self.width, "timeout_ms": TIMEOUT_MS, "format": "ids"}
        with Connection(url) as connection:
            while time.monotonic() < until:
                found.append(connection.post(asked | {"history": random.sample(items, HISTORY_ITEMS)}).milliseconds)
        return found


@dataclass(frozen=True)
class WideFigures:
    """Figures of all blocks; those of blocks alone are taken together, and those beside wide lists.

    Attributes:
        alone_ms, beside_ms: p50, p99 and longest of narrow lists.
        wide_ms: p50, p99 and longest of wide lists.
        narrow, wide: numbers of lists beside each other.
        ratio: p99 of narrow lists beside wide ones over that alone.
        engine_mib: memory of the engine after each block with wide lists.
        slots: KV slots in use at the end.
    """

    alone_ms: tuple[float, ...]
    beside_ms: tuple[float, ...]
    wide_ms: tuple[float, ...]
    narrow: int
    wide: int
    ratio: float
    engine_mib: list[int]
    slots: int


def measure(server: ServerProcess, items: list[str], narrow: Crowd, wide: Crowd, rounds: int, seconds: float) -> WideFigures:
    """Let both crowds ask a server that is ready.

    Raises:
        BenchmarkError: it refuses a list.
    """
    alone: list[float] = []
    beside: list[float] = []
    wides: list[float] = []
    memory = []
    for number in range(rounds + 1):
        quiet = narrow.ask(server.url, items, seconds)
        with ThreadPoolExecutor(1) as pool:
            others = pool.submit(wide.ask, server.url, items, seconds)
            crowded = narrow.ask(server.url, items, seconds)
            found = others.result()
        memory.append(round(server.engine.memory_info().rss / 2**20))
        if number:
            alone, beside, wides = alone + quiet, beside + crowded, wides + found
    used = int(server.metric("atspeed_kv_slots_used"))
    ratio = _summary(beside)[1] / _summary(alone)[1]
    return WideFigures(_summary(alone), _summary(beside), _summary(wides), len(beside), len(wides), round(ratio, 2), memory, used)


def _summary(milliseconds: list[float]) -> tuple[float, ...]:
    p50, p99 = np.percentile(milliseconds, (50, 99)).tolist()
    return round(p50, 1), round(p99, 1), round(max(milliseconds), 1)


def run(narrow: int, wide: int, width: int, rounds: int, seconds: float, flags: list[str]) -> None:
    """Measure the small model and print JSON."""
    with tempfile.TemporaryDirectory(prefix="atspeed-wide-") as name:
        folder = Path(name)
        make_model(folder)
        items = list(load_catalog(folder / "catalog.jsonl").item_ids)
        with served(folder, "--max-beam-width", str(width), *flags) as server:
            print(json.dumps(asdict(measure(server, items, Crowd(narrow, NARROW), Crowd(wide, width), rounds, seconds)), indent=2))
