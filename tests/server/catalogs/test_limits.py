"""What a catalog may cost: rows, packing, memory and time, each with a sentence and without a trace."""

from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.catalog.artefact import save_artefact
from drafting.catalog.catalog import CatalogError
from drafting.catalog.limits import ReadLimits
from drafting.catalog.loading import load_catalog
from server.catalogs.background import ProcessLimits, run_in_background
from server.catalogs.placing import PlaceOrder, place
from server.errors import CatalogRefused
from tests.server.catalogs.limited_work import Done, Task
from tests.server.catalogs.shop import START


async def run(what: str, **limits: Any) -> Done:
    given = ProcessLimits(**({"memory_gib": 0.5, "seconds": 20} | limits))
    return await run_in_background("tests.server.catalogs.limited_work", Task(what), Done, given, CatalogRefused)


async def test_a_process_knows_its_limits_and_is_the_first_that_the_kernel_kills() -> None:
    assert await run("nothing") == Done(2**29, 20, 1000)


@pytest.mark.parametrize(
    ("what", "limits", "sentence"),
    [
        ("memory", {}, r"It takes more than the 0\.5 GiB of memory that this server allows for it \(--catalog-build-memory-gib\)\."),
        ("processor", {"seconds": 1}, r"It takes longer than the 1 s that this server allows for it \(--catalog-build-seconds\)\."),
        ("sleep", {"seconds": 1}, r"It takes longer than the 1 s that this server allows for it \(--catalog-build-seconds\)\."),
        ("die", {}, r"The process that works on it died, for lack of memory perhaps\."),
    ],
)
async def test_a_process_that_takes_too_much_is_ended_with_a_sentence(what: str, limits: dict[str, Any], sentence: str) -> None:
    with pytest.raises(CatalogRefused, match=sentence):
        await run(what, **limits)


def equal_rows(path: Path, rows: int) -> Path:
    table = pa.table({"item_id": pa.array(["the same item"] * rows), "identifier": pa.array([["<a_1>", "<b_1>", "<c_1>"]] * rows)})
    pq.write_table(table, path, compression="zstd")
    return path


def test_a_file_that_unpacks_to_much_more_than_it_is_is_not_read(tmp_path: Path) -> None:
    path = equal_rows(tmp_path / "bomb.parquet", 1_500_000)
    read: list[int] = []
    with pytest.raises(CatalogError, match=r"The file unpacks to more than 200 times its size, which no catalog needs: it is not read\."):
        load_catalog(path, on_items=read.append, limits=ReadLimits(ratio=200))
    assert sum(read) < 1_500_000


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet", ".catalog", ".txt"])
def test_a_catalog_of_too_many_items_is_refused(tmp_path: Path, suffix: str) -> None:
    if suffix == ".txt":
        (tmp_path / "some.txt").write_text("".join(f"<a_1><b_{number}>\tTitle\t{number}\n" for number in range(20)))
    elif suffix == ".parquet":
        names = [str(number) for number in range(20)]
        table = pa.table({"item_id": names, "identifier": [["<a_1>", f"<b_{name}>"] for name in names]})
        pq.write_table(table, tmp_path / "some.parquet")
    else:
        START.save(tmp_path / "some.jsonl")
        save_artefact(START, tmp_path / "some.catalog")
    path = tmp_path / f"some{suffix}"
    assert len(load_catalog(path, limits=ReadLimits(items=20))) == 20
    with pytest.raises(CatalogError, match=r"The catalog has 20 items or more; at most 19 are read\."):
        load_catalog(path, limits=ReadLimits(items=19))


def test_new_items_do_not_make_more_items_than_a_catalog_may_have(tmp_path: Path) -> None:
    START.save(tmp_path / "some.jsonl")
    items = [{"item_id": "new", "identifier": ["<a_0>", "<b_0>", "<c_0>"]}]
    order = {"base": str(tmp_path / "some.jsonl"), "version": START.version, "artefact": str(tmp_path / "x.catalog"), "codebooks": None}
    told = place(msgspec.convert(order | {"items": items, "collision": "shared", "added_at": 1, "max_items": 20}, PlaceOrder))
    assert told.sentence == "With these the catalog would have more than the 20 items that this server allows."
    assert [path.name for path in tmp_path.iterdir()] == ["some.jsonl"]
