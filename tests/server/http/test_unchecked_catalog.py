"""A catalog whose values nobody has checked: what no client can be told is left out, and every list and batch is answered."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from drafting.catalog.artefact import save_artefact
from drafting.catalog.attributes import AttributeColumn
from drafting.catalog.catalog import Catalog
from drafting.catalog.text_column import TextColumn
from tests.server.forked_server import ForkedServer
from tests.server.server_process import ServerProcess

ODD = ["NaN", "9" * 300, '"\ud800"', "[" * 300 + "]" * 300, "{", '["\udfff"]', "1e999", '"fine"']
HISTORY = ["item-3", "item-14"]


@pytest.fixture(scope="module")
def shop(catalog: Catalog, model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("unchecked")
    column = AttributeColumn((np.arange(len(catalog)) % len(ODD)).astype(np.int32), TextColumn.of(ODD))
    item_ids = TextColumn.of([f"item-{i}" if i % 2 else f"item-{i}-\ud800" for i in range(len(catalog))])
    save_artefact(Catalog.of(item_ids, catalog.tokens, catalog.codes, {"odd": column, "title": column}), folder / "odd.catalog")
    flags = ("--target", str(model_dir), "--catalog", str(folder / "odd.catalog"), "--histories", "memory://", "--timeout-ms", "20000")
    with ForkedServer(folder, *flags) as server:
        yield server.wait_until_ready()


def test_each_entry_of_a_batch_is_answered(shop: ServerProcess) -> None:
    entries = [{"history": ["item-3"], "k": 40, "fields": ["odd"]}, {"history": ["nothing"]}, {"history": ["item-5"], "k": 3}]
    response = shop.client.post("/v1/recommendations:batch", json={"requests": entries})
    body = orjson.loads(response.content)
    assert [entry["status"] for entry in body["results"]] == [200, 422, 200]
    lines = body["results"][0]["recommendation"]["items"]
    assert len(lines) >= 40
    for line in lines:
        number = int(line["item_id"].split("-")[1])
        assert line["item_id"] == (f"item-{number}" if number % 2 else f"item-{number}-\\ud800")
        assert line["attributes"] == ({"odd": "fine"} if number % len(ODD) == 7 else {})
        assert line.get("title") == ("fine" if number % len(ODD) == 7 else None)


def test_lists_items_histories_and_filters_are_answered(shop: ServerProcess) -> None:
    listed = orjson.loads(shop.client.get("/v1/catalog/items?limit=1000").content)["items"]
    assert [line.get("title") for line in listed[:8]] == [None] * 7 + ["fine"]
    shop.client.post("/v1/users/u/events", json={"events": [{"item_id": f"item-{i}"} for i in (1, 3, 5, 7)]})
    history = orjson.loads(shop.client.get("/v1/users/u/history").content)["events"]
    assert [event.get("title") for event in history] == [None, None, None, "fine"]
    for expression, items in (('odd = "fine"', 25), ("odd < 1", 0), ("odd", 200), ('odd has "a"', 0)):
        assert shop.client.put("/v1/catalog/filters/x", json={"expression": expression}).json()["items"] == items
