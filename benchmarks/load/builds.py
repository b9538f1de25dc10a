"""Builds of the server beside each other: what a server adds to its engine's time, its lists a second, and the processor time of a list.

Invariant: all builds serve the same random model and are asked the same lists by turns, block by block, so that a machine that drifts
drifts for all; the first block of each kind does not count. The engine's time is what each answer tells of it, so a server is compared
with its own engine on the very same lists. Times need an idle machine; processor time a list is a fair ratio also beside other work.
"""

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random

import psutil

from benchmarks.load.connection import Connection, Timed
from benchmarks.load.small_model import make_model
from benchmarks.markdown import markdown_table
from benchmarks.server_process import ServerProcess
from drafting.catalog.loading import load_catalog

USERS, ITEMS, K, CLIENTS = 200, 20, 10, 16
# So many times as many lists are in a block that is asked at once as in one whose lists are asked one at a time.
MORE = 5
Body = dict[str, object]


class BuildServer(ServerProcess):
    """A server of the build whose files are in a folder."""

    def __init__(self, root: Path, folder: Path, *flags: str) -> None:
        super().__init__(folder, *flags)
        self._command = ["env", f"--chdir={root}", f"PYTHONPATH={root}", *self._command]

    def cpu_seconds(self) -> tuple[float, float]:
        """The processor time of the API process and of the engine process until now."""
        api = psutil.Process(self.process.pid)
        (engine,) = (each for each in api.children() if any(part.startswith("server.engine") for part in each.cmdline()))
        times = (each.cpu_times() for each in (api, engine))
        api_seconds, engine_seconds = (each.user + each.system for each in times)
        return api_seconds, engine_seconds


@dataclass(frozen=True)
class Block:
    """Figures of a block of lists; in milliseconds, but for the lists a second.

    Attributes:
        p50, engine_p50: of a list, to its client and in the engine.
        api_cpu, engine_cpu: processor time a list.
    """

    p50: float
    engine_p50: float
    api_cpu: float
    engine_cpu: float
    lists_per_s: float


def ask_all(server: BuildServer, bodies: Sequence[Body], clients: int) -> Block:
    """Ask for lists, each client for one at a time.

    Raises:
        BenchmarkError: the server refuses one.
    """
    before, started = server.cpu_seconds(), time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for part in pool.map(partial(_ask, server), [bodies[n::clients] for n in range(clients)]) for answer in part]
    seconds, after = time.perf_counter() - started, server.cpu_seconds()
    api, engine = (1e3 * (now - then) / len(bodies) for then, now in zip(before, after, strict=True))
    p50 = statistics.median(answer.milliseconds for answer in answers)
    engine_p50 = statistics.median(answer.engine_milliseconds for answer in answers)
    return Block(p50, engine_p50, api, engine, len(bodies) / seconds)


def _ask(server: BuildServer, bodies: Sequence[Body], path: str = "/v1/recommendations") -> list[Timed]:
    with Connection(server.url) as connection:
        return [connection.post(body, path) for body in bodies]


def measure(builds: dict[str, Path], rounds: int, lists: int, flags: Sequence[str]) -> dict[tuple[str, str], list[Block]]:
    """The blocks of each kind of lists and each build, by the names of both."""
    random = Random(0)
    with tempfile.TemporaryDirectory(prefix="atspeed-builds-") as name, ExitStack() as stack:
        folder = Path(name)
        make_model(folder)
        items = list(load_catalog(folder / "catalog.jsonl").item_ids)
        users = {f"user-{number}": random.sample(items, ITEMS) for number in range(USERS)}
        servers = {}
        for build, root in builds.items():
            own = folder / build
            own.mkdir()
            options = {"target": folder / "model", "catalog": folder / "catalog.jsonl", "histories": f"sqlite:///{own}/histories.db"}
            options |= {"timeout-ms": 60_000, "plan": "none"}
            given = (part for option, value in options.items() for part in (f"--{option}", str(value)))
            servers[build] = stack.enter_context(BuildServer(root.absolute(), own, *given, *flags)).wait_until_ready()
            for user, history in users.items():
                events = [{"item_id": item, "timestamp": number} for number, item in enumerate(history)]
                _ask(servers[build], [{"events": events}], f"/v1/users/{user}/events")
        asked: dict[str, tuple[int, Callable[[], list[Body]]]] = {
            "cold": (1, lambda: [{"history": random.sample(items, ITEMS), "k": K, "beam_width": K} for _ in range(lists)]),
            "cached": (1, lambda: [{"user_id": user, "k": K, "beam_width": K} for user in random.sample(sorted(users), lists)]),
            f"{CLIENTS} at once": (
                CLIENTS,
                lambda: [{"user_id": user, "k": K, "beam_width": K} for user in random.choices(sorted(users), k=MORE * lists)],
            ),
        }
        for server in servers.values():
            # From now on the last prompt of every user is cached.
            _ask(server, [{"user_id": user, "k": K, "beam_width": K} for user in users])
        found: dict[tuple[str, str], list[Block]] = {(kind, build): [] for kind in asked for build in servers}
        for number in range(rounds + 1):
            for kind, (clients, bodies) in asked.items():
                same = bodies()
                for build in list(servers)[:: 1 if number % 2 else -1]:
                    block = ask_all(servers[build], same, clients)
                    if number:
                        found[kind, build].append(block)
        return found


def report(found: dict[tuple[str, str], list[Block]]) -> str:
    """The medians over the blocks, as a Markdown table."""
    rows = []
    for (kind, build), blocks in found.items():
        median = Block(*(statistics.median(vars(block)[name] for block in blocks) for name in vars(blocks[0])))
        ratio = statistics.median(block.p50 / block.engine_p50 for block in blocks)
        times = (f"{value:.2f}" for value in (median.p50, median.engine_p50, ratio, median.api_cpu, median.engine_cpu))
        rows.append([kind, build, *times, f"{median.lists_per_s:.1f}"])
    return markdown_table(["lists", "build", "p50, ms", "engine's p50", "ratio", "API CPU, ms", "engine CPU, ms", "lists/s"], rows)


def run(builds: dict[str, Path], rounds: int, lists: int, flags: Sequence[str]) -> None:
    """Measure and print the table, with what it was measured on."""
    print(f"{os.cpu_count()} processors, Python {sys.version.split()[0]}, {rounds} blocks of {lists} lists ({MORE * lists} at once)\n")
    print(report(measure(builds, rounds, lists, flags)))
