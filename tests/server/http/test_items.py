"""New items on a real server: placed, served at once, one on top of the other, and refused without a trace."""

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from drafting.catalog.catalog import Catalog
from drafting.catalog.codebooks import Codebooks
from server.catalogs.new_items import KEPT_VERSIONS, next_version
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess, alike, assert_problem

HISTORY = [f"item-{i}" for i in (3, 14, 15)]
DIMS = 4


@pytest.fixture(scope="module")
def codebooks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path_factory.mktemp("codebooks") / "codebooks.safetensors"
    Codebooks(tuple((rng.normal(size=(8, DIMS)) / 3**level).astype(np.float32) for level in range(3))).save(path)
    return path


@pytest.fixture(scope="module")
def flags(model_flags: list[str], codebooks: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    directory = tmp_path_factory.mktemp("versions")
    more = ("--histories", "memory://", "--timeout-ms", "20000", "--kv-memory-gib", "0.02")
    return [*model_flags, *more, "--codebooks", str(codebooks), "--catalogs", str(directory)]


@pytest.fixture(scope="module")
def shop(flags: list[str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ForkedServer(tmp_path_factory.mktemp("shop"), *flags, "--plan", "auto") as server:
        yield server.wait_until_ready()


def add(server: ServerProcess, *items: dict[str, Any], **body: Any) -> httpx.Response:
    return server.client.post("/v1/catalog/items", json={"items": items} | body)


def added(server: ServerProcess, *items: dict[str, Any], **body: Any) -> dict[str, Any]:
    response = add(server, *items, **body)
    assert response.status_code == 201, response.text
    answer: dict[str, Any] = response.json()
    return answer


def embedding(seed: int) -> list[float]:
    return np.random.default_rng(seed).normal(size=DIMS).tolist()


def found(server: ServerProcess, item_id: str, **body: Any) -> dict[str, Any]:
    """The line of an item in a list of all that a filter of it alone lets through."""
    server.client.put("/v1/catalog/filters/one", json={"items": [item_id]})
    (line,) = [line for line in server.recommend(history=HISTORY, filter="one", **body).json()["items"] if line["item_id"] == item_id]
    server.client.delete("/v1/catalog/filters/one")
    return dict(line)


def test_a_new_item_is_recommended_as_soon_as_it_is_there(shop: ServerProcess, catalog: Catalog):
    shop.client.put("/v1/catalog/filters/titled", json={"expression": "title"})
    before = shop.recommend(history=HISTORY, k=20).json()
    answer = added(shop, {"item_id": "new-1", "embedding": embedding(1), "title": "Nouveau", "attributes": {"price": 3}}, by="import")
    assert (answer["version"], answer["by"]) == (f"{catalog.version}.items-1", "import")
    (item,) = answer["items"]
    assert item["item_id"] == "new-1"
    line = found(shop, "new-1", fields=["price", "added_at"])
    assert (line["identifier"], line["title"]) == (item["identifier"], "Nouveau")
    assert line["attributes"] == {"price": 3, "added_at": pytest.approx(answer["at"], abs=60)}
    listed = shop.client.get("/v1/catalog/items?offset=200").json()
    assert (listed["version"], [line["item_id"] for line in listed["items"]]) == (answer["version"], ["new-1"])
    assert shop.client.get("/v1/catalog/filters/titled").json()["items"] == 201
    assert shop.metric("atspeed_catalog_items") == 201
    assert shop.metric("atspeed_items_added_total") == 1
    # A user who has met it may be recommended something else, by the model that has never seen it.
    assert shop.recommend(history=[*HISTORY, "new-1"], k=5, exclude_history=True).status_code == 200
    rolled_back = shop.client.post("/v1/catalogs/rollback", json={"by": "a test"})
    assert rolled_back.json()["version"] == catalog.version
    assert shop.recommend(history=HISTORY, k=20).json()["items"] == alike(before["items"])
    shop.client.delete("/v1/catalog/filters/titled")


def test_collisions_are_resolved_as_asked(shop: ServerProcess):
    first, second = ({"item_id": name, "embedding": embedding(2)} for name in ("twin-1", "twin-2"))
    (one, two) = added(shop, first, second)["items"]
    assert one["identifier"] != two["identifier"]
    assert two["moved"]
    (three,) = added(shop, {"item_id": "twin-3", "embedding": embedding(2)}, on_collision="shared")["items"]
    assert not three["moved"]
    (four,) = added(shop, {"item_id": "twin-4", "identifier": two["identifier"]}, on_collision="shared")["items"]
    assert four == {"item_id": "twin-4", "identifier": two["identifier"], "moved": False}
    shop.client.put("/v1/catalog/filters/twins", json={"items": ["twin-2", "twin-4"]})
    lines = shop.recommend(history=HISTORY, filter="twins").json()["items"]
    assert [(line["item_id"], line["rank"]) for line in lines] == [("twin-2", 1), ("twin-4", 1)]
    shop.client.delete("/v1/catalog/filters/twins")


def test_posts_at_the_same_time_all_land_while_lists_are_asked_for(shop: ServerProcess):
    stop, failures = threading.Event(), []

    def ask() -> None:
        with httpx.Client(base_url=shop.client.base_url, timeout=30) as client:
            while not stop.is_set():
                response = client.post("/v1/recommendations", json={"history": HISTORY, "k": 5})
                if response.status_code != 200:
                    failures.append(response.json())

    def post(number: int) -> httpx.Response:
        with httpx.Client(base_url=shop.client.base_url, timeout=120) as client:
            items = [{"item_id": f"crowd-{number}-{i}", "embedding": embedding(3)} for i in range(2)]
            return client.post("/v1/catalog/items", json={"items": items})

    before = shop.client.get("/v1/catalog").json()["items"]
    asking = threading.Thread(target=ask)
    asking.start()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(post, range(4)))
    stop.set()
    asking.join()
    assert [answer.status_code for answer in answers] == [201] * 4
    assert not failures
    identifiers = {tuple(item["identifier"]) for answer in answers for item in answer.json()["items"]}
    assert len(identifiers) == 8
    assert len({answer.json()["version"] for answer in answers}) == 4
    assert shop.client.get("/v1/catalog").json()["items"] == before + 8
    assert shop.metric("atspeed_kv_slots_used") == 0


@pytest.mark.parametrize(
    ("items", "status", "sentence"),
    [
        ([{"item_id": "item-3", "embedding": [0.0] * DIMS}], 409, "The catalog has an item 'item-3' already."),
        ([{"item_id": "x", "embedding": [0.0] * DIMS}] * 2, 422, "Item 'x' is named twice: item ids must be unique."),
        ([{"item_id": "x", "embedding": [0.0] * 3}], 422, "The embedding of item 'x' has 3 numbers, but the codebooks take 4."),
        ([{"item_id": "x", "embedding": [1e39] * DIMS}], 422, "The embedding of item 'x' holds a number that is not finite."),
        (
            [{"item_id": "y", "embedding": [0.0] * DIMS}, {"item_id": "x", "identifier": ["<a_0>", "<b_0>", "<z_9>"]}],
            422,
            "The model's tokenizer has no token '<z_9>', which the identifier of item 'x' needs (1 of the catalog's 25 tokens are missing)"
            ": catalog and model do not belong together.",
        ),
        ([{"item_id": "x"}], 422, "Give each item either an embedding or an identifier."),
        ([{"item_id": "x", "embedding": [0.0], "identifier": ["<a_0>"]}], 422, "Give each item either an embedding or an identifier."),
        ([], 422, "items must have at least 1 item, not 0."),
        (
            [{"item_id": "x", "embedding": [0.0] * DIMS, "attributes": {"added_at": "soon"}}],
            422,
            "added_at of item 'x' is neither seconds since 1970 nor an ISO date or time.",
        ),
        (
            [{"item_id": "x", "embedding": [0.0] * DIMS, "attributes": {"title": "X"}}],
            422,
            "A title does not belong among the attributes: put it beside item_id.",
        ),
    ],
)
def test_what_is_refused_changes_nothing(
    shop: ServerProcess, flags: list[str], items: list[dict[str, Any]], status: int, sentence: str
) -> None:
    directory = Path(flags[-1])
    before, files = shop.client.get("/v1/catalogs").json(), sorted(directory.iterdir())
    assert_problem(add(shop, *items), status, sentence)
    assert shop.client.get("/v1/catalogs").json() == before
    assert sorted(directory.iterdir()) == files
    assert shop.recommend(history=HISTORY).json()["catalog_version"] == before["active"]


def test_numbers_that_json_does_not_have_are_refused(shop: ServerProcess):
    body = json.dumps({"items": [{"item_id": "x", "embedding": [0.0, float("nan"), 0.0, 0.0]}]})
    response = shop.client.post("/v1/catalog/items", content=body, headers={"content-type": "application/json"})
    assert_problem(response, 422, "items[0].embedding[1] must be a finite number, got nan.")


def test_many_items_are_more_than_other_bodies_may_be(shop: ServerProcess):
    for padding, status in ((3 * 2**20, 409), (9 * 2**20, 413)):
        body = json.dumps({"items": [{"item_id": "item-3", "embedding": [0.0] * DIMS}]}) + padding * " "
        response = shop.client.post("/v1/catalog/items", content=body, headers={"content-type": "application/json"})
        assert response.status_code == status, response.text


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ('{"note": "\\ud83d"}', "The attribute 'note' of item 'odd' holds half of a surrogate pair, which UTF-8 can't carry."),
        ('{"note": NaN}', "The attribute 'note' of item 'odd' holds a number that is not finite."),
        ('{"note": [-1e999]}', "The attribute 'note' of item 'odd' holds a number that is not finite."),
        ('{"note": ' + "9" * 300 + "}", "The attribute 'note' of item 'odd' holds an integer of more than 64 bits."),
        ('{"note": ' + "[" * 200 + "]" * 200 + "}", "The attribute 'note' of item 'odd' is nested more than 8 levels deep."),
        ('{"note": "' + "a" * 20_000 + '"}', "The attribute 'note' of item 'odd' has more than 10,000 characters."),
    ],
    ids=["half", "nan", "infinite", "digits", "deep", "long"],
)
def test_an_attribute_that_no_client_can_be_told_is_refused_with_its_item(shop: ServerProcess, attributes: str, reason: str):
    before = shop.client.get("/v1/catalogs").json()
    even = '{"item_id": "even", "embedding": [0.5, 0.5, 0, 0]}'
    odd = f'{{"item_id": "odd", "embedding": [0.5, 0.5, 0, 0], "attributes": {attributes}}}'
    content = f'{{"items": [{even}, {odd}]}}'
    assert_problem(shop.client.post("/v1/catalog/items", content=content, headers={"content-type": "application/json"}), 422, reason)
    assert shop.client.get("/v1/catalogs").json() == before


