"""One trial: random changes and faults by a seed, on a fleet with a Redis of its own, and what is to be said of it."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec
from tqdm import tqdm

from deploy.fleet.faults import Faults
from deploy.fleet.history import History
from deploy.fleet.judge import Shown, change_complaints, end_complaints, lateness, list_complaints
from deploy.fleet.redis import RedisTrio, Wholeness
from deploy.fleet.replicas import Fleet, Replica
from deploy.fleet.traffic import Traffic
from deploy.fleet.watch import Watch

WRITERS, READERS = 3, 2


class Outcome(msgspec.Struct, kw_only=True):
    """Figures of one trial, whose faults and changes follow from its seed.

    Attributes:
        acknowledged, refused, open: changes that were done, that were answered with 4xx, and that were answered otherwise or not at all.
        revisions: writes in the control store's log.
        lists: that were given; `failed` were not.
        latest: longest time for which the version of a list was not active any more when the list was asked for, seconds.
        behind: lists whose server said that it could not know what others have written.
        faults: how many of each kind.
        complaints: what was broken.
    """

    seed: int
    seconds: float
    acknowledged: int
    refused: int
    open: int
    revisions: int
    lists: int
    failed: int
    latest: float
    behind: int
    faults: dict[str, int]
    complaints: list[str]


class Ground:
    """A fleet and its Redis, which trials share for as long as nothing is broken.

    Attributes:
        fleet, redis: both whole.
    """

    def __init__(self, folder: Path, stack: ExitStack, replicas: int, fleet: type[Fleet] = Fleet) -> None:
        """Start them, until `stack` is closed."""
        self.redis = stack.enter_context(RedisTrio(folder))
        self.fleet = fleet(folder, self.redis.url)
        stack.enter_context(self.fleet.started(replicas))


@contextmanager
def started(replicas: int, keep: Path | None = None) -> Iterator[Ground]:
    """A ground for trials.

    Args:
        keep: directory for logs; by default they are gone with the ground.
    """
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(dir=keep) if keep else stack.enter_context(tempfile.TemporaryDirectory()))
        yield Ground(folder, stack, replicas)


def run_trial(seed: int, ground: Ground, writes: int) -> Outcome:
    """Run one seed."""
    with tqdm(total=writes, desc=f"seed {seed}", unit="write", leave=False, disable=None) as bar:
        return _drive(seed, ground.fleet, ground.redis, bar)


def _drive(seed: int, fleet: Fleet, redis: RedisTrio, bar: "tqdm[None]") -> Outcome:
    began = time.monotonic()
    if not redis.wait_until_whole():
        raise RuntimeError("Redis does not become whole.")
    watch, faults = Watch(redis.url), Faults(fleet, redis, str(seed))
    traffic = Traffic(fleet, str(seed), int(bar.total), fleet.start, bar.update)
    traffic.begin()
    watch.start()
    with Wholeness(redis) as whole:
        faults.start()
        try:
            traffic.run(WRITERS, READERS)
        finally:
            faults.end()
            settle(fleet)
            log = watch.end()
    seen = [*traffic.changes, *traffic.lists, *faults.faults, *whole.broken]
    (fleet.folder / f"seen-{seed}.json").write_bytes(msgspec.json.encode(seen))
    history = History(watch.first, log, watch.seen, fleet.catalogs, (fleet.start, frozenset(fleet.lines.names)))
    shown = {replica.address: show(fleet, replica) for replica in fleet.replicas}
    done = sum(change.is_done for change in traffic.changes)
    refused = sum(400 <= change.status < 500 for change in traffic.changes)
    given = [seen for seen in traffic.lists if seen.is_done]
    complaints = [*faults.complaints, *change_complaints(history, traffic.changes), *end_complaints(history, shown)]
    complaints += list_complaints(history, traffic.lists, faults.faults, whole.broken)
    return Outcome(
        seed=seed,
        seconds=round(time.monotonic() - began, 1),
        acknowledged=done,
        refused=refused,
        open=len(traffic.changes) - done - refused,
        revisions=len(log),
        lists=len(given),
        failed=sum(seen.status in (0, *range(500, 600)) for seen in traffic.lists),
        latest=round(max((lateness(history, seen) or 0.0 for seen in given), default=0.0), 3),
        behind=sum(seen.behind > 0 for seen in given),
        faults=Counter(fault.kind for fault in faults.faults),
        complaints=complaints,
    )


def settle(fleet: Fleet, seconds: float = 30.0) -> None:
    """Return when all replicas tell the same revision, or the time is over."""
    ends = time.monotonic() + seconds
    while len({show(fleet, replica).revision for replica in fleet.replicas}) > 1 and time.monotonic() < ends:
        time.sleep(0.2)


def show(fleet: Fleet, replica: Replica) -> Shown:
    """Ask a replica for the state that it shows."""
    with fleet.client(replica.url) as client:
        catalogs = client.get("/v1/catalogs").raise_for_status()
        told = client.get("/v1/catalog/filters").raise_for_status().json()["filters"]
    filters = {each["name"]: (each.get("expression") or "", each["items"]) for each in told}
    body = catalogs.json()
    return Shown(int(catalogs.headers["x-control-revision"]), body["active"], frozenset(body["versions"]), filters)
