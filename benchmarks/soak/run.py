"""The soak: phases of load and faults, with an idle point and a proof after each.

Invariant: whatever the server acknowledged in a phase is looked for right after it, when nothing runs, and once more at the end.
"""

import asyncio
import os
import platform
import tempfile
import time
from collections.abc import Awaitable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from random import Random

import msgspec
import uvloop

from benchmarks.endings import BenchmarkError
from benchmarks.soak.answers import Answers
from benchmarks.soak.catalog_lines import CatalogLines
from benchmarks.soak.client import SoakClient
from benchmarks.soak.disk import SmallDisk
from benchmarks.soak.event_ledger import EventLedger
from benchmarks.soak.faults import FaultInjector
from benchmarks.soak.memory import IdlePoint, api_growth, engine_growth, idle_point
from benchmarks.soak.operator import Operator
from benchmarks.soak.phases import Lethal, Phase, make_phases
from benchmarks.soak.plot import save_plot
from benchmarks.soak.report import SoakReport, make_timeline, plain
from benchmarks.soak.traffic import Traffic
from benchmarks.soak.trial import RedisProcess, Trial
from benchmarks.soak.version_ledger import VersionLedger
from benchmarks.time_bar import time_bar

ENGINE_HANG_SECONDS = 10.0
KV_MEMORY_GIB = 0.1
OPERATOR_PAUSE_SECONDS = 2.0
# Shares of a phase for each fault that no process dies of, and for what comes between two of them.
_FAULT_SHARE, _GAP_SHARE = 0.12, 0.08
_LONGEST_FAULT_SECONDS = 5.0
# What still runs when the load ends has come to its deadline by then.
_DRAIN_SECONDS, _SETTLE_SECONDS = 30.0, 2.0


@dataclass(frozen=True, kw_only=True)
class SoakPlan:
    """Length, load and server of a soak.

    Attributes:
        seconds: length of all phases together.
        rate: requests of users a second.
        flags: further flags of the server.
        shape: name of the model's and the catalog's, of `benchmarks/systems/shapes.py`.
    """

    seconds: float
    rate: float
    seed: int = 0
    flags: tuple[str, ...] = ()
    shape: str = "small"