def test_thousands_of_names_of_attributes_are_refused(shop: ServerProcess):
    items = [{"item_id": f"n-{i}", "embedding": embedding(7), "attributes": {f"{i}-{j}": 1 for j in range(50)}} for i in range(1000)]
    response = add(shop, *items)
    assert response.status_code == 422
    assert response.json()["detail"].endswith(
        "names of attributes, but 100 are the most: each is a column over all items. Names that differ from item to item belong into one "
        "attribute, as a list."
    )


def test_only_the_newest_versions_that_items_made_stay(shop: ServerProcess, catalog: Catalog):
    for number in range(KEPT_VERSIONS + 1):
        added(shop, {"item_id": f"many-{number}", "embedding": embedding(10 + number)})
    told = shop.client.get("/v1/catalogs").json()
    made = [name for name in told["versions"] if ".items-" in name]
    assert len(made) == KEPT_VERSIONS
    assert told["active"] == made[-1]
    assert catalog.version in told["versions"]
    assert shop.client.post("/v1/catalogs/rollback", json={"by": "a test"}).json()["version"] == made[-2]
    # The items that were added since are gone with their version, and its name is not given again.
    answer = added(shop, {"item_id": f"many-{KEPT_VERSIONS}", "embedding": embedding(99)})
    assert answer["version"] not in told["versions"]


