"""The effect of replacing the catalog on the latency of lists.

Invariant: one server, one rate, one minute after the other, prompts cached before both: first nothing is replaced, then versions take turns
as fast as asked for. What differs between the two reports is what swaps cost. Needs an idle machine.
"""

import json
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.endings import BenchmarkError
from benchmarks.load.runs import LoadPlan, run_runs
from benchmarks.load.settings import LoadSettings
from benchmarks.load.small_model import make_model, served
from benchmarks.server_process import ServerProcess
from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from server.client import ProblemError

# Histories are of the first items, as many as the server lists at once.
READ_ITEMS = 1000


@dataclass(frozen=True)
class SwapFigures:
    """The results of two runs at one rate.

    Attributes:
        items: of each version.
        swaps: activations during the second run.
        activation_ms: median and longest time of one, seen by who asked for it.
        quiet_ms, swapping_ms: p50, p99 and longest latency of lists.
        failed: requests of both runs without a list.
        memory_mib: of both processes, before and after the swaps.
    """

    items: int
    swaps: int
    activation_ms: tuple[float, float]
    quiet_ms: tuple[float | None, ...]
    swapping_ms: tuple[float | None, ...]
    failed: int
    memory_mib: tuple[float, float]


def make_versions(folder: Path, count: int) -> int:
    """Write versions of the small catalog that each lack other items, none of the users' histories; return how many items they have.

    Items keep their identifiers, as from one day to the next, so users' prompts stay what they were.
    """
    catalog = load_catalog(folder / "catalog.jsonl")
    kept = len(catalog) - len(catalog) // 100
    for number in range(count):
        later = np.random.default_rng(number).permutation(np.arange(READ_ITEMS, len(catalog)))[: kept - READ_ITEMS]
        items = np.concatenate([np.arange(READ_ITEMS), np.sort(later)])
        version = Catalog.of(catalog.item_ids.take(items), catalog.tokens, catalog.codes[items], {})
        save_artefact(version, folder / f"version-{number}.catalog")
    return kept


def measure(server: ServerProcess, items: int, versions: int, rate: float, seconds: float, pause_seconds: float) -> SwapFigures:
    """Run without counting, then without swaps, then with them."""
    settings = LoadSettings(rate=rate, seconds=seconds, warmup_seconds=seconds / 4, timeouts_ms=(5000, 5000), growth=0.0)
    plan = LoadPlan(url=server.url, rates=[rate], settings=settings, users=200)
    durations: list[float] = []
    stop = threading.Event()

    def swap() -> None:
        while not stop.wait(pause_seconds):
            started = time.perf_counter()
            _activate(server, len(durations) % versions)
            durations.append(1000 * (time.perf_counter() - started))

    # All runs ask the same of the same users: without one that does not count, the first of the two would fill the caches for the second.
    run_runs(plan)
    (quiet,) = run_runs(plan)
    for number in range(versions):
        _activate(server, number)
    before = server.memory_mib()
    with ThreadPoolExecutor(1) as threads:
        swapper = threads.submit(swap)
        try:
            (swapping,) = run_runs(plan)
        finally:
            stop.set()
        # A swap that failed fails the measurement: without it there would be nothing to compare.
        swapper.result()
    return SwapFigures(
        items,
        len(durations),
        (float(np.median(durations)), max(durations)),
        (quiet.p50_ms, quiet.p99_ms, quiet.max_ms),
        (swapping.p50_ms, swapping.p99_ms, swapping.max_ms),
        sum(report.requests - report.on_time - report.late for report in (quiet, swapping)),
        (round(before, 1), round(server.memory_mib(), 1)),
    )


def _activate(server: ServerProcess, version: int) -> None:
    try:
        with server.api() as api:
            api.activate(f"version-{version}", by="measurement")
    except ProblemError as error:
        raise BenchmarkError(f"Version {version} could not be activated ({error.status}): {error}") from error


def run(rate: float, seconds: float, pause_seconds: float, flags: list[str]) -> None:
    """Measure and print JSON."""
    with tempfile.TemporaryDirectory(prefix="atspeed-swaps-") as name:
        folder = Path(name)
        make_model(folder)
        items = make_versions(folder, 3)
        with served(folder, "--catalogs", str(folder), *flags) as server:
            print(json.dumps(asdict(measure(server, items, 3, rate, seconds, pause_seconds)), indent=2))
