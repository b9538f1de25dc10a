"""A fleet that activates a version of a million items: whether a list fails meanwhile, and how long the slowest takes."""

import math
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx
import numpy as np

from benchmarks.systems.shapes import SHAPES, make_identifiers
from deploy.checks.findings import Findings
from deploy.fleet.asking import Asked, asked
from deploy.fleet.redis import RedisTrio
from deploy.fleet.replicas import Fleet
from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import TextColumn
from server.client.client import AtspeedClient

SHAPE = "small"
VERSION = "large"
CLIENTS = 3
# How long the slowest list takes is told; one that takes longer than the default of a second for lack of a processor is none that failed.
TIMEOUT_MS = 5000
BEFORE_SECONDS = 20.0
AFTER_SECONDS = 10.0
ALL_SECONDS = 300.0


def measure_large(replicas: int, items: int, findings: Findings) -> None:
    """Start a fleet of its own, ask for lists all the while, bring a version of so many items and activate it."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        redis = stack.enter_context(RedisTrio(folder))
        fleet = Fleet(folder, redis.url, SHAPE, "--timeout-ms", str(TIMEOUT_MS))
        stack.enter_context(fleet.started(replicas))
        write_large(folder / f"{VERSION}.catalog", items)
        with asked(fleet, CLIENTS) as lists:
            time.sleep(BEFORE_SECONDS)
            began = [time.monotonic()]
            with AtspeedClient(fleet.replicas[0].url, key=fleet.key, trust_env=False) as client:
                client.upload_catalog(VERSION, folder / f"{VERSION}.catalog")
                began.append(time.monotonic())
                client.activate(VERSION, "check")
            began.append(time.monotonic())
            is_everywhere = wait_for_all(fleet)
            began.append(time.monotonic())
            time.sleep(AFTER_SECONDS)
    sent, built, active, everywhere = began
    findings.check(
        is_everywhere,
        f"a version of {items:,} items is built within {built - sent:.1f} s, activated within {active - built:.1f} s, and all of "
        f"{replicas} replicas serve it {everywhere - active:.1f} s later",
    )
    failed = [each for each in lists if each.status != httpx.codes.OK]
    findings.check(not failed, f"{len(failed)} of {len(lists)} lists failed")
    for (status, said), number in Counter((each.status, each.said) for each in failed).items():
        findings.check(False, f"{number} lists: {status} {said}")
    spans: dict[str, tuple[float, float]] = {
        "before": (0.0, sent),
        "while it is built": (sent, built),
        "while it is activated": (built, everywhere),
        "afterwards": (everywhere, math.inf),
    }
    for name, (first, last) in spans.items():
        findings.check(True, f"lists {name}: {told([each for each in lists if first <= each.begun + each.seconds and each.begun < last])}")


def write_large(file: Path, items: int) -> None:
    """Write the artefact of a catalog that has the items of the fleet's own and random ones beside, all in tokens that the model knows."""
    levels = SHAPES[SHAPE].catalog.codes_per_level
    own = make_identifiers(SHAPES[SHAPE].catalog)
    drawn = np.random.default_rng(0).integers(levels, size=(2 * items, len(levels)))
    rows, first = np.unique(np.concatenate([own, drawn]), axis=0, return_index=True)
    kept = rows[np.argsort(first)][:items]
    tokens = [f"<{chr(97 + level)}_{code}>" for level, codes in enumerate(levels) for code in range(codes)]
    starts = np.cumsum([0, *levels[:-1]])
    names = TextColumn.of(f"item-{number}" for number in range(items))
    save_artefact(Catalog.of(names, tokens, (kept + starts).astype(np.uint16), {}), file)


def wait_for_all(fleet: Fleet) -> bool:
    """Wait until all replicas serve the version; False if that does not come."""
    ends = time.monotonic() + ALL_SECONDS
    for replica in fleet.replicas:
        with fleet.client(replica.url) as client:
            while client.get("/v1/catalogs").json()["active"] != VERSION:
                if time.monotonic() > ends:
                    return False
                time.sleep(0.05)
    return True


def told(lists: list[Asked]) -> str:
    """How long lists took."""
    if not lists:
        return "none"
    seconds = [each.seconds for each in lists]
    median, late = np.percentile(seconds, [50, 99])
    failed = sum(each.status != httpx.codes.OK for each in lists)
    return f"{len(lists)}, {1000 * median:.0f} ms (p99 {1000 * late:.0f} ms), the slowest {max(seconds):.2f} s; {failed} failed"