def test_new_items_outlive_the_server_and_its_engine(flags: list[str], shop: ServerProcess, tmp_path: Path):
    answer = added(shop, {"item_id": "lasting", "embedding": embedding(5)})
    shop.engine.kill()
    shop.wait_for(lambda: shop.client.get("/ready").status_code != 200)
    assert_problem(add(shop, {"item_id": "too early", "embedding": embedding(5)}), 503, "The engine is being restarted after it died.")
    shop.wait_until_ready()
    assert found(shop, "lasting")["identifier"] == answer["items"][0]["identifier"]
    with ForkedServer(tmp_path, *flags) as again:
        again.wait_until_ready()
        assert again.client.get("/v1/catalogs").json()["active"] == answer["version"]
        assert found(again, "lasting")["identifier"] == answer["items"][0]["identifier"]
        assert added(again, {"item_id": "later", "embedding": embedding(6)})["version"] > answer["version"]


def test_without_codebooks_items_bring_their_identifiers(server: ServerProcess):
    sentence = "Without codebooks there is no identifier for the embedding of item 'x': send an identifier."
    assert_problem(add(server, {"item_id": "x", "embedding": [0.0]}), 422, sentence)


def test_codebooks_that_are_none_end_a_server_at_once(model_flags: list[str], tmp_path: Path):
    (tmp_path / "codebooks.safetensors").write_bytes(b"nothing")
    status, log = ForkedServer(tmp_path, *model_flags, "--codebooks", str(tmp_path / "codebooks.safetensors")).run()
    assert status == 1
    assert "The codebooks" in log


@pytest.mark.parametrize(
    ("active", "taken", "expected"),
    [
        ("v1", [], "v1.items-1"),
        ("v1.items-1", ["v1", "v1.items-1"], "v1.items-2"),
        ("v1", ["v1.items-9", "v1.items-10", "v2.items-30"], "v1.items-11"),
        ("v" * 100, [], "v" * 80 + ".items-1"),
    ],
)
def test_a_version_that_items_make_has_the_next_free_number(active: str, taken: list[str], expected: str) -> None:
    assert next_version(active, taken) == expected
