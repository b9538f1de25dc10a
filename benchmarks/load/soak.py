"""The soak: ten minutes of load with everything that goes wrong in ten minutes.

Clients hang up, deadlines are short and long, histories grow, and now and then the engine is killed. Then nothing may be missing: no event
that the server has taken, no key/value slot, no answer; and the API process may not have grown. Needs an idle machine; a server of the
benchmark's small random model is started for it.
"""

import json
import tempfile
import threading
import time
from dataclasses import replace
from pathlib import Path
from random import Random

import msgspec
import psutil

from benchmarks.endings import BenchmarkError
from benchmarks.load.report import LoadReport
from benchmarks.load.rounds import BUSY_SHARE
from benchmarks.load.runs import LoadPlan, run_runs
from benchmarks.load.small_model import make_model, served
from benchmarks.server_process import ServerProcess, answers

# Requests a second that two cores cannot serve, but that a generator beside them can still send.
MORE_THAN_ENOUGH = 300.0
SATURATION_SECONDS = 20.0
MOST_GROWTH = 0.02
# Until then memory may still be filled: caches, pools, the first engine after a kill.
SETTLED_SHARE = 0.3
LOOK_EVERY_SECONDS = 2.0
ALL_EVENTS = 1_000_000


class Soak(msgspec.Struct, kw_only=True):
    """The result of a run.

    Attributes:
        load: the run's figures.
        kills: engines killed.
        slowest_return_seconds: the longest that a killed engine was away.
        slots_used, waiting: key/value slots in use and requests that wait, after everything.
        api_mib: the API process's resident memory when it had settled, and at the end.
        growth: of it, as a share.
    """

    load: LoadReport
    kills: int
    slowest_return_seconds: float
    slots_used: float
    waiting: float
    api_mib: tuple[float, float]
    growth: float

    def broken(self) -> list[str]:
        """The promises that were not kept, as sentences."""
        load = self.load
        found = {
            f"{load.events_lost} events are lost.": load.events_lost,
            f"{load.errors} requests had no answer or a strange one: {load.mistakes}.": load.errors,
            f"{self.slots_used:.0f} key/value slots are still in use.": self.slots_used,
            f"{self.waiting:.0f} requests still wait.": self.waiting,
            f"The API process grew by {self.growth:.1%}.": self.growth > MOST_GROWTH,
            f"An engine was away for {self.slowest_return_seconds:.1f} s.": self.slowest_return_seconds > 20,
        }
        return [sentence for sentence, wrong in found.items() if wrong]


class FaultInjector(threading.Thread):
    """Kills the engine from time to time, and records how long it is away and how much memory the API process takes."""

    def __init__(self, server: ServerProcess, seconds: float, kill_every: float) -> None:
        super().__init__(daemon=True)
        self._server, self._until, self._kill_every = server, time.monotonic() + seconds, kill_every
        self._random = Random(0)
        self.kills = 0
        self.slowest_return = 0.0
        self.memory: list[tuple[float, float]] = []

    def run(self) -> None:
        """Go on until the time is over; the last engine is left time to come back."""
        started = time.monotonic()
        next_kill = started + self._kill_every
        while (now := time.monotonic()) < self._until:
            self.memory.append((now - started, self._server.memory_mib(engine=False)))
            if now > next_kill and self._until - now > self._kill_every / 2:
                self.slowest_return = max(self.slowest_return, kill_engine(self._server))
                self.kills += 1
                next_kill = time.monotonic() + self._kill_every * (0.5 + self._random.random())
            time.sleep(LOOK_EVERY_SECONDS)


def kill_engine(server: ServerProcess) -> float:
    """Kill the engine process, as the kernel does when memory is short; return how many seconds passed until another was ready.

    Raises:
        ProgramError: none was within two minutes.
    """
    killed, api = server.engine, psutil.Process(server.process.pid)
    killed.kill()
    return server.wait_for(lambda: killed not in api.children() and answers(server.client, "/ready"))


def soak(folder: Path, seconds: float, kill_every: float, users: int, flags: list[str]) -> Soak:
    """Run it."""
    make_model(folder)
    # Long enough that no history ever drops an event: then all must be there.
    with served(folder, "--history-max-events", str(ALL_EVENTS), *flags) as server:
        print("saturation")
        plan = LoadPlan(url=server.url, rates=[MORE_THAN_ENOUGH], seconds=SATURATION_SECONDS, warmup_seconds=10.0, users=users)
        (full,) = run_runs(plan)
        rate = round(BUSY_SHARE * full.completed_rps, 1)
        if not rate:
            raise BenchmarkError("The server made no list at all under full load: is the machine busy?")
        print(f"{seconds:.0f} s at {rate} requests a second, an engine killed about every {kill_every:.0f} s")
        injector = FaultInjector(server, seconds, kill_every)
        injector.start()
        warm_up = min(10.0, seconds / 2)
        (run,) = run_runs(replace(plan, rates=[rate], seconds=seconds, warmup_seconds=warm_up, hang_ups=0.05, timeouts_ms=(50, 2000)))
        injector.join()
        settled = [mib for age, mib in injector.memory if age > SETTLED_SHARE * seconds]
        before, after = min(settled), server.memory_mib(engine=False)
        return Soak(
            load=run,
            kills=injector.kills,
            slowest_return_seconds=round(injector.slowest_return, 1),
            slots_used=server.metric("atspeed_kv_slots_used"),
            waiting=server.metric("atspeed_waiting_requests"),
            api_mib=(round(before, 1), round(after, 1)),
            growth=round(after / before - 1, 4),
        )


def run(out: Path, seconds: float, kill_every: float, users: int, flags: list[str]) -> list[str]:
    """Soak, print a summary and write `soak.json`; returns the promises that were not kept, as sentences."""
    with tempfile.TemporaryDirectory(prefix="atspeed-soak-") as name:
        found = soak(Path(name), seconds, kill_every, users, flags)
    (out / "soak.json").write_text(json.dumps(msgspec.to_builtins(found), indent=2) + "\n")
    load = found.load
    print(
        f"{load.requests} requests, {load.on_time} lists in time, {load.refused} refused, {load.unavailable} met no engine, {load.hung_up} "
        f"hung up; {load.events_stored} events stored; {found.kills} engines killed, back after {found.slowest_return_seconds} s at most; "
        f"API process {found.api_mib[0]} -> {found.api_mib[1]} MiB"
    )
    return found.broken()