class Soak:
    """One run against one server."""

    def __init__(self, plan: SoakPlan, trial: Trial, redis: RedisProcess, disk: SmallDisk, lines: CatalogLines) -> None:
        self._plan, self._trial, self._disk, self._lines = plan, trial, disk, lines
        self._random = Random(plan.seed)
        self._answers = Answers()
        self._events = EventLedger()
        self._versions = VersionLedger("", "", {})
        self._client = SoakClient(trial, self._answers)
        self._traffic = Traffic(self._client, self._answers, self._events, self._versions, lines.names, plan.seed)
        self._operator = Operator(self._client, self._answers, self._versions, lines, disk, plan.seed)
        self._faults = FaultInjector(trial, redis, disk, self._answers, ENGINE_HANG_SECONDS)
        self._points: list[IdlePoint] = []
        self._slots_used = self._waiting = 0.0

    async def run(self) -> SoakReport:
        """Go through all phases."""
        self._answers.proving = True
        await self._client.read_document()
        served = await self._client.ask("GET", "/v1/catalog")
        assert served is not None, "the server is ready"
        self._versions.start = self._versions.active = served.body["version"]
        self._versions.versions[self._versions.start] = frozenset(self._lines.names)
        await self._operator.name_filters()
        await self._traffic.seed()
        self._answers.proving = False
        phases = make_phases(self._plan.seconds)
        for number, phase in enumerate(phases, start=1):
            title = f"phase {number} of {len(phases)}{f', {phase.lethal.value}' if phase.lethal else ''}"
            async with time_bar(title, phase.seconds):
                await self._load(phase)
            await self._rest()
            print(f"{title}: {self._progress()}", flush=True)
        self._answers.proving = True
        await self._operator.prove_all()
        await self._client.close()
        return self._report()

    async def _load(self, phase: Phase) -> None:
        """Load the server while things go wrong, for as long as the phase lasts and until it is itself again."""
        stop, began = asyncio.Event(), time.monotonic()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._traffic.run(self._plan.rate, stop))
                group.create_task(self._operator.run(OPERATOR_PAUSE_SECONDS, stop))
                await self._harm(phase)
                await asyncio.sleep(max(0.0, began + phase.seconds - time.monotonic()))
                stop.set()
        except* BenchmarkError as errors:
            raise errors.exceptions[0] from errors

    async def _harm(self, phase: Phase) -> None:
        """The faults of a phase, those that no process dies of one after the other."""
        faults, gap = self._faults, _GAP_SHARE * phase.seconds
        seconds = min(_LONGEST_FAULT_SECONDS, _FAULT_SHARE * phase.seconds)
        await asyncio.sleep(gap)
        await faults.pause_engine()
        lethal: list[Awaitable[None]] = []
        if phase.lethal in (Lethal.KILL_ENGINE, Lethal.HANG_ENGINE):
            lethal = [self._harm_engine(phase.lethal, self._random.random() * phase.seconds / 3)]
        await asyncio.gather(self._harm_stores(seconds, gap), *lethal)
        if phase.lethal is Lethal.KILL_API:
            await faults.kill_api()
            await self._client.read_document()
            await self._operator.name_filters()

    async def _harm_stores(self, seconds: float, gap: float) -> None:
        # Changes of versions take seconds, and some of them must meet the full disk.
        for fault, length in (
            (self._faults.slow_redis, seconds),
            (self._faults.fill_disk, 2 * seconds),
            (self._faults.stall_redis, seconds),
        ):
            await asyncio.sleep(gap)
            await fault(length)

    async def _harm_engine(self, fault: Lethal, after: float) -> None:
        await asyncio.sleep(after)
        await (self._faults.kill_engine() if fault is Lethal.KILL_ENGINE else self._faults.hang_engine())

    async def _rest(self) -> None:
        """Prove everything, and look at slots and memory when nothing runs."""
        self._answers.proving = True
        await self._traffic.prove()
        await self._operator.prove()
        server, until = self._trial.server, time.monotonic() + _DRAIN_SECONDS

        def in_use() -> tuple[float, float]:
            waiting = server.metric("atspeed_waiting_requests") + server.metric("atspeed_running_requests")
            return server.metric("atspeed_kv_slots_used"), waiting

        while any(used := await asyncio.to_thread(in_use)) and time.monotonic() < until:
            await asyncio.sleep(0.2)
        self._slots_used, self._waiting = max(self._slots_used, used[0]), max(self._waiting, used[1])
        await asyncio.sleep(_SETTLE_SECONDS)
        self._points.append(idle_point(time.monotonic() - self._answers.started, server.process.pid, server.engine.pid))
        self._answers.proving = False

    def _progress(self) -> str:
        point, broken = self._points[-1], [sentence for counts in self._answers.broken.values() for sentence in counts]
        memory = f"API process {point.api_mib:.1f} MiB, engine {point.engine_mib:.1f} MiB"
        return f"{self._answers.requests} requests so far, {memory}, broken promises: {' '.join(broken) or 'none'}"

    def _report(self) -> SoakReport:
        answers, points = self._answers, self._points
        return SoakReport(
            date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            machine=f"{os.cpu_count()} cores, {platform.platform()}, Python {platform.python_version()}",
            seconds=self._plan.seconds,
            rate=self._plan.rate,
            seed=self._plan.seed,
            engine_hang_seconds=ENGINE_HANG_SECONDS,
            disk=self._disk.kind,
            api_starts=self._trial.starts,
            requests=answers.requests,
            answers=plain(answers.by_operation),
            events_acknowledged=self._events.acknowledged,
            users_forgotten=len(self._events.forgotten),
            versions_acknowledged=self._versions.acknowledged_versions,
            items_acknowledged=self._versions.acknowledged_items,
            activations_acknowledged=len(self._versions.activations),
            slots_used=self._slots_used,
            waiting=self._waiting,
            faults=self._faults.faults,
            idle_points=points,
            api_growth=api_growth(points),
            engine_growth=engine_growth(points),
            timeline=make_timeline(answers),
            broken=plain({promise.value: counts for promise, counts in answers.broken.items()}),
        )


def soak(folder: Path, plan: SoakPlan) -> SoakReport:
    """Run it in a folder.

    Raises:
        ProgramError: a server did not start, or ended by itself.
    """
    lines = CatalogLines(plan.shape)
    lines.write(folder)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisProcess(folder))
        disk = stack.enter_context(SmallDisk(folder / "versions"))
        options = {
            # The quickest to start again, on the core that the generator leaves it.
            "engine": "transformers",
            "threads": 1,
            "target": folder / "model",
            "catalog": folder / "catalog.jsonl",
            "catalogs": disk.folder,
            "histories": redis.url,
            # So little that prompts of earlier requests fill it in a minute: what grows after that is no cache.
            "kv-memory-gib": KV_MEMORY_GIB,
            # Long enough that no history ever drops an event: then all must be there.
            "history-max-events": 1_000_000,
            "engine-hang-seconds": ENGINE_HANG_SECONDS,
        }
        trial = Trial(folder, *(text for name, value in options.items() for text in (f"--{name}", str(value))), *plan.flags)
        stack.callback(trial.close)
        trial.start()
        return uvloop.run(Soak(plan, trial, redis, disk, lines).run())


def run(out: Path, plan: SoakPlan) -> list[str]:
    """Soak, print a summary, write `soak.json` and `soak.png`; returns the promises that were not kept, as sentences."""
    with tempfile.TemporaryDirectory(prefix="atspeed-soak-") as name:
        found = soak(Path(name), plan)
    (out / "soak.json").write_bytes(msgspec.json.format(msgspec.json.encode(found)) + b"\n")
    save_plot(found, out / "soak.png")
    print(found.summary())
    return found.sentences()
