"""The users of a soak: lists of every kind, events, histories, deletions, and clients that hang up.

Invariant: requests come at random times at one rate, whatever becomes of those before them (Poisson), and who asks what follows from the
seed. An event that was not acknowledged is sent once more, as any client would.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from random import Random
from typing import Any

from benchmarks.soak.answers import Answers, Promise
from benchmarks.soak.catalog_lines import GROUPS, READ_ITEMS
from benchmarks.soak.client import SoakClient
from benchmarks.soak.event_ledger import EventLedger, lost_events
from benchmarks.soak.list_check import list_complaint
from benchmarks.soak.version_ledger import VersionLedger

USERS = 200
FIRST_ITEMS = 12
BATCH = 8
# Beyond a request's own deadline, its answer is waited for so much longer.
_LAST_WAIT_SECONDS = 20.0
_TIMEOUTS_MS = (50, 2000)
_LISTS, _BATCHES = "/v1/recommendations", "/v1/recommendations:batch"


class Traffic:
    """Sends requests until it is told to stop."""

    def __init__(
        self, client: SoakClient, answers: Answers, events: EventLedger, versions: VersionLedger, names: Sequence[str], seed: int
    ) -> None:
        """`names` are those of the catalog's items."""
        self._client, self._answers = client, answers
        self._events, self._versions = events, versions
        self._items = names[:READ_ITEMS]
        self._random = Random(seed)
        self._numbers = itertools.count()
        self._users = [f"soak-{number}" for number in range(USERS)]
        self._kinds: dict[Callable[[], Coroutine[None, None, None]], int] = {
            self._by_user: 50,
            self._by_history: 12,
            self._filtered: 8,
            self._sampled: 5,
            self._hang_up: 5,
            self._batch: 3,
            self._append: 10,
            self._read: 5,
            self._forget: 2,
        }

    async def seed(self) -> None:
        """Give all users their first histories."""
        for user in self._users:
            await self._send(user, [self._event(self._random.choice(self._items)) for _ in range(FIRST_ITEMS)])

    async def run(self, rate: float, stop: asyncio.Event) -> None:
        """Send requests until `stop` is set, and wait for the last answer."""
        loop = asyncio.get_running_loop()
        due = loop.time()
        async with asyncio.TaskGroup() as group:
            while not stop.is_set():
                due += self._random.expovariate(rate)
                await asyncio.sleep(max(0.0, due - loop.time()))
                (kind,) = self._random.choices([*self._kinds], [*self._kinds.values()])
                group.create_task(kind())

    async def prove(self) -> int:
        """Read every history; returns how many acknowledged events they lack, each of which is a broken promise."""
        lost = 0
        for user in list(self._events.users):
            lost += await self._read_history(user)
        for user in sorted(self._events.forgotten):
            await self._read_history(user)
        return lost

    async def _by_user(self) -> None:
        user = self._user()
        answer = await self._list({"user_id": user, "exclude_history": self._random.random() < 0.3})
        if answer is not None and answer["items"] and self._random.random() < 0.4:
            # The user takes one of the items that the server has just listed.
            await self._send(user, [self._event(self._random.choice(answer["items"])["item_id"])])

    async def _by_history(self) -> None:
        await self._list({"history": self._history(), "exclude": self._random.sample(self._items, 20)})

    async def _filtered(self) -> None:
        group = self._random.randrange(GROUPS)
        await self._list({"user_id": self._user(), "filter": f"group-{group}"}, group)

    async def _sampled(self) -> None:
        await self._list({"history": self._history(), "verification": "gumbel", "seed": self._random.randrange(1000)})

    async def _hang_up(self) -> None:
        body = {"user_id": self._user(), "k": 20, "timeout_ms": 2000}
        await self._client.ask("POST", _LISTS, body, patience=self._random.random() * 0.3, hangs_up=True)

    async def _batch(self) -> None:
        requests = [{"user_id": self._user(), "k": 5, "timeout_ms": 5000} for _ in range(BATCH)]
        answer = await self._client.ask("POST", _BATCHES, {"requests": requests}, patience=5.0 + _LAST_WAIT_SECONDS)
        if answer is not None and answer.ok:
            for request, entry in zip(requests, answer.body["results"], strict=True):
                if entry["status"] == 200:
                    self._check(request, entry["recommendation"], None)

    async def _append(self) -> None:
        user = self._user()
        await self._send(user, [self._event(item) for item in self._random.choices(self._items, k=self._random.randint(1, 3))])

    async def _read(self) -> None:
        await self._read_history(self._user())

    async def _forget(self) -> None:
        """Somebody who comes once, and asks to be forgotten."""
        user = f"soak-once-{next(self._numbers)}"
        if await self._send(user, [self._event(self._random.choice(self._items))]):
            answer = await self._client.ask("DELETE", f"/v1/users/{user}", operation="DELETE /v1/users/{user_id}", user=user)
            if answer is not None and answer.ok:
                self._events.forget(user)
            elif answer is None or answer.status == 503:
                # It may have happened: such a user is nobody whom a promise is about.
                self._events.users.pop(user, None)
            else:
                self._answers.complain(Promise.NOTHING_LOST, f"DELETE of a user with an acknowledged event answered {answer.status}.")

    async def _list(self, body: Mapping[str, Any], group: int | None = None) -> Mapping[str, Any] | None:
        timeout_ms = self._random.randint(*_TIMEOUTS_MS)
        request = {"k": self._random.choice((1, 5, 10, 20)), "timeout_ms": timeout_ms, **body}
        answer = await self._client.ask("POST", _LISTS, request, patience=timeout_ms / 1000 + _LAST_WAIT_SECONDS)
        if answer is None or not answer.ok:
            return None
        self._check(request, answer.body, group)
        return dict(answer.body)

    def _check(self, request: Mapping[str, Any], answer: Mapping[str, Any], group: int | None) -> None:
        items = self._versions.versions.get(answer["catalog_version"])
        self._answers.complain(Promise.NOTHING_INVENTED, list_complaint(request, answer, items, group))

    async def _send(self, user: str, events: Sequence[Mapping[str, Any]]) -> bool:
        """Append events, and once more if they were not acknowledged; whether they were in the end."""
        self._events.send(user, events)
        for _ in range(2):
            operation = "POST /v1/users/{user_id}/events"
            answer = await self._client.ask("POST", f"/v1/users/{user}/events", {"events": events}, operation=operation, user=user)
            if answer is not None and answer.ok:
                self._events.acknowledge(user, events)
                return True
            if answer is not None and answer.status == 422:
                # A version without the item has just been activated.
                return False
            await asyncio.sleep(0.5)
        return False

    async def _read_history(self, user: str) -> int:
        """Read a user's history and check it; returns how many acknowledged events it lacks."""
        due = self._events.due(user)
        operation = "GET /v1/users/{user_id}/history"
        answer = await self._client.ask("GET", f"/v1/users/{user}/history", operation=operation, user=user)
        if answer is None or answer.status not in (200, 404):
            return 0
        history = answer.body["events"] if answer.ok else []
        if lost := lost_events(due, history):
            self._answers.complain(Promise.NOTHING_LOST, f"The history of {user} lacks {lost} acknowledged events.")
        self._answers.complain(Promise.NOTHING_INVENTED, self._events.complaint(user, history))
        return lost

    def _event(self, item: str) -> dict[str, Any]:
        return {"item_id": item, "event_id": f"event-{next(self._numbers)}", "timestamp": round(time.time(), 3)}

    def _history(self) -> list[str]:
        return self._random.choices(self._items, k=self._random.randint(1, FIRST_ITEMS))

    def _user(self) -> str:
        # The first ones ask more often than the last.
        return self._users[int(USERS * self._random.random() ** 2)]
