"""A fleet without faults: how soon all have a change, a replica that comes under load, and a control store that is emptied by mistake."""

import os
import random
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np
from redis import Redis

from deploy.checks.findings import Findings
from deploy.fleet.asking import asked
from deploy.fleet.redis import RedisTrio
from deploy.fleet.replicas import Fleet
from deploy.fleet.traffic import KEPT_ITEMS
from deploy.fleet.trial import settle, show
from server.client.origin import KEY_VARIABLE

CHANGES = 300
ALL_SECONDS = 0.5


def measure(replicas: int, findings: Findings) -> None:
    """Start a fleet of its own and say what holds of it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisTrio(folder))
        fleet = Fleet(folder, redis.url)
        stack.enter_context(fleet.started(replicas))
        measure_changes(fleet, findings)
        with asked(fleet) as lists:
            check_another(fleet, findings)
            check_flushed(fleet, redis, folder / "control.backup", findings)
        wrong = sum(each.status != httpx.codes.OK for each in lists)
        findings.check(wrong == 0, f"{wrong} of {len(lists)} lists failed meanwhile")


def measure_changes(fleet: Fleet, findings: Findings) -> None:
    """Change filters, one after the other, and time how long it is until every replica has applied each."""
    rng, names = random.Random(0), fleet.lines.names[:KEPT_ITEMS]
    clients = [fleet.client(replica.url) for replica in fleet.replicas]
    written, everywhere = [], []
    with ThreadPoolExecutor(len(clients)) as threads:
        for number in range(CHANGES):
            began = time.perf_counter()
            url, body = f"/v1/catalog/filters/filter-{number % 6}", {"items": rng.sample(names, 20)}
            answer = rng.choice(clients).put(url, json=body).raise_for_status()
            written.append(time.perf_counter() - began)
            list(threads.map(reach, clients, [answer.headers["x-control-revision"]] * len(clients)))
            everywhere.append(time.perf_counter() - began)
    for client in clients:
        client.close()
    (p50, p99), written_p50 = np.percentile(everywhere, [50, 99]), np.percentile(written, 50)
    findings.check(
        bool(p99 < ALL_SECONDS),
        f"{CHANGES} filters are changed: all of {len(clients)} replicas have a change {1000 * p50:.0f} ms after it was sent (p99 "
        f"{1000 * p99:.0f} ms); it is answered after {1000 * written_p50:.0f} ms",
    )


def reach(client: httpx.Client, revision: str) -> None:
    """Return when a replica has applied a revision."""
    client.get("/v1/catalog", headers={"X-Min-Revision": revision}).raise_for_status()


def check_another(fleet: Fleet, findings: Findings) -> None:
    """Start one more replica while lists are asked for."""
    began = time.monotonic()
    with fleet.another() as late:
        seconds = time.monotonic() - began
        same = show(fleet, late) == show(fleet, fleet.replicas[0])
    findings.check(same, f"one more replica is ready after {seconds:.1f} s, and shows the same state")


def check_flushed(fleet: Fleet, redis: RedisTrio, backup: Path, findings: Findings) -> None:
    """Empty the Redis, go on, and write the state back from a replica's memory."""
    first = fleet.replicas[0]
    before = show(fleet, first)
    with Redis(port=redis.master().port) as master:
        master.flushall()
    body = {"expression": "group = 1"}
    with fleet.client(first.url) as client:
        refused = client.put("/v1/catalog/filters/lost", json=body).status_code
        findings.check(refused == httpx.codes.SERVICE_UNAVAILABLE, f"FLUSHALL: a change is answered with {refused}")
        same = [show(fleet, replica) == before for replica in fleet.replicas]
        findings.check(all(same), "FLUSHALL: all replicas keep their state")
        for verb in ("backup", "restore"):
            control(fleet, verb, backup, first.url)
        settle(fleet)
        after = [show(fleet, replica) for replica in fleet.replicas]
        kept = all((each.active, each.versions, each.filters) == (before.active, before.versions, before.filters) for each in after)
        findings.check(kept, f"`atspeed control backup` and `restore`: all replicas have the state, as revision {after[0].revision}")
        changed = client.put("/v1/catalog/filters/found", params={"wait": "all"}, json=body).status_code
    findings.check(changed == httpx.codes.OK, f"a change is then answered with {changed}, and all have it")


def control(fleet: Fleet, verb: str, file: Path, url: str) -> None:
    """`atspeed control`, as an operator runs it."""
    command = [sys.executable, "-m", "server.cli", "control", verb, str(file), "--url", url]
    subprocess.run(command, check=True, env=os.environ | {KEY_VARIABLE: fleet.key}, stdout=subprocess.DEVNULL)
