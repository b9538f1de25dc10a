"""Three servers on one Redis and one bucket: a version that comes by one of them is served by all."""

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from drafting.catalog.catalog import Catalog
from drafting.errors import quoted
from tests.models import random_catalog
from tests.server.forked_server import ForkedServer
from tests.server.http.test_catalogs import activate
from tests.server.server_process import ServerProcess, assert_problem
from tests.services import REDIS_BINARY, REDIS_MISSING, ObjectStore, RedisServer

pytestmark = pytest.mark.skipif(REDIS_BINARY is None, reason=REDIS_MISSING)
HISTORY = [f"item-{i}" for i in (3, 14, 15)]


@dataclass(frozen=True)
class Fleet:
    """The servers, and the flags that they have in common beside those of the model."""

    servers: list[ServerProcess]
    flags: list[str]


@pytest.fixture(scope="module")
def store() -> Iterator[ObjectStore]:
    store = ObjectStore()
    yield store
    store.close()


@pytest.fixture(scope="module")
def fleet(model_flags: list[str], store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with ExitStack() as stack:
        environment = stack.enter_context(pytest.MonkeyPatch.context())
        for name, value in store.environment.items():
            environment.setenv(name, value)
        redis = RedisServer(folder).start()
        stack.callback(redis.close)
        flags = [
            "--histories",
            redis.url,
            "--timeout-ms",
            "20000",
            "--kv-memory-gib",
            "0.02",
            "--catalogs",
            f"{store.bucket('fleet')}/shop",
        ]
        servers = [stack.enter_context(ForkedServer(folder / name, *model_flags, *flags)) for name in "abc"]
        for server in servers:
            server.wait_until_ready()
        yield Fleet(servers, flags)


def upload(server: ServerProcess, version: str, catalog: Catalog) -> httpx.Response:
    lines = "".join(json.dumps({"item_id": item, "identifier": catalog.identifier(i)}) + "\n" for i, item in enumerate(catalog.item_ids))
    return server.client.put(f"/v1/catalogs/{version}", content=lines.encode(), headers={"content-type": "application/x-ndjson"})


def listed(server: ServerProcess, version: str) -> list[tuple[str, tuple[str, ...]]]:
    """The items of a version's list and their identifiers, as soon as the server follows; scores differ in the last digit."""
    server.wait_for(lambda: server.recommend(history=HISTORY).json()["catalog_version"] == version)
    return [(line["item_id"], tuple(line["identifier"])) for line in server.recommend(history=HISTORY).json()["items"]]


def test_a_version_that_one_brings_and_another_activates_is_listed_by_the_third(fleet: Fleet) -> None:
    first, second, third = fleet.servers
    catalog = random_catalog(seed=1)
    uploaded = upload(first, "v1", catalog)
    assert uploaded.status_code == 201, uploaded.text
    activated = activate(second, "v1")
    assert activated.status_code == 200, activated.text
    items = listed(third, "v1")
    assert items == listed(first, "v1") == listed(second, "v1") != []
    assert all(catalog.identifier(catalog.indices_of([item])[0]) == identifier for item, identifier in items)


def test_while_the_bucket_is_away_nothing_is_brought_and_lists_go_on(fleet: Fleet, store: ObjectStore) -> None:
    first, second, third = fleet.servers
    store.pause()
    try:
        refused = upload(first, "v2", random_catalog(seed=2))
        assert_problem(refused, 503, "The catalog can't be stored: the object store can't be reached now.")
        assert refused.headers["retry-after"] == "5"
        assert all(server.recommend(history=HISTORY).status_code == 200 for server in fleet.servers)
    finally:
        store.resume()
    assert "v2" not in second.client.get("/v1/catalogs").json()["versions"]
    assert upload(first, "v2", random_catalog(seed=2)).status_code == 201
    assert activate(second, "v2").status_code == 200
    assert listed(third, "v2")


def test_a_version_whose_file_is_gone_keeps_its_name_and_says_so(fleet: Fleet, store: ObjectStore) -> None:
    first, second, _ = fleet.servers
    assert upload(first, "v3", random_catalog(seed=3)).status_code == 201
    store.pause()
    try:
        refused = second.client.post("/v1/catalogs/v3/activate", json={"by": "a test"})
    finally:
        store.resume()
    reason = "the object store can't be reached now"
    assert_problem(refused, 503, f"The file of version {quoted('v3')} can't be fetched: {reason}.")
    assert activate(second, "v3").status_code == 200


def test_a_server_that_is_started_with_another_catalog_brings_it_to_all(fleet: Fleet, model_dir: Path, tmp_path: Path) -> None:
    """As the first pod of a new release does: the file that it is started with is not there where the others run."""
    first, *_ = fleet.servers
    assert upload(first, "before", random_catalog(seed=4)).status_code == 201
    assert activate(first, "before").status_code == 200
    # The same items and one more: with other identifiers it would be for another model, and not begin.
    catalog = random_catalog(items=201, seed=4)
    catalog.save(tmp_path / "new.jsonl")
    with ForkedServer(tmp_path, "--target", str(model_dir), "--catalog", str(tmp_path / "new.jsonl"), *fleet.flags) as server:
        items = listed(server.wait_until_ready(), catalog.version)
        (tmp_path / "new.jsonl").unlink()
    assert items == listed(fleet.servers[0], catalog.version) == listed(fleet.servers[1], catalog.version) != []


def test_a_server_that_does_not_see_the_place_takes_nothing_and_is_not_ready(fleet: Fleet, model_flags: list[str], tmp_path: Path) -> None:
    first, *_ = fleet.servers
    assert upload(first, "v5", random_catalog(seed=5)).status_code == 201
    assert activate(first, "v5").status_code == 200
    with ForkedServer(tmp_path, *model_flags, *fleet.flags[:-2]) as server:
        # Whether another server has begun with another catalog meanwhile decides which of two sentences it is.
        server.wait_for(lambda: "Other servers serve version 'v5', " in server.client.get("/ready").text)
        assert upload(server, "v6", random_catalog(seed=6)).status_code == 503
