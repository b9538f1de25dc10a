"""A run of `atspeed-bench bench`: start the systems, time them, and print the report.

Invariant: every system that was started is ended, also when the run fails or is ended; and every failure is one sentence.
"""

import json
import platform
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import date
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import typer
from tqdm import tqdm

from benchmarks.systems.http_system import HttpSystem
from benchmarks.systems.interleaved import SETTLE_SECONDS, SPAWN, Contender, Measured, Processes, Row, SystemProcess, compare
from benchmarks.systems.question import PLAIN, Question, SystemSpec
from server.commands.terminal import print_table
from verification.hosts.checkpoint import has_encoder, load_config

OVERHEAD_REQUESTS = 100
OVERHEAD_K = 10


@dataclass(frozen=True)
class Run:
    """One benchmark.

    Attributes:
        models: target, draft, catalog, plans and threads; its name is of no account.
        hosts: what runs our target.
        warm_up: histories that come first without being counted.
        folder: for files that live as long as the run.
    """

    models: SystemSpec
    hosts: list[str]
    histories: list[list[int]]
    ks: list[int]
    concurrencies: list[int]
    warm_up: int
    folder: Path


@dataclass(frozen=True)
class Report:
    """The results of a run; the overhead is the time of HTTP, queue and history store in addition to the engine."""

    rows: list[Row]
    http_overhead_ms: float
    threads: int

    def as_dict(self) -> dict[str, Any]:
        return {
            "rows": [row.as_dict() for row in self.rows],
            "http_overhead_p50_ms": self.http_overhead_ms,
            "threads": self.threads,
            "date": str(date.today()),
            "machine": platform.machine(),
        }


def measure(run: Run, processes: Processes = SPAWN) -> Report:
    """Time this engine with every plan, the server around it, and its rivals.

    Args:
        processes: start those of the systems.

    Raises:
        SystemFailedError: one of them could not be measured.
    """
    hosts = [f"atspeed/{host}" for host in run.hosts]
    # vLLM has no encoder-decoder models.
    with_vllm = find_spec("vllm") and not has_encoder(load_config(run.models.target))
    rivals = ["transformers", "vllm"] if with_vllm else ["transformers"]
    with ExitStack() as running:
        plain = replace(run.models, draft=None, plans=(PLAIN,))
        makers: list[Callable[[], Measured]] = [
            *(partial(SystemProcess, replace(run.models, name=host), processes=processes) for host in hosts),
            partial(HttpSystem, replace(plain, name=hosts[0]), run.folder),
            *(partial(SystemProcess, replace(plain, name=name), processes=processes) for name in rivals),
        ]
        systems: list[Measured] = []
        # One after the other: the planner measures the machine while it loads, and must not measure its neighbours.
        for make in tqdm(makers, desc="Loading", unit="system"):
            systems.append(system := make())
            running.callback(system.close)
            system.wait_ready()
            time.sleep(SETTLE_SECONDS)
        ours, server, theirs = systems[: len(hosts)], systems[len(hosts)], systems[len(hosts) + 1 :]
        assert isinstance(server, HttpSystem)
        # Plain search on the first host comes first: its lists are what all others are held against.
        contenders = [
            Contender(system, plan, concurrency) for concurrency in run.concurrencies for system in ours for plan in run.models.plans
        ]
        contenders += [Contender(system, plan, cached=True) for system in ours for plan in run.models.plans]
        contenders += [Contender(system) for system in (server, *theirs)]
        # vLLM takes many prompts in one call; `generate` would need prompts of one length.
        contenders += [
            Contender(system, concurrency=many) for system in theirs if system.name == "vllm" for many in run.concurrencies if many > 1
        ]
        with tqdm(total=len(run.ks) * len(run.histories) * len(contenders), desc="Timing", unit="request", miniters=10) as bar:
            rows = compare(contenders, run.histories, run.ks, run.warm_up, bar.update)
        server.overhead_seconds.clear()
        for _ in tqdm(range(OVERHEAD_REQUESTS), desc="Back to back", unit="request"):
            server.search(Question(run.histories[:1], OVERHEAD_K))
    return Report(rows, 1e3 * median(server.overhead_seconds), run.models.threads)


def save(report: Report, path: Path) -> None:
    """Write a report as JSON."""
    path.write_text(json.dumps(report.as_dict(), indent=2) + "\n")


def show(report: Report) -> None:
    """Print a report as a table; the last column is the time beside plain search on the first host at the same load."""
    rows = report.rows
    plain = {(row.k, row.concurrency): row.p50_ms for row in reversed(rows) if (row.system, row.plan) == (rows[0].system, PLAIN)}
    columns = ("k", "system", "plan", "at once", "p50 ms", "p99 ms", "lists/s", "forwards", "tokens", "lists equal", "p50 / plain")
    cells = [
        (
            str(row.k),
            f"{row.system}, cached" if row.cached else row.system,
            row.plan,
            str(row.concurrency),
            f"{row.p50_ms:.1f}",
            f"{row.p99_ms:.1f}",
            f"{row.lists_per_s:.0f}",
            f"{row.target_forwards:.2f}",
            f"{row.tokens:.0f}" if row.tokens else "",
            row.lists_equal,
            f"{row.p50_ms / plain[row.k, row.concurrency]:.2f}",
        )
        for row in rows
    ]
    print_table(f"{date.today()}, {platform.machine()}, {report.threads} threads", columns, cells)
    typer.echo(f"HTTP, queue and history store add {report.http_overhead_ms:.1f} ms at p50 (k = {OVERHEAD_K}, asked back to back).")
