"""Versions of the catalog on a real server: brought, activated, rolled back under load, and refused without a trace."""

import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import torch

from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from server.catalogs.build import BuildOrder, Built, build
from server.schemas.catalogs import UPLOAD_FORMS
from server.schemas.comparisons import VersionDifference
from tests.models import random_catalog
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, alike, assert_problem

HISTORY = [f"item-{i}" for i in (3, 14, 15)]
SWAPS = 100


@pytest.fixture(scope="module")
def versions() -> dict[str, Catalog]:
    """Catalogs of the same tokens and item ids, but other identifiers, and one of other sizes."""
    return {"v1": random_catalog(seed=1), "v2": random_catalog(seed=2), "small": random_catalog(items=40, seed=3)}


@pytest.fixture(scope="module")
def shop(model_flags: list[str], versions: dict[str, Catalog], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("shop")
    (folder / "catalogs").mkdir()
    flags = ("--histories", "memory://", "--timeout-ms", "20000", "--kv-memory-gib", "0.02", "--catalogs", str(folder / "catalogs"))
    with ForkedServer(folder, *model_flags, *flags, "--plan", "auto") as server:
        server.wait_until_ready()
        versions["v1"].save(folder / "catalogs" / "one.jsonl")
        save_artefact(versions["small"], folder / "catalogs" / "some.catalog")
        assert server.client.put("/v1/catalogs/v1", json={"path": "one.jsonl"}).json() == {
            "version": "v1",
            "content": versions["v1"].version,
            "items": 200,
            "identifiers": versions["v1"].identifiers,
            "identifier_length": 3,
        }
        lines = "".join(json.dumps({"item_id": f"item-{i}", "identifier": versions["v2"].identifier(i)}) + "\n" for i in range(200))
        uploaded = server.client.put("/v1/catalogs/v2", content=lines.encode(), headers={"content-type": "application/x-ndjson"})
        assert uploaded.status_code == 201, uploaded.text
        assert server.client.put("/v1/catalogs/small", json={"path": "some.catalog"}).status_code == 201
        yield server


def activate(server: ServerProcess, version: str, by: str = "a test") -> httpx.Response:
    return server.client.post(f"/v1/catalogs/{version}/activate", json={"by": by})


def shows(answer: dict[str, Any], catalog: Catalog) -> bool:
    """Whether every item of a list has the identifier that it has in a catalog."""
    return all(catalog.identifier(catalog.indices_of([line["item_id"]])[0]) == tuple(line["identifier"]) for line in answer["items"])


def test_versions_are_served_as_they_are_activated_and_rolled_back(shop: ServerProcess, catalog: Catalog, versions: dict[str, Catalog]):
    first = shop.recommend(history=HISTORY).json()
    assert first["catalog_version"] == catalog.version
    for version in ("v1", "small", "v2"):
        activated = activate(shop, version, "the nightly job")
        assert activated.status_code == 200, activated.text
        assert shop.metric("atspeed_catalog_info", version=version) == 1
        answer = shop.recommend(history=HISTORY).json()
        assert answer["catalog_version"] == version
        assert shows(answer, versions[version])
        assert shop.client.get("/v1/catalog").json()["items"] == len(versions[version])
    assert shop.client.post("/v1/catalogs/rollback", json={"by": "on call"}).json()["version"] == "small"
    assert shop.recommend(history=HISTORY).json()["catalog_version"] == "small"
    assert shop.client.post("/v1/catalogs/rollback", json={"by": "on call"}).json()["version"] == "v2"
    late = shop.client.post("/v1/catalogs/rollback", json={"by": "another on call", "from": "small"})
    assert_problem(late, 409, "The version 'small' is not served any more: 'v2' is. Nothing was changed.")
    assert shop.client.post("/v1/catalogs/rollback").json()["version"] == "small"
    assert shop.client.post("/v1/catalogs/rollback", json={}).json()["version"] == "v2"
    told = shop.client.get("/v1/catalogs").json()
    assert (told["active"], told["versions"]) == ("v2", [catalog.version, "v1", "v2", "small"])
    expected = [
        (catalog.version, "start"),
        *((v, "the nightly job") for v in ("v1", "small", "v2")),
        ("small", "on call"),
        ("v2", "on call"),
        ("small", "rollback"),
        ("v2", "rollback"),
    ]
    assert [(entry["version"], entry["by"]) for entry in told["history"]] == expected
    assert all(abs(entry["at"] - time.time()) < 300 for entry in told["history"])
    assert activate(shop, catalog.version).status_code == 200
    again = shop.recommend(history=HISTORY).json()
    assert [line["item_id"] for line in again["items"]] == [line["item_id"] for line in first["items"]]


def test_versions_are_compared(shop: ServerProcess, catalog: Catalog, versions: dict[str, Catalog]):
    activate(shop, catalog.version)
    answer = shop.client.get("/v1/catalogs/small/difference", params={"limit": 2}).json()
    assert VersionDifference.model_validate(answer, extra="forbid")
    small, whole = versions["small"], catalog
    moved = [f"item-{i}" for i in range(40) if small.identifier(i) != whole.identifier(i)]
    assert answer == {
        "version": "small",
        "base": catalog.version,
        "items": 40,
        "base_items": 200,
        "added": {"count": 0, "items": []},
        "removed": {"count": 160, "items": [{"item_id": f"item-{i}", "title": f"Title {i}"} for i in (40, 41)]},
        "identifier_changed": {"count": len(moved), "items": [{"item_id": name, "title": f"Title {name[5:]}"} for name in moved[:2]]},
        "attributes_changed": {"count": 0, "items": []},
    }
    back = shop.client.get("/v1/catalogs/v2/difference", params={"base": "small"}).json()
    assert (back["added"]["count"], back["removed"]["count"], back["attributes_changed"]["count"]) == (160, 0, 40), "v2 has no titles"
    assert len(back["added"]["items"]) == 100
    same = shop.client.get(f"/v1/catalogs/{catalog.version}/difference").json()
    assert all(same[name]["count"] == 0 for name in ("added", "removed", "identifier_changed", "attributes_changed"))
    for path in ("gone/difference", "v1/difference?base=gone"):
        assert_problem(shop.client.get(f"/v1/catalogs/{path}"), 404, "There is no catalog version 'gone'.")


def test_filters_are_worked_out_for_every_version(shop: ServerProcess, catalog: Catalog):
    activate(shop, "v1")
    shop.client.put("/v1/catalog/filters/few", json={"items": [f"item-{i}" for i in range(100)]})
    for version, eligible in (("small", 40), ("v1", 100)):
        activate(shop, version)
        assert shop.client.get("/v1/catalog/filters/few").json()["items"] == eligible
        items = shop.recommend(history=HISTORY, k=50, beam_width=100, filter="few").json()["items"]
        assert items
        assert {line["item_id"] for line in items} <= {f"item-{i}" for i in range(eligible)}
    shop.client.put("/v1/catalog/filters/titled", json={"expression": "title"})
    sentence = "The filter 'titled' can't be used with version 'v2': There is no attribute 'title' (character 1); the catalog has none."
    assert_problem(activate(shop, "v2"), 422, sentence)
    assert shop.recommend(history=HISTORY).json()["catalog_version"] == "v1"
    for name in ("few", "titled"):
        assert shop.client.delete(f"/v1/catalog/filters/{name}").status_code == 204


def test_an_engine_that_is_started_anew_loads_what_is_served(shop: ServerProcess, versions: dict[str, Catalog]):
    activate(shop, "v2")
    shop.engine.kill()
    shop.wait_for(lambda: shop.client.get("/ready").status_code != 200)
    shop.wait_until_ready()
    answer = shop.recommend(history=HISTORY).json()
    assert answer["catalog_version"] == "v2"
    assert shows(answer, versions["v2"])


def test_a_storm_of_swaps_under_load(shop: ServerProcess, versions: dict[str, Catalog]):
    """No failed request, no answer of the wrong version, and in the end no more memory than in the beginning."""
    stop, answers, failures = threading.Event(), [], []

    def ask(number: int) -> None:
        with httpx.Client(base_url=shop.client.base_url, timeout=30) as client:
            while not stop.is_set():
                started = time.perf_counter()
                response = client.post("/v1/recommendations", json={"history": [f"item-{number}", "item-1"], "k": 5})
                (answers if response.status_code == 200 else failures).append((time.perf_counter() - started, response.json()))

    for version in ("v1", "v2") * 5:
        assert activate(shop, version).status_code == 200
    processes = [psutil.Process(shop.process.pid), shop.engine]
    threads = [threading.Thread(target=ask, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    before = [process.memory_info().rss for process in processes]
    for swap in range(SWAPS):
        changed = (
            activate(shop, ("v1", "small", "v2")[swap % 3]) if swap % 2 else shop.client.post("/v1/catalogs/rollback", json={"by": "x"})
        )
        assert changed.status_code == 200, changed.text
    stop.set()
    for thread in threads:
        thread.join()
    after = [process.memory_info().rss for process in processes]
    assert not failures
    assert len(answers) > SWAPS
    assert {answer["catalog_version"] for _, answer in answers} == set(versions)
    assert all(shows(answer, versions[answer["catalog_version"]]) for _, answer in answers)
    assert all(end - start < 24 * 2**20 for start, end in zip(before, after, strict=True)), (before, after)
    assert shop.metric("atspeed_kv_slots_used") == 0


def test_a_bad_file_changes_nothing(shop: ServerProcess):
    before = shop.client.get("/v1/catalogs").json()
    directory = shop.log_file.parent / "catalogs"
    (directory / "bad.jsonl").write_text('{"item_id": "a", "identifier": ["<z_1>"]}')
    files = sorted(directory.iterdir())
    sentence = (
        "The model's tokenizer has no token '<z_1>', which the identifier of item 'a' needs (1 of the catalog's 1 tokens are missing): "
        "catalog and model do not belong together; if the codes were numbers, convert them to the model's own tokens "
        "(`atspeed catalog convert --tokens`)."
    )
    assert_problem(shop.client.put("/v1/catalogs/bad", json={"path": "bad.jsonl"}), 422, sentence)
    assert shop.client.get("/v1/catalogs").json() == before
    assert sorted(directory.iterdir()) == files
    failed = shop.metric("atspeed_catalog_activations_total", outcome="failed")
    assert_problem(activate(shop, "bad"), 404, "There is no catalog version 'bad'.")
    assert shop.metric("atspeed_catalog_activations_total", outcome="failed") == failed


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("bad.jsonl", '{"item_id": "a"', "Line 1 of the catalog file is not JSON: Input data was truncated."),
        (
            "bad.jsonl",
            '{"item_id": "a", "identifier": ["<a_1>"]}\n{"item_id": "a", "identifier": ["<a_2>"]}',
            "Item 'a' appears twice in the catalog: item ids must be unique.",
        ),
        ("bad.catalog", "nothing", "file is no catalog artefact, or is cut off: build it anew with 'atspeed catalog convert'."),
        ("bad.parquet", "nothing", "The catalog file cannot be read: Parquet"),
    ],
)
def test_the_building_process_says_what_is_wrong_and_leaves_nothing(
    tmp_path: Path, model_dir: Path, name: str, text: str, sentence: str
) -> None:
    (tmp_path / name).write_text(text)
    built = build(BuildOrder(str(tmp_path / name), str(tmp_path / "out.catalog"), str(model_dir)))
    assert built.sentence is not None
    assert built.sentence.startswith(sentence)
    assert str(tmp_path) not in built.sentence
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_the_building_process_does_not_say_where_models_lie(tmp_path: Path, catalog_file: Path) -> None:
    for model in ("gone", "empty"):
        (tmp_path / "empty").mkdir(exist_ok=True)
        built = build(BuildOrder(str(catalog_file), str(tmp_path / "out.catalog"), str(tmp_path / model)))
        assert built.sentence is not None
        assert model in built.sentence
        assert str(tmp_path) not in built.sentence


def test_the_building_process_reads_the_forms_of_other_projects(tmp_path: Path, model_dir: Path, versions: dict[str, Catalog]) -> None:
    """MiniOneRec's item info, as it is uploaded, and GRID's tensor, within the limits of a build."""
    catalog = versions["v1"]
    names = enumerate(catalog.item_ids)
    info = tmp_path / f"upload{UPLOAD_FORMS['text/tab-separated-values']}"
    info.write_text("".join(f"{''.join(catalog.identifier(item))}\t{catalog.title(item)}\t{name}\n" for item, name in names))
    codes = torch.tensor([[int(token[3:-1]) for token in catalog.identifier(item)] for item in range(len(catalog))])
    torch.save(codes.T, tmp_path / "sids.pt")
    torch.save(codes[:6], tmp_path / "few.pt")

    def built(name: str, most: int = 200) -> Built:
        return build(BuildOrder(str(tmp_path / name), str(tmp_path / "out.catalog"), str(model_dir), max_items=most))

    assert built(info.name).content == catalog.version
    assert (built("sids.pt").items, built("sids.pt").identifiers) == (200, catalog.identifiers)
    for name in (info.name, "sids.pt"):
        assert built(name, most=199).sentence == "The catalog has 200 items or more; at most 199 are read."
    assert built("few.pt").sentence == (
        "file is a matrix of codes [6, 3], and its items may stand in its rows or in its columns: say which with --items-in rows or "
        "--items-in columns of `atspeed catalog convert`."
    )


def test_answers_tell_the_attributes_that_are_asked_for(shop: ServerProcess, versions: dict[str, Catalog]):
    lines = [
        {"item_id": f"item-{i}", "identifier": versions["v1"].identifier(i), "attributes": {"price": i, "url": f"/{i}"} if i % 2 else {}}
        for i in range(200)
    ]
    text = "\n".join(map(json.dumps, lines))
    shop.client.put("/v1/catalogs/told", content=text, headers={"content-type": "application/x-ndjson"})
    assert activate(shop, "told").status_code == 200
    plain = shop.recommend(history=HISTORY, k=20).json()["items"]
    told = shop.recommend(history=HISTORY, k=20, fields=["price", "url"]).json()["items"]
    for line in told:
        number = int(line["item_id"].removeprefix("item-"))
        assert line.pop("attributes") == ({"price": number, "url": f"/{number}"} if number % 2 else {})
    assert told == alike(plain)
    sentence = "The catalog has no attribute 'size', which fields names; it has price, url."
    assert_problem(shop.recommend(history=HISTORY, fields=["size"]), 422, sentence)


def test_an_upload_that_is_cut_off_leaves_nothing(shop: ServerProcess):
    before = shop.client.get("/v1/catalogs").json()
    directory = shop.log_file.parent / "catalogs"
    files = sorted(directory.iterdir())
    host, port = shop.client.base_url.host, shop.client.base_url.port
    with socket.create_connection((host, port)) as connection:
        connection.sendall(
            b"PUT /v1/catalogs/half HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-ndjson\r\nContent-Length: 1000000\r\n\r\n"
            b'{"item_id": "a", "identifier": ["<a_1>", "<b_1>", "<c_1>"]}\n'
        )
        shop.wait_for(lambda: len(list(directory.iterdir())) > len(files))
    shop.wait_for(lambda: sorted(directory.iterdir()) == files)
    assert shop.client.get("/v1/catalogs").json() == before


ODD = {
    "digits": ('{"x": ' + "9" * 300 + "}", "can't be used. The attribute 'x' of item 'odd' holds an integer of more than 64 bits."),
    "deep": ('{"x": ' + "[" * 50_000 + "]" * 50_000 + "}", "is not JSON: maximum recursion depth exceeded while deserializing an object."),
    "names": ("{" + ", ".join(f'"n{i}": 1' for i in range(50_000)) + "}", "as a list."),
}


def odd_upload(kind: str) -> str:
    line = '{"item_id": "%s", "identifier": ["<a_1>", "<b_1>", "<c_1>"], "attributes": %s}'
    return "\n".join([line % ("even", "{}"), line % ("odd", ODD[kind][0])])


def assert_names_its_line(sentence: str | None, kind: str) -> None:
    assert sentence is not None
    assert sentence.startswith("Line 2 of the catalog file ")
    assert sentence.endswith(ODD[kind][1])
    assert len(sentence) < 500


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_attribute_names_its_line(tmp_path: Path, model_dir: Path, kind: str):
    (tmp_path / "odd.jsonl").write_text(odd_upload(kind))
    built = build(BuildOrder(str(tmp_path / "odd.jsonl"), str(tmp_path / "out.catalog"), str(model_dir)))
    assert_names_its_line(built.sentence, kind)


def test_an_upload_with_an_odd_attribute_is_refused(shop: ServerProcess):
    """The one that takes most of the process that reads it."""
    response = shop.client.put("/v1/catalogs/odd", content=odd_upload("deep"), headers={"content-type": "application/x-ndjson"})
    assert response.status_code == 422, response.text
    assert_names_its_line(response.json()["detail"], "deep")


def test_what_can_not_be_asked(shop: ServerProcess, catalog: Catalog):
    active = shop.client.get("/v1/catalogs").json()["active"]
    put = shop.client.put
    assert_problem(put("/v1/catalogs/v1", json={"path": "one.jsonl"}), 409, "There is a version 'v1' already; versions do not change.")
    sentence = "There is no file '../../x' in the server's directory of catalogs."
    assert_problem(put("/v1/catalogs/new", json={"path": "../../x"}), 422, sentence)
    assert_problem(put("/v1/catalogs/new", json={}), 422, "The field 'path' is missing.")
    assert put("/v1/catalogs/new", content=b"x", headers={"content-type": "text/plain"}).status_code == 415
    assert put("/v1/catalogs/.hidden", json={"path": "one.jsonl"}).status_code == 422
    assert_problem(shop.client.post("/v1/catalogs/v1/activate", json={}), 422, "The field 'by' is missing.")
    removal = f"The version {active!r} is served: activate another one first."
    assert_problem(shop.client.delete(f"/v1/catalogs/{active}"), 409, removal)
    assert_problem(shop.client.delete("/v1/catalogs/nothing"), 404, "There is no catalog version 'nothing'.")


def test_a_forgotten_version_is_gone(shop: ServerProcess, versions: dict[str, Catalog]):
    activate(shop, "v1")
    directory = shop.log_file.parent / "catalogs"
    files = set(directory.glob("sha256-*.catalog"))
    (path,) = (file for file in files if load_catalog(file).version == versions["small"].version)
    assert shop.client.delete("/v1/catalogs/small").status_code == 204
    assert set(directory.glob("sha256-*.catalog")) == files - {path}
    assert "small" not in shop.client.get("/v1/catalogs").json()["versions"]
