"""Catalogs as other projects write them: each form is recognised, said in a sentence, and gives the catalog that it holds."""

import csv
import json
import pickle
import re
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from drafting.alignment.data.inter_file import load_inter
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog, CatalogError
from drafting.catalog.code_matrix import MatrixItems
from drafting.catalog.item_list import ItemList
from drafting.catalog.limits import ReadLimits
from drafting.catalog.loading import load_catalog

CODES = np.random.default_rng(0).integers(256, size=(12, 4))
LETTERS = "<{letter}_{code}>"
ONEREC = "<s_{letter}_{code}>"


def expected(pattern: str = LETTERS, names: list[str] | None = None, titles: dict[str, str] | None = None) -> Catalog:
    tokens = [[pattern.format(letter="abcd"[level], code=code) for level, code in enumerate(row)] for row in CODES.tolist()]
    return catalog_of(list(zip(names or map(str, range(len(CODES))), tokens, strict=True)), titles)


def load(path: Path, pattern: str = LETTERS, **options: Any) -> tuple[Catalog, str]:
    """The catalog of a file, and what it was found to be."""
    found: list[str] = []
    catalog = load_catalog(path, pattern, on_form=found.append, **options)
    (form,) = found
    return catalog, form


def refusal(path: Path, **options: Any) -> str:
    with pytest.raises(CatalogError) as refused:
        load_catalog(path, **options)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("kind", [torch.int64, torch.int32, torch.uint8, torch.float32, torch.float64])
@pytest.mark.parametrize("digits_in", ["rows", "columns"])
def test_grids_tensor(tmp_path: Path, kind: torch.dtype, digits_in: str) -> None:
    """Before GRID transposes it, its tensor is of floats and has an item in each row."""
    tensor = torch.from_numpy(CODES).to(kind)
    torch.save(tensor.T if digits_in == "rows" else tensor, tmp_path / "merged_predictions_tensor.pt")
    catalog, form = load(tmp_path / "merged_predictions_tensor.pt")
    assert catalog.version == expected().version
    shape = "[4, 12] with an item in each of its columns" if digits_in == "rows" else "[12, 4] with an item in each of its rows"
    assert form == f"a matrix of codes {shape}, called by their number, from 0"


@pytest.mark.parametrize("zipped", [True, False])
def test_a_tensor_of_a_parameter_and_of_either_file_format(tmp_path: Path, zipped: bool) -> None:
    codes = torch.nn.Parameter(torch.from_numpy(CODES).float())
    torch.save(codes, tmp_path / "codes.pth", _use_new_zipfile_serialization=zipped)
    assert load(tmp_path / "codes.pth")[0].version == expected().version


def test_tigers_array_and_names_for_its_items(tmp_path: Path) -> None:
    np.save(tmp_path / "Beauty_t5_rqvae.npy", CODES)
    assert load(tmp_path / "Beauty_t5_rqvae.npy")[0].version == expected().version
    (tmp_path / "items.jsonl").write_text("".join(f'{{"item_id": {number + 1}, "title": "Item {number}"}}\n' for number in range(12)))
    named = ItemList.read(tmp_path / "items.jsonl")
    catalog, form = load(tmp_path / "Beauty_t5_rqvae.npy", matrix=MatrixItems(named=named))
    names = [str(number + 1) for number in range(12)]
    assert catalog.version == expected(names=names, titles={name: f"Item {number}" for number, name in enumerate(names)}).version
    assert form == "a matrix of codes [12, 4] with an item in each of its rows"
    few = ItemList(["a", "b"])
    assert refusal(tmp_path / "Beauty_t5_rqvae.npy", matrix=MatrixItems(named=few)).endswith(
        "has 12 items in its rows, but 2 are listed: each needs its own."
    )


