"""Catalogs on a real server that are odd, damaged or in the way of its end, and a server that is killed while catalogs change."""

import json
import os
import random
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import Catalog
from server.catalogs.build import BuildOrder, build
from tests.models import random_catalog
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, assert_problem

HISTORY = ["item-3", "item-14"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("versions")


@pytest.fixture(scope="module")
def flags(model_flags: list[str], directory: Path) -> list[str]:
    more = ("--histories", "memory://", "--timeout-ms", "20000", "--kv-memory-gib", "0.02", "--catalog-max-items", "1000")
    return [*model_flags, *more, "--catalog-max-gib", "0.001", "--catalogs", str(directory)]


@pytest.fixture(scope="module")
def shop(flags: list[str], directory: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    os.mkfifo(directory / "pipe.jsonl")
    os.mkfifo(directory / "piped.catalog")
    (directory / "loop.jsonl").symlink_to("loop.jsonl")
    (directory / "folder.catalog").mkdir()
    with ForkedServer(tmp_path_factory.mktemp("shop"), *flags) as server, server.without_engine():
        yield server


def test_names_that_no_version_can_have_are_refused(shop: ServerProcess) -> None:
    for name in ("%00", "a%00b", "v" * 300, "..%2Fx", "%FF"):
        for response in (
            shop.client.put(f"/v1/catalogs/{name}", json={"path": "x.jsonl"}),
            shop.client.post(f"/v1/catalogs/{name}/activate", json={"by": "a test"}),
            shop.client.delete(f"/v1/catalogs/{name}"),
        ):
            assert response.status_code in (400, 404, 405, 422), (name, response.text)
    for name in ("folder", "piped"):
        assert_problem(shop.client.delete(f"/v1/catalogs/{name}"), 404, f"There is no catalog version '{name}'.")
    assert not {"folder", "piped"} & set(shop.client.get("/v1/catalogs").json()["versions"])


@pytest.mark.parametrize(
    "path", ["pipe.jsonl", "loop.jsonl", "folder.catalog", "a\0b", "x" * 300, "x" * 4096, "..", "/etc/passwd", "\ud7ff"]
)
def test_paths_that_name_no_file_are_refused(shop: ServerProcess, path: str) -> None:
    response = shop.client.put("/v1/catalogs/odd", json={"path": path})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("There is no file ")


def lie(path: Path, catalog: Catalog, array: str) -> None:
    save_artefact(catalog, path)
    with safe_open(path, "numpy") as file:
        arrays = {name: file.get_tensor(name) for name in sorted(file.keys())}
        metadata = {name: value for name, value in file.metadata().items() if name != "digest"}
    arrays[array] = np.ascontiguousarray(arrays[array][::-1])
    save_file(arrays, path, metadata)


def test_artefacts_that_lie_are_not_taken(model_dir: Path, tmp_path: Path) -> None:
    """What the building process says of each; that its sentence is the server's answer, the next test shows."""
    path = tmp_path / "lie.catalog"

    def sentence() -> str | None:
        return build(BuildOrder(str(path), str(tmp_path / "out.catalog"), str(model_dir))).sentence

    for array in ("trie.items", "trie.first_child", "codes"):
        lie(path, random_catalog(seed=5), array)
        assert (sentence() or "").startswith("file is no catalog that can be served"), array
    save_artefact(random_catalog(seed=5), path)
    path.write_bytes(re.sub(rb'"version":"\w{12}"', b'"version":"0123456789ab"', path.read_bytes()))
    assert "is damaged" in (sentence() or "")
    assert [file.name for file in tmp_path.iterdir()] == ["lie.catalog"]


def test_an_upload_of_an_artefact_that_lies_changes_nothing(shop: ServerProcess, directory: Path) -> None:
    before = shop.client.get("/v1/catalogs").json()
    lie(directory.parent / "lie.catalog", random_catalog(seed=5), "trie.first_child")
    data = (directory.parent / "lie.catalog").read_bytes()
    response = shop.client.put("/v1/catalogs/lie", content=data, headers={"content-type": "application/octet-stream"})
    assert response.status_code == 422
    assert response.json()["detail"].startswith("file is no catalog that can be served")
    assert shop.client.get("/v1/catalogs").json() == before


def test_limits_are_told(shop: ServerProcess) -> None:
    lines = "".join(json.dumps({"item_id": str(i), "identifier": ["<a_0>", "<b_0>", "<c_0>"]}) + "\n" for i in range(1001))
    response = shop.client.put("/v1/catalogs/many", content=lines, headers={"content-type": "application/x-ndjson"})
    assert_problem(response, 422, "The catalog has 1,001 items or more; at most 1,000 are read.")


def test_an_upload_that_is_too_large_is_refused_and_leaves_nothing(shop: ServerProcess, directory: Path) -> None:
    response = shop.client.put("/v1/catalogs/large", content=b" " * (2 * 2**20), headers={"content-type": "application/x-ndjson"})
    assert_problem(response, 413, "The catalog is larger than the 0.001 GiB that this server takes (--catalog-max-gib).")
    assert not [path.name for path in directory.iterdir() if path.name.startswith((".unfinished", "large"))]


def test_a_body_of_json_is_not_read_for_ever(shop: ServerProcess) -> None:
    body = b'{"path": "' + b"x" * (3 * 2**20) + b'"}'
    response = shop.client.put("/v1/catalogs/large", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 413


@dataclass(frozen=True)
class Ended:
    """A server that served a version of its own and was told to end in the middle of an upload: what it answered and left."""

    flags: list[str]
    versions: Path
    answer: bytes
    status: int
    log: str


@pytest.fixture(scope="module")
def ended(model_flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Ended:
    folder = tmp_path_factory.mktemp("ended")
    (versions := folder / "versions").mkdir()
    flags = [*model_flags, "--histories", "memory://", "--timeout-ms", "20000", "--kv-memory-gib", "0.02", "--catalogs", str(versions)]
    head = b"PUT /v1/catalogs/half HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
    random_catalog(seed=7).save(versions / "one.jsonl")
    with ForkedServer(folder, *flags) as server:
        server.wait_until_ready()
        assert server.client.put("/v1/catalogs/one", json={"path": "one.jsonl"}).status_code == 201
        assert server.client.post("/v1/catalogs/one/activate", json={"by": "a test"}).status_code == 200
        host, port = server.client.base_url.host, server.client.base_url.port
        with socket.create_connection((host, port), timeout=60) as connection:
            connection.sendall(head + b'{"item_id": "a", "identifier": ["<a_1>", "<b_1>", "<c_1>"]}\n')
            server.wait_for(lambda: any(path.name.startswith(".unfinished-") for path in versions.iterdir()))
            server.process.terminate()
            answer = connection.makefile("rb").read()
        return Ended(flags, versions, answer, server.process.wait(30), server.log)


def test_an_upload_ends_when_the_server_does(ended: Ended) -> None:
    assert ended.status == 0
    assert ended.answer.startswith(b"HTTP/1.1 503 ")
    assert b"The server is shutting down." in ended.answer
    assert not [path for path in ended.versions.iterdir() if path.name.startswith(".unfinished-")]
    assert "Traceback" not in ended.log


def test_a_damaged_version_does_not_keep_a_server_from_starting(ended: Ended, catalog: Catalog, tmp_path: Path) -> None:
    (file,) = ended.versions.glob("sha256-*.catalog")
    data = bytearray(file.read_bytes())
    data[-200:-100] = bytes(100)
    file.write_bytes(data)
    with ForkedServer(tmp_path, *ended.flags) as server:
        server.wait_until_ready()
        told = server.client.get("/v1/catalogs").json()
        assert (told["active"], [left["version"] for left in told["left"]]) == (catalog.version, ["one"])
        assert told["left"][0]["reason"] == "The engine could not load it."
        assert server.metric("atspeed_catalogs_left") == 1
        assert server.recommend(history=HISTORY).json()["catalog_version"] == catalog.version
        assert_problem(
            server.client.post("/v1/catalogs/one/activate", json={"by": "a test"}),
            422,
            "Its file is damaged: its contents have another digest than it says. Build it anew, or bring it again.",
        )


@pytest.mark.parametrize("kills", [1, pytest.param(4, marks=pytest.mark.exhaustive)])
def test_what_was_answered_survives_kills(model_flags: list[str], catalog: Catalog, tmp_path: Path, kills: int) -> None:
    """Items and versions are posted while the server is killed: what was acknowledged is there after a restart, and is served."""
    (tmp_path / "versions").mkdir()
    flags = [*model_flags, "--histories", "memory://", "--timeout-ms", "20000", "--kv-memory-gib", "0.02"]
    flags += ["--catalogs", str(tmp_path / "versions")]
    items: list[str] = []
    active = catalog.version
    for kill in range(kills):
        with ForkedServer(tmp_path / f"{kill}", *flags) as server:
            server.wait_until_ready()

            def post(server: ServerProcess = server, kill: int = kill) -> None:
                nonlocal active
                with suppress(httpx.TransportError):
                    for number in range(1000):
                        name = f"new-{kill}-{number}"
                        item: dict[str, Any] = {"item_id": name, "identifier": ["<a_0>", "<b_0>", "<c_0>"]}
                        answer = server.client.post("/v1/catalog/items", json={"items": [item], "on_collision": "shared"})
                        assert answer.status_code == 201, answer.text
                        active = answer.json()["version"]
                        items.append(name)

            posting = threading.Thread(target=post)
            posting.start()
            server.wait_for(lambda kill=kill, posting=posting: len(items) >= 2 * (kill + 1) or not posting.is_alive())
            assert posting.is_alive()
            threading.Event().wait(random.Random(kill).uniform(0, 1))
            server.process.kill()
            server.process.wait()
            posting.join()
    with ForkedServer(tmp_path / "last", *flags) as server:
        server.wait_until_ready()
        told = server.client.get("/v1/catalogs").json()
        assert active in told["versions"]
        assert int(told["active"].rpartition("-")[2]) - int(active.rpartition("-")[2]) in (0, 1)
        listed = server.client.get(f"/v1/catalog/items?limit=1000&offset={len(catalog)}").json()["items"]
        assert set(items) <= {line["item_id"] for line in listed}
        assert server.recommend(history=[items[-1]], k=5).status_code == 200
        assert not list((tmp_path / "versions").glob(".unfinished-*"))
