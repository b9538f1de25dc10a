"""One run: requests at a rate, for a time.

Invariant: requests are due at moments of a Poisson process that nothing on the server's side can change, as if they were drawn beforehand;
and a run ends only when every request has ended, one way or another. Times are those of a clock that counts less than microseconds:
uvloop's own counts whole milliseconds.
"""

import asyncio
import time
from collections import defaultdict
from random import Random

import httpx
import msgspec

from benchmarks.load.counters import Answer, Counters
from benchmarks.load.report import LoadReport, make_report
from benchmarks.load.settings import LoadSettings
from benchmarks.load.target import Target
from benchmarks.load.users import Users
from drafting.undecodable import UNDECODABLE

# After a request's timeout, an answer is waited for so much longer; without one then, none was ever sent.
_LAST_WAIT_SECONDS = 10.0


class LoadRun:
    """One run against one target."""

    def __init__(self, target: Target, users: Users, settings: LoadSettings) -> None:
        self._target = target
        self._users = users
        self._settings = settings
        # Requests draw in the order in which their turns and answers come; when they are due is drawn apart from that.
        self._arrivals = Random(f"arrivals {settings.seed}")
        self._random = Random(f"requests {settings.seed}")
        self._counters = Counters()
        self._warm_up_counters = Counters()
        self._name = f"{time.time():.3f}"
        self._stored: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._refused_events = 0
        self._decoder = msgspec.json.Decoder(Answer)

    async def run(self) -> LoadReport:
        """Send requests, wait for the last answer, and check that every stored event is still there."""
        settings = self._settings
        due = time.perf_counter()
        measured_from = due + settings.warmup_seconds
        end = measured_from + settings.seconds
        tasks: set[asyncio.Task[None]] = set()
        while (due := due + self._arrivals.expovariate(settings.rate)) < end:
            # Also when it is late, it gives the answers that have come a turn.
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            # Timers of uvloop count whole milliseconds, and may end early: then the request is due when it is sent.
            task = asyncio.create_task(self._request(min(due, time.perf_counter()), counted=due >= measured_from))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return make_report(self._target.url, settings, self._counters, self._stored_count, self._refused_events, await self._lost_events())

    async def _request(self, due: float, *, counted: bool) -> None:
        counters = self._counters if counted else self._warm_up_counters
        counters.lag.add(time.perf_counter() - due)
        user, timeout_ms = self._users.draw(), self._random.randint(*self._settings.timeouts_ms)
        timeout = timeout_ms / 1000
        hangs_up = self._random.random() < self._settings.hang_ups
        patience = self._random.random() * timeout if hangs_up else timeout + _LAST_WAIT_SECONDS
        try:
            async with asyncio.timeout(patience):
                response = await self._target.recommend(user, self._settings.k, timeout_ms)
        except TimeoutError as error:
            return counters.add_hang_up() if hangs_up else counters.add_error(error)
        except httpx.TransportError as error:
            return counters.add_error(error)
        seconds = time.perf_counter() - due
        if response.status_code != httpx.codes.OK:
            return counters.add_failure(response.status_code, seconds)
        await self._take(user, response, seconds, timeout, counters)

    async def _take(self, user: str, response: httpx.Response, seconds: float, timeout: float, counters: Counters) -> None:
        """Count a list; now and then the user takes one of its items."""
        try:
            answer = self._decoder.decode(response.content)
        except UNDECODABLE as error:
            return counters.add_error(error)
        counters.add_list(seconds, timeout, answer.usage)
        if not answer.items or self._random.random() >= self._settings.growth:
            return
        event_id = f"{self._name}-{self._stored_count + self._refused_events}-{self._random.getrandbits(32):x}"
        event = {"item_id": self._random.choice(answer.items).item_id, "event_id": event_id, "timestamp": (now := time.time())}
        try:
            taken = await self._target.append(user, [event])
        except httpx.TransportError:
            taken = False
        if taken:
            self._stored[user][event_id] = now
        else:
            self._refused_events += 1

    @property
    def _stored_count(self) -> int:
        return sum(map(len, self._stored.values()))

    async def _lost_events(self) -> int:
        """Events that the server has taken and does not have, other than those that a full history has dropped for newer ones."""
        lost = 0
        for user, events in self._stored.items():
            there = await self._target.event_times(user)
            oldest = min(there.values(), default=0.0)
            lost += sum(event not in there and at > oldest for event, at in events.items())
        return lost
