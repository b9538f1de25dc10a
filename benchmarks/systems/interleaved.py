"""Interleaved timing: every contender answers the same question in turn, round after round, so that a drifting machine drifts for all.

Invariant: one system runs at a time. Each lives in a process of its own and sleeps while another works, because threads that two
libraries keep spinning in one process, or in two busy ones, slow each other down many times over.
"""

import multiprocessing
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, SpawnContext
from typing import Any, Protocol

import numpy as np
import psutil

from benchmarks.endings import BenchmarkError
from benchmarks.rotation import in_turn
from benchmarks.systems.question import PLAIN, Outcome, Question, System, SystemSpec
from benchmarks.systems.systems import make_system
from drafting.errors import SetupError

# Intel's OpenMP threads spin for 200 ms after their last work.
SETTLE_SECONDS = 0.25
# A process has a whole interpreter of its own, as when its system is used alone.
SPAWN = multiprocessing.get_context("spawn")
Processes = SpawnContext | ForkServerContext
BUSY_SHARE = 0.15


@dataclass(frozen=True)
class Row:
    """One line of a report; times are milliseconds per request.

    Attributes:
        cached: whether the user's earlier prompt was still in memory.
        concurrency: how many requests ran at once.
        target_forwards, tokens: means over the requests.
        lists_equal: of how many requests the list is that of the first contender, as `equal/all`.
        lists_per_s: finished lists per second: a closed loop's clients over their mean time.
    """

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
    lists_per_s: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class SystemFailedError(BenchmarkError):
    """A system could not be measured; the message is a sentence."""


class Measured(Protocol):
    """A system that answers while the others sleep."""

    name: str

    def wait_ready(self) -> None: ...

    def search(self, question: Question) -> list[Outcome]: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class Contender:
    """One system in one setting."""

    system: Measured
    plan: str = PLAIN
    concurrency: int = 1
    cached: bool = False

    @property
    def block(self) -> int:
        """Number of histories per turn: one, or with concurrency so many that most of them meet a full engine."""
        return 1 if self.concurrency == 1 else 2 * self.concurrency


@dataclass(frozen=True)
class _Refusal:
    """Why a system cannot be loaded, as a sentence."""

    reason: str


class SystemProcess:
    """A system in its own process, asked over a pipe."""

    def __init__(self, spec: SystemSpec, make: Callable[[SystemSpec], System] = make_system, processes: Processes = SPAWN) -> None:
        """
        Args:
            make: loads it there.
            processes: start the process.
        """
        self.name = spec.name
        self._pipe, there = processes.Pipe()
        self._process = processes.Process(target=_serve, args=(there, spec, make), daemon=True)
        self._process.start()
        there.close()

    def wait_ready(self) -> None:
        """Wait until the system is loaded.

        Raises:
            SystemFailedError: it cannot be loaded, or died; its own message is then on the standard error stream.
        """
        if isinstance(answer := self._receive(), _Refusal):
            raise SystemFailedError(answer.reason)

    def search(self, question: Question) -> list[Outcome]:
        self._pipe.send(question)
        outcomes: list[Outcome] = self._receive()
        return outcomes

    def _receive(self) -> Any:
        try:
            return self._pipe.recv()
        except EOFError as error:
            raise SystemFailedError(f"The system {self.name!r} died: see its message above.") from error

    def close(self) -> None:
        """End the process; it holds nothing that would need an orderly end."""
        self._pipe.close()
        self._process.kill()
        self._process.join()


def _serve(pipe: Connection, spec: SystemSpec, make: Callable[[SystemSpec], System]) -> None:
    try:
        system = make(spec)
    except SetupError as error:
        pipe.send(_Refusal(str(error)))
        return
    pipe.send("ready")
    while True:
        try:
            question = pipe.recv()
        except EOFError:
            return
        pipe.send(system.search(question))


def busy_share(seconds: float = 1.0) -> float:
    """The share of the processors that other work takes, between 0 and 1."""
    return float(psutil.cpu_percent(interval=seconds)) / 100


def compare(
    contenders: Sequence[Contender], histories: Sequence[list[int]], ks: Sequence[int], warm_up: int, progress: Callable[[int], object]
) -> list[Row]:
    """Time every contender on every history at every k; the first one's lists are what the others' are held against.

    Args:
        warm_up: how many histories come first without being counted.
        progress: told after each turn how many histories were asked.
    """
    rows = []
    for k in ks:
        outcomes: dict[Contender, list[Outcome]] = {contender: [] for contender in contenders}
        for concurrency in dict.fromkeys(contender.concurrency for contender in contenders):
            group = [contender for contender in contenders if contender.concurrency == concurrency]
            for turn, start in enumerate(range(0, len(histories), group[0].block)):
                for contender in in_turn(group, turn):
                    time.sleep(SETTLE_SECONDS)
                    outcomes[contender] += (found := _ask(contender, k, histories, start))
                    progress(len(found))
        reference = [outcome.identifiers for outcome in outcomes[contenders[0]][warm_up:]]
        rows += [_row(contender, k, outcomes[contender][warm_up:], reference) for contender in contenders]
    return rows


def _ask(contender: Contender, k: int, histories: Sequence[list[int]], start: int) -> list[Outcome]:
    """Ask the block of histories from `start` on, and before it some that do not count.

    One at a time it is one: a processor that has just slept is slow for some milliseconds, and the one of a server under traffic does not
    sleep. Together they are what the last block lacks: a system that takes many in one call would answer those left over under less load.
    """
    block = histories[start : start + contender.block]
    lacking = contender.block - len(block) if start else 0
    before = [histories[start - 1]] if contender.concurrency == 1 else histories[:lacking]
    question = Question([*before, *block], k, contender.plan, contender.concurrency, contender.cached)
    return contender.system.search(question)[-len(block) :]


def _row(contender: Contender, k: int, outcomes: Sequence[Outcome], reference: Sequence[list[tuple[int, ...]]]) -> Row:
    milliseconds = 1e3 * np.array([outcome.seconds for outcome in outcomes])
    equal = sum(outcome.identifiers == expected for outcome, expected in zip(outcomes, reference, strict=True))
    return Row(
        system=contender.system.name,
        plan=contender.plan,
        k=k,
        cached=contender.cached,
        concurrency=contender.concurrency,
        p50_ms=float(np.median(milliseconds)),
        p99_ms=float(np.percentile(milliseconds, 99)),
        target_forwards=float(np.mean([outcome.target_forwards for outcome in outcomes])),
        tokens=float(np.mean([outcome.tokens for outcome in outcomes])),
        lists_equal=f"{equal}/{len(outcomes)}",
        lists_per_s=1e3 * contender.concurrency / float(np.mean(milliseconds)),
    )
