"""Interleaved timing: every system answers the same question in turn, round after round, so that a drifting machine drifts for all.

Invariant: one system runs at a time. Each lives in a process of its own and sleeps while another works, because threads that two
libraries keep spinning in one process, or in two busy ones, slow each other down many times over.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import psutil

from drafting.catalog import Catalog
from verification.benchmark.systems import Outcome, make_system

# Intel's OpenMP threads spin for 200 ms after their last work.
SETTLE_SECONDS = 0.25
BUSY_SHARE = 0.15


@dataclass(frozen=True)
class Row:
    """One line of a report; times are milliseconds per request."""

    system: str
    plan: str
    k: int
    cached: bool
    concurrency: int
    p50_ms: float
    p99_ms: float
    target_forwards: float
    tokens: float
    lists_equal: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class SystemFailedError(RuntimeError):
    """A system could not be measured; the message is a sentence."""


class Measured(Protocol):
    """A system that answers while the others sleep."""

    name: str

    def wait_ready(self) -> None: ...

    def search(self, history: list[int], k: int) -> Outcome: ...

    def close(self) -> None: ...


class SystemProcess:
    """A system in its own process, asked over a pipe."""

    def __init__(self, name: str, target: Path, catalog: Path, threads: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.name = name
        self._pipe, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there, name, target, catalog, threads), daemon=True)
        self._process.start()
        there.close()

    def wait_ready(self) -> None:
        """Returns when the system is loaded.

        Raises:
            SystemFailedError: it died while loading; its own message is on the standard error stream.
        """
        self._receive()

    def search(self, history: list[int], k: int) -> Outcome:
        self._pipe.send((history, k))
        outcome: Outcome = self._receive()
        return outcome

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise SystemFailedError(f"The system {self.name!r} died: see its message above.") from error

    def close(self) -> None:
        """Ends the process; it holds nothing that would need an orderly end."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, name: str, target: Path, catalog: Path, threads: int) -> None:
    system = make_system(name, target, Catalog.load(catalog), threads)
    pipe.send("ready")
    while True:
        try:
            history, k = pipe.recv()
        except EOFError:
            return
        pipe.send(system.search(history, k))


def busy_share(seconds: float = 1.0) -> float:
    """The share of the processors that other work takes, between 0 and 1."""
    return float(psutil.cpu_percent(interval=seconds)) / 100


def compare(
    systems: Sequence[Measured], histories: Sequence[list[int]], ks: Sequence[int], warm_up: int, progress: Callable[[], None]
) -> list[Row]:
    """Times every system on every history at every k; the first system is the one whose lists the others are held against.

    Args:
        warm_up: how many histories come first without being counted.
        progress: called after each search.
    """
    rows = []
    for k in ks:
        outcomes: dict[str, list[Outcome]] = {system.name: [] for system in systems}
        for number, history in enumerate(histories):
            shift = number % len(systems)
            for system in [*systems[shift:], *systems[:shift]]:
                time.sleep(SETTLE_SECONDS)
                outcome = system.search(history, k)
                if number >= warm_up:
                    outcomes[system.name].append(outcome)
                progress()
        reference = [outcome.identifiers for outcome in outcomes[systems[0].name]]
        rows += [_row(system.name, k, outcomes[system.name], reference) for system in systems]
    return rows


def _row(name: str, k: int, outcomes: Sequence[Outcome], reference: Sequence[list[tuple[int, ...]]]) -> Row:
    milliseconds = 1e3 * np.array([outcome.seconds for outcome in outcomes])
    equal = sum(outcome.identifiers == expected for outcome, expected in zip(outcomes, reference, strict=True))
    return Row(
        system=name,
        plan="none",
        k=k,
        cached=False,
        concurrency=1,
        p50_ms=float(np.median(milliseconds)),
        p99_ms=float(np.percentile(milliseconds, 99)),
        target_forwards=float(np.mean([outcome.target_forwards for outcome in outcomes])),
        tokens=float(np.mean([outcome.tokens for outcome in outcomes])),
        lists_equal=f"{equal}/{len(outcomes)}",
    )
