"""One run: requests at a rate, for a time.

Invariant: the moments at which requests are due are drawn beforehand as it were, a Poisson process that nothing on the server's side can
change; and a run ends only when every request has ended, one way or another.
"""

import asyncio
import time
from collections import defaultdict
from random import Random

import msgspec

from benchmarks.load.connection import Reply
from benchmarks.load.population import Population
from benchmarks.load.report import LoadReport, make_report
from benchmarks.load.settings import LoadSettings
from benchmarks.load.site import Site
from benchmarks.load.tally import Answer, Tally

# After a request's timeout, an answer is waited for so much longer; without one then, none was ever sent.
_LAST_WAIT_SECONDS = 10.0


class LoadRun:
    """One run against one site."""

    def __init__(self, site: Site, population: Population, settings: LoadSettings) -> None:
        self._site = site
        self._population = population
        self._settings = settings
        self._random = Random(settings.seed)
        self._tally = Tally()
        self._name = f"{time.time():.3f}"
        self._stored: defaultdict[str, dict[str, float]] = defaultdict(dict)
        self._refused_events = 0
        self._decoder = msgspec.json.Decoder(Answer)

    async def run(self) -> LoadReport:
        """Sends, waits for the last answer, looks whether every stored event is still there."""
        settings, loop = self._settings, asyncio.get_running_loop()
        measured_from = loop.time() + settings.warmup_seconds
        due, end = loop.time(), measured_from + settings.seconds
        tasks: set[asyncio.Task[None]] = set()
        while (due := due + self._random.expovariate(settings.rate)) < end:
            # Also when it is late, it gives the answers that have come a turn.
            await asyncio.sleep(max(0.0, due - loop.time()))
            task = loop.create_task(self._request(due, counted=due >= measured_from))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return make_report(self._site.url, settings, self._tally, self._stored_count, self._refused_events, await self._lost_events())

    async def _request(self, due: float, *, counted: bool) -> None:
        loop = asyncio.get_running_loop()
        tally = self._tally if counted else Tally()
        tally.lag.add(loop.time() - due)
        user, timeout_ms = self._population.draw(), self._random.randint(*self._settings.timeouts_ms)
        timeout = timeout_ms / 1000
        hangs_up = self._random.random() < self._settings.hang_ups
        patience = self._random.random() * timeout if hangs_up else timeout + _LAST_WAIT_SECONDS
        try:
            async with asyncio.timeout(patience):
                reply = await self._site.recommend(user, self._settings.k, timeout_ms)
        except TimeoutError as error:
            return tally.add_hang_up() if hangs_up else tally.add_error(error)
        except OSError as error:
            return tally.add_error(error)
        seconds = loop.time() - due
        if reply.status != 200:
            return tally.add_failure(reply.status, seconds)
        await self._take(user, reply, seconds, timeout, tally)

    async def _take(self, user: str, reply: Reply, seconds: float, timeout: float, tally: Tally) -> None:
        """Counts a list; now and then the user likes something in it."""
        answer = self._decoder.decode(reply.body)
        tally.add_list(seconds, timeout, answer.usage)
        if not answer.items or self._random.random() >= self._settings.growth:
            return
        event_id = f"{self._name}-{self._stored_count + self._refused_events}-{self._random.getrandbits(32):x}"
        event = {"item_id": self._random.choice(answer.items).item_id, "event_id": event_id, "timestamp": (now := time.time())}
        try:
            taken = await self._site.append(user, [event])
        except OSError:
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
            there = await self._site.event_times(user)
            oldest = min(there.values(), default=0.0)
            lost += sum(event not in there and at > oldest for event, at in events.items())
        return lost
