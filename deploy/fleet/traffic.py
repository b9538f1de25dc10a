"""What clients of the fleet do, and what they see: random changes, and lists all the while.

Invariant: every request goes to a replica by chance, once, and is noted with its times, whatever comes of it. A change that is not answered
with success may have happened or not.
"""

import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from benchmarks.soak.catalog_lines import group_of
from deploy.fleet.replicas import Fleet

FILTERS = [f"filter-{number}" for number in range(6)]
# All versions have the first ones, which histories and filters are made of.
KEPT_ITEMS = 100
K = 3
LIST_PAUSE_SECONDS = 0.1
# While nothing can be changed, changes are not used up.
FAILED_PAUSE_SECONDS = 1.0
# So many uploads in a row want one name. Each takes seconds of a processor, more than all else that clients do.
SAME_NAME = 3
KINDS = {"put": 7, "drop": 1, "upload": 2, "activate": 4, "rollback": 1, "items": 4}


@dataclass(kw_only=True)
class Seen:
    """One request and its answer; times in seconds since 1970.

    Attributes:
        kind: one of `KINDS`, or `list`.
        name: of the filter or the version.
        what: the filter's expression, or item ids.
        status: 0 if no answer came.
        revision: what the answer says of it; -1 without an answer.
        replica: address of who answered.
        behind: for how long that server could not know what others have written, as it has said; 0 if it did not.
    """

    kind: str
    name: str = ""
    what: str | frozenset[str] = ""
    begun: float = 0.0
    ended: float = 0.0
    status: int = 0
    revision: int = -1
    replica: str = ""
    behind: float = 0.0
    answer: Any = None

    @property
    def is_done(self) -> bool:
        """Whether the server has said that it is done."""
        return 200 <= self.status < 300


@dataclass
class Traffic:
    """Clients of one trial.

    Attributes:
        start: name of the version that the fleet is started with.
        on_write: called after each change.
    """

    fleet: Fleet
    seed: str
    writes: int
    start: str
    on_write: Callable[[], None]
    changes: list[Seen] = field(default_factory=list)
    lists: list[Seen] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._tickets, self._uploads = itertools.count(), itertools.count()
        self._lock = threading.Lock()
        self._versions = [self.start]
        self._over = threading.Event()

    def begin(self) -> None:
        """Put all filters there, so that lists can name them."""
        with self.fleet.client() as client:
            for name in FILTERS:
                client.put(f"/v1/catalog/filters/{name}", json={"expression": "group = 0"}).raise_for_status()

    def run(self, writers: int, readers: int) -> None:
        """Make all changes; returns when the last one is answered."""
        writing = [threading.Thread(target=self._write, args=(number,), daemon=True) for number in range(writers)]
        reading = [threading.Thread(target=self._read, args=(number,), daemon=True) for number in range(readers)]
        for thread in (*writing, *reading):
            thread.start()
        for thread in writing:
            thread.join()
        self._over.set()
        for thread in reading:
            thread.join()

    def _write(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/writer/{number}")
        with self.fleet.client() as client:
            while (ticket := next(self._tickets)) < self.writes:
                seen, request = self._change(rng, ticket)
                send(client, rng, seen, **request)
                with self._lock:
                    self.changes.append(seen)
                    if seen.kind == "upload" and seen.is_done:
                        self._versions.append(seen.name)
                self.on_write()
                if seen.status in (0, *range(500, 600)):
                    time.sleep(FAILED_PAUSE_SECONDS)

    def _change(self, rng: random.Random, ticket: int) -> tuple[Seen, dict[str, Any]]:
        """A change by chance, and the request of it."""
        lines, (kind,) = self.fleet.lines, rng.choices(list(KINDS), list(KINDS.values()))
        match kind:
            case "put" if rng.random() < 0.4:
                seen = Seen(kind=kind, name=rng.choice(FILTERS), what=f"group = {rng.randrange(4)}")
                return seen, {"method": "PUT", "url": f"/v1/catalog/filters/{seen.name}", "json": {"expression": seen.what}}
            case "put":
                ids = rng.sample(lines.names[:KEPT_ITEMS], rng.randrange(10, 30))
                seen = Seen(kind=kind, name=rng.choice(FILTERS), what=frozenset(ids))
                return seen, {"method": "PUT", "url": f"/v1/catalog/filters/{seen.name}", "json": {"items": ids}}
            case "drop":
                seen = Seen(kind=kind, name=rng.choice(FILTERS))
                return seen, {"method": "DELETE", "url": f"/v1/catalog/filters/{seen.name}"}
            case "upload":
                indices = [index for index in range(len(lines.names)) if index < KEPT_ITEMS or rng.random() < 0.5]
                name, items = f"v{self.seed}-{next(self._uploads) // SAME_NAME}", frozenset(lines.names[index] for index in indices)
                seen = Seen(kind=kind, name=name, what=items)
                headers = {"content-type": "application/x-ndjson"}
                return seen, {"method": "PUT", "url": f"/v1/catalogs/{seen.name}", "content": lines.body(indices), "headers": headers}
            case "activate":
                seen = Seen(kind=kind, name=rng.choice(self._versions[-4:]))
                return seen, {"method": "POST", "url": f"/v1/catalogs/{seen.name}/activate", "json": {"by": "check"}}
            case "rollback":
                return Seen(kind=kind), {"method": "POST", "url": "/v1/catalogs/rollback", "json": {"by": "check"}}
            case _:
                name = f"new-{self.seed}-{ticket}"
                item = {"item_id": name, "identifier": lines.identifier(rng.randrange(KEPT_ITEMS)), "attributes": {"group": group_of(name)}}
                body = {"items": [item], "on_collision": "shared", "by": "check"}
                return Seen(kind=kind, what=frozenset([name])), {"method": "POST", "url": "/v1/catalog/items", "json": body}

    def _read(self, number: int) -> None:
        rng = random.Random(f"{self.seed}/reader/{number}")
        with self.fleet.client() as client:
            while not self._over.wait(LIST_PAUSE_SECONDS):
                seen = Seen(kind="list", name=rng.choice(["", *FILTERS]))
                body: dict[str, Any] = {"history": rng.sample(self.fleet.lines.names[:KEPT_ITEMS], 3), "k": K}
                if seen.name:
                    body["filter"] = seen.name
                send(client, rng, seen, method="POST", url="/v1/recommendations", json=body)
                self.lists.append(seen)


def send(client: httpx.Client, rng: random.Random, seen: Seen, headers: dict[str, str] | None = None, **request: Any) -> None:
    """Send a request to a replica by chance, and note what comes of it."""
    seen.begun = time.time()
    try:
        answer = client.request(**request, headers={"X-User-Id": str(rng.random()), **(headers or {})})
    except httpx.TransportError:
        seen.ended = time.time()
        return
    seen.ended, seen.status = time.time(), answer.status_code
    seen.revision = int(answer.headers.get("x-control-revision", -1))
    seen.behind = float(answer.headers.get("x-control-behind", 0.0))
    seen.replica = answer.headers.get("x-replica", "")
    if answer.content and "json" in answer.headers.get("content-type", ""):
        seen.answer = answer.json()