@pytest.mark.parametrize("suffix", [".pt", ".npy"])
def test_a_matrix_that_does_not_tell_its_sides_is_refused_with_the_flag_that_does(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"codes{suffix}"
    few = CODES[:6]
    torch.save(torch.from_numpy(few), path) if suffix == ".pt" else np.save(path, few)
    assert refusal(path) == (
        f"{path} is a matrix of codes [6, 4], and its items may stand in its rows or in its columns: say which with "
        "--items-in rows or --items-in columns of `atspeed catalog convert`."
    )
    rows, columns = (load(path, matrix=MatrixItems(side))[0] for side in ("rows", "columns"))
    assert rows.identifier(1) == tuple(f"<{letter}_{code}>" for letter, code in zip("abcd", few[1], strict=True))
    assert columns.identifier(1) == tuple(f"<{letter}_{code}>" for letter, code in zip("abcdef", few[:, 1], strict=True))


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def written(value: object) -> Callable[[Path], None]:
    return lambda path: torch.save(value, path)


NO_TENSORS: dict[str, tuple[Callable[[Path], object], str]] = {
    "embeddings": (written(torch.zeros(12, 768)), "is a matrix [12, 768], but identifiers have 1 to 8 digits: if it holds embeddings"),
    "a cube": (written(torch.zeros(2, 3, 4)), "holds an array of 3 dimensions"),
    "a table": (
        written({"sids": torch.zeros(2), "keys": [1]}),
        "holds a dict with sids, keys and not one tensor of codes",
    ),
    "a list": (written([torch.zeros(12, 4)]), "holds a list and not one tensor of codes"),
    "fractions": (written(torch.full((12, 4), 0.5)), "has the code 0.5, which is not a whole number from 0 to 2^53."),
    "padding": (written(torch.full((12, 4), -1)), "has the code -1, which is not a whole number"),
    "nothing": (written(torch.full((12, 4), torch.nan)), "has the code nan, which is not a whole number"),
    "truths": (written(torch.zeros(12, 4, dtype=torch.bool)), "holds values of type bool: it needs whole numbers."),
    "complex": (written(torch.zeros(12, 4, dtype=torch.complex64)), "holds values of type complex64: it needs whole numbers."),
    "bfloat16": (written(torch.zeros(12, 4, dtype=torch.bfloat16)), "of the kind torch.bfloat16, torch.strided: save it as int64."),
    "sparse": (written(torch.zeros(12, 4).to_sparse()), "of the kind torch.float32, torch.sparse_coo: save it as int64."),
    "no items": (written(torch.zeros(0, 4)), "The catalog is empty"),
    "text": (lambda path: path.write_text("codes"), "the file is damaged or cut off, or a pickle that holds more than tensors"),
    "a pickle": (
        lambda path: path.write_bytes(pickle.dumps(Code(path.parent / "it ran"), protocol=2)),
        "a pickle that holds more than tensors",
    ),
    "code": (lambda path: torch.save(Code(path.parent / "it ran"), path), "a pickle that holds more than tensors, which is never run."),
}


@pytest.mark.parametrize("mistake", NO_TENSORS)
def test_what_is_no_tensor_of_codes_is_refused(tmp_path: Path, mistake: str) -> None:
    write, sentence = NO_TENSORS[mistake]
    write(tmp_path / "codes.pt")
    assert sentence in refusal(tmp_path / "codes.pt")
    assert not (tmp_path / "it ran").exists()


def test_what_is_no_array_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "codes.npy"
    np.save(path, np.array([[Code(tmp_path / "it ran")] * 4] * 12), allow_pickle=True)
    assert "is not a .npy array" in refusal(path)
    assert not (tmp_path / "it ran").exists()
    np.save(path, CODES)
    path.write_bytes(path.read_bytes()[:-1])
    assert "is not a .npy array" in refusal(path)
    path.write_bytes(b"\x93NUMPY\x01\x00\x10\x00{'descr': (((((((" + bytes(90))
    assert "is not a .npy array" in refusal(path)
    np.save(path, CODES.astype(str))
    assert "holds values of type <U" in refusal(path)
    with path.open("wb") as file:
        np.savez(file, CODES)
    assert refusal(path).endswith("is not a .npy array, but a zip file, such as .npz: save the one array with np.save.")
    path.write_bytes(path.read_bytes()[:-1])
    assert "is not a .npy array" in refusal(path)


@pytest.mark.parametrize("kind", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_torch_file_is_mapped_unless_it_is_compressed(tmp_path: Path, kind: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mapped file that is compressed would give its compressed bytes for codes."""
    torch.save(torch.from_numpy(CODES), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(tmp_path / "codes.pt", "w", kind) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    mapped: list[bool] = []
    load_file = torch.load
    monkeypatch.setattr(torch, "load", lambda *files, **options: (mapped.append(options["mmap"]), load_file(*files, **options))[1])
    assert load(tmp_path / "codes.pt")[0].version == expected().version
    assert mapped == [kind == zipfile.ZIP_STORED]


def test_the_limits_of_uploads_hold_for_matrices_before_their_values_are_read(tmp_path: Path) -> None:
    """A tensor of a few bytes may say that it has a million million items, and a zip file that it unpacks to gigabytes."""
    path = tmp_path / "codes.pt"
    torch.save(torch.zeros(1, 4, dtype=torch.int64).expand(10**12, 4), path)
    assert refusal(path, limits=ReadLimits(items=20_000_000)) == (
        "The catalog has 1,000,000,000,000 items or more; at most 20,000,000 are read."
    )
    torch.save(torch.zeros(10**6, 8, dtype=torch.int64), tmp_path / "plain.pt")
    with zipfile.ZipFile(tmp_path / "plain.pt") as plain, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert "unpacks to more than 200 times its size" in refusal(path, limits=ReadLimits(ratio=200))
    np.save(tmp_path / "codes.npy", CODES)
    assert refusal(tmp_path / "codes.npy", limits=ReadLimits(items=11)) == "The catalog has 12 items or more; at most 11 are read."


INFO = ["SUPCO Relay, 500%", "Stanley\tStaples", "", "Kämme"]


@pytest.mark.parametrize("name", ["Industrial_and_Scientific_5_2016-10-2018-11.txt", "items.info.txt", "items.tsv", "items"])
def test_minionerecs_info_file(tmp_path: Path, name: str) -> None:
    catalog = expected()
    lines = [f"{''.join(catalog.identifier(item))}\t{INFO[item % 4]}\t{item}\n" for item in range(12)]
    (tmp_path / name).write_text("".join([*lines[:5], "\n", *lines[5:]]), encoding="utf-8")
    found, form = load(tmp_path / name)
    assert found.version == expected(titles={str(item): INFO[item % 4] for item in range(12) if item % 4 != 2}).version
    assert form == "MiniOneRec's item info: identifier, title and item id, separated by tabs, with identifiers as one text each"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("<a_1><b_2>\tA\t0\n<a_1><b_2> 1\n", "Line 2 of the catalog {path} has no tab: its form is identifier, title and item id"),
        ("<a_1><b_2>\tA\t\n", "Line 1 of the catalog {path} has no item id behind its last tab."),
        ("Relay\t0\n", "The identifier of item '0' is not a row of tokens such as <a_1><b_2>, got 'Relay'."),
        ("<a_1>\tA\t0\n<a_1><b_2>\tB\t1\n", "The identifier of item '1' has 2 tokens, but that of item '0' has 1"),
        ("<a_1>\tA\t0\n<a_2>\tB\t0\n", "Item '0' appears twice"),
        (f"<a_1>\t{'A' * 10_001}\t0\n", "Line 1 of the catalog {path} can't be used. The attribute 'title' of item '0' has more than"),
    ],
)
def test_info_files_that_are_refused(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "items.txt").write_text(text)
    assert refusal(tmp_path / "items.txt").startswith(sentence.format(path=tmp_path / "items.txt"))


def test_an_info_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "items.txt").write_bytes("<a_1>\tKämme\t0\n".encode("latin-1"))
    assert refusal(tmp_path / "items.txt").startswith(f"Line 1 of the catalog {tmp_path / 'items.txt'} is not UTF-8 text: ")


@pytest.mark.parametrize("column", ["codes", "sid"])
def test_openonerecs_parquet(tmp_path: Path, column: str) -> None:
    """As its tokenizer writes it (`codes`) and its data scripts read it (`sid`), with a caption beside them."""
    pids = [10**12 + number for number in range(12)]
    captions = [f"Video {number}" for number in range(12)]
    pq.write_table(pa.table({"pid": pids, column: CODES.tolist(), "title": captions}), tmp_path / "pid2sid.parquet")
    catalog, form = load(tmp_path / "pid2sid.parquet", ONEREC)
    names = list(map(str, pids))
    assert catalog.version == expected(ONEREC, names, dict(zip(names, captions, strict=True))).version
    assert form == f"parquet with item ids in the column pid and identifiers in the column {column} (list<element: int64>)"


def test_names_of_openonerec_beside_our_own_are_attributes(tmp_path: Path) -> None:
    columns = {"item_id": ["x", "y"], "pid": [1, 2], "identifier": [["<a_1>"], ["<a_2>"]], "sid": ["s", "t"]}
    pq.write_table(pa.table(columns), tmp_path / "items.parquet")
    catalog, _ = load(tmp_path / "items.parquet")
    assert tuple(catalog.item_ids) == ("x", "y")
    assert catalog.known_attributes(1) == {"pid": 2, "sid": "t"}


BARE = {str(item): "".join(f"C{code + 256 * level}" for level, code in enumerate(row)) for item, row in enumerate(CODES.tolist())}


@pytest.mark.parametrize("form", ["index", "lines", "parquet", "info"])
def test_texts_of_codes_without_separators(tmp_path: Path, form: str) -> None:
    """FORGE's tokens: C1989C14585C22548."""
    path = tmp_path / {"index": "c.json", "lines": "c.jsonl", "parquet": "c.parquet", "info": "c.txt"}[form]
    match form:
        case "index":
            path.write_text(json.dumps(BARE))
        case "lines":
            path.write_text("".join(json.dumps({"item_id": item, "identifier": text}) + "\n" for item, text in BARE.items()))
        case "parquet":
            pq.write_table(pa.table({"item_id": list(BARE), "identifier": list(BARE.values())}), path)
        case "info":
            path.write_text("".join(f"{text}\t\t{item}\n" for item, text in BARE.items()))
    catalog, _ = load(path)
    assert catalog.version == catalog_of({item: re.findall(r"C\d+", text) for item, text in BARE.items()}).version


@pytest.mark.parametrize("form", ["3-17-200-0", "(3, 17, 200, 0)", "3 17 200 0", "3_17_200_0", "[3,17,200,0]"])
def test_texts_of_numbers_are_codes(tmp_path: Path, form: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"x": form}))
    assert load(tmp_path / "c.json", "<sid_{level}_{code}>")[0].identifier(0) == ("<sid_1_3>", "<sid_2_17>", "<sid_3_200>", "<sid_4_0>")


@pytest.mark.parametrize("text", ["12", "C12", "item", "C12D", "12-", "C12 C34", "3--4", "-3-4", "<a_1>C2", "1.5-2"])
def test_texts_that_may_be_anything_are_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "c.json").write_text(json.dumps({"x": text}))
    assert refusal(tmp_path / "c.json") == f"The identifier of item 'x' is not a row of tokens such as <a_1><b_2>, got {text!r}."


@pytest.mark.parametrize("suffix", [".json", ".sem_ids"])
def test_tigers_and_letters_index(tmp_path: Path, suffix: str) -> None:
    names = [f"B00{number}" for number in range(12)]
    (tmp_path / f"items{suffix}").write_text(json.dumps(dict(zip(names, CODES.tolist(), strict=True))))
    catalog, form = load(tmp_path / f"items{suffix}")
    assert catalog.version == expected(names=names).version
    assert form == "an index of item to identifier, with identifiers as lists of whole numbers"


def test_item_ids_that_are_integers(tmp_path: Path) -> None:
    lines = [{"item_id": 10**15 + number, "codes": row} for number, row in enumerate(CODES.tolist())]
    (tmp_path / "c.jsonl").write_text("\n".join(map(json.dumps, lines)))
    catalog, form = load(tmp_path / "c.jsonl")
    assert catalog.version == expected(names=[str(10**15 + number) for number in range(12)]).version
    assert form == "JSONL, an item a line, with identifiers as lists of whole numbers"
    for odd in (1.0, 1e12, True, None, [1]):
        (tmp_path / "c.jsonl").write_text(json.dumps({"item_id": odd, "codes": [1, 2]}))
        assert "Line 1 of the catalog" in refusal(tmp_path / "c.jsonl")


def test_flags_of_matrices_are_for_matrices(tmp_path: Path) -> None:
    (tmp_path / "c.json").write_text(json.dumps(BARE))
    assert refusal(tmp_path / "c.json", matrix=MatrixItems("rows")).startswith(f"{tmp_path / 'c.json'} is an index of item to identifier")


def test_what_the_documentation_makes_of_lc_recs_and_minionerecs_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "formats" / "lc-rec.md"
    of_items, of_rows = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    known = {"title": "A relay", "description": "long " * 10_000, "brand": "SUPCO", "categories": "Industrial,Relays"}
    (tmp_path / "NAME.index.json").write_text(json.dumps({str(item): [f"<a_{item}>", "<b_0>"] for item in range(4)}))
    (tmp_path / "NAME.item.json").write_text(json.dumps({"0": known}, indent=4))
    exec(compile(of_items, str(page), "exec"), {})
    catalog, _ = load(tmp_path / "catalog.jsonl")
    described = {name: value for name, value in known.items() if name != "description"}
    assert [catalog.known_attributes(item) for item in range(4)] == [described, {}, {}, {}]
    rows = {"train": [("A7", "[0]", 1)], "valid": [("A7", "[0, 1]", 2), ("A9", "[3]", 0)], "test": [("A7", "[1, 2]", 3)]}
    for part, each in rows.items():
        (tmp_path / part).mkdir()
        with (tmp_path / part / "NAME.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("user_id", "history_item_id", "item_id"), *each])
    exec(compile(of_rows, str(page), "exec"), {})
    found = load_inter(tmp_path / "NAME.inter.json", catalog)
    assert {user: found.history(row).tolist() for row, user in enumerate(found.users)} == {"A7": [1, 2, 3], "A9": [3, 0]}
    assert (tmp_path / "test.jsonl").read_text() == '{"user_id": "A7", "history": [1, 2]}\n'
