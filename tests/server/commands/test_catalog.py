"""`atspeed catalog`: what it writes, what it shows, and what it refuses."""

import asyncio
import errno
import json
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM
from typer.testing import CliRunner, Result

from drafting.alignment.bases import scratch_tokenizer
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.catalog.codebooks import Codebooks
from drafting.catalog.loading import load_catalog
from drafting.embeddings.learnt import Learnt, write_learnt
from drafting.neighbours.source_check import source_of
from drafting.prompts.template import PromptTemplate
from server.commands.catalog import catalog_app
from server.histories import Event, open_history_store
from tests.models import random_catalog, save_random_model, save_tokenizer
from verification.evaluation.proxy import ProxyQuality, ProxySettings
from verification.hosts.served_model import ServedModel

ITEMS = 40


def run(*flags: object) -> Result:
    return CliRunner().invoke(catalog_app, [str(flag) for flag in flags], env={"COLUMNS": "200"})


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    np.save(tmp_path / "items.npy", np.random.default_rng(0).normal(size=(ITEMS, 6)))
    return tmp_path / "items.npy"


@pytest.fixture
def items(tmp_path: Path) -> Path:
    path = tmp_path / "items.jsonl"
    path.write_text("".join(f'{{"item_id": "i{item}", "title": "Item {item}", "price": {item}}}\n' for item in range(ITEMS)))
    return path


def test_build_writes_a_catalog_and_the_codebooks_that_made_it(tmp_path: Path, embeddings: Path, items: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    built = run("build", "--embeddings", embeddings, "--items", items, "--out", out, "--levels", 2, "--codes", 8, "--unique")
    assert built.exit_code == 0, built.output
    assert f"Wrote {out} (40 items, version " in built.output
    assert "0 items share an identifier" in built.output
    catalog = load_catalog(out)
    assert tuple(catalog.item_ids) == tuple(f"i{item}" for item in range(ITEMS))
    assert catalog.known_attributes(3) == {"title": "Item 3", "price": 3}
    assert catalog.identifier_length == 2
    assert len(np.unique(catalog.codes, axis=0)) == ITEMS
    codes = Codebooks.load(tmp_path / "catalog.codebooks.safetensors").encode(np.load(embeddings))
    assert [catalog.identifier(item)[0] for item in range(ITEMS)] == [f"<a_{code}>" for code in codes[:, 0]]


def test_build_keeps_attributes_of_either_form_and_no_identifiers(tmp_path: Path, embeddings: Path) -> None:
    lines = [{"item_id": item, "genres": ["war"], "price": None} for item in range(ITEMS)]
    lines[1] = {"item_id": "1", "title": "One", "identifier": ["<a_1>"], "attributes": {"genres": [], "stock": 2.5}}
    (tmp_path / "items.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "catalog.jsonl"
    flags = ("--embeddings", embeddings, "--out", out, "--levels", 2, "--codes", 8)
    assert (built := run("build", "--items", tmp_path / "items.jsonl", *flags)).exit_code == 0, built.output
    catalog = load_catalog(out)
    assert catalog.known_attributes(0) == {"genres": ["war"]}
    assert catalog.known_attributes(1) == {"title": "One", "genres": [], "stock": 2.5}
    assert sorted(catalog.attributes) == ["genres", "stock", "title"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"title": "One"}', "it needs a text or a whole number as its 'item_id'"),
        ('{"item_id": true}', "it needs a text or a whole number as its 'item_id'"),
        ('{"item_id": "i1", "title": 5}', "its title must be a text"),
        ('{"item_id": "i1", "price": 1e400}', "Number out of range"),
        ('{"item_id": "i1", "deep": ' + "[" * 2000, "recursion"),
        ("5", "object"),
    ],
)
def test_build_refuses_a_line_that_is_no_item(tmp_path: Path, embeddings: Path, line: str, reason: str) -> None:
    (tmp_path / "items.jsonl").write_text(f'{{"item_id": "i0"}}\n{line}\n')
    refused = run("build", "--embeddings", embeddings, "--items", tmp_path / "items.jsonl", "--out", tmp_path / "catalog.jsonl")
    assert refused.exit_code == 1
    assert f"Item 2 of {tmp_path / 'items.jsonl'} is malformed: " in refused.output
    assert reason in refused.output


def test_build_tells_twins_apart_by_one_more_token(tmp_path: Path, embeddings: Path, items: Path) -> None:
    flags = ("build", "--embeddings", embeddings, "--items", items, "--levels", 2, "--codes", 3)
    assert run(*flags, "--out", tmp_path / "shared.jsonl").exit_code == 0
    built = run(*flags, "--out", tmp_path / "twins.jsonl", "--digit")
    assert built.exit_code == 0, built.output
    assert "0 items share an identifier" in built.output
    shared, twins = load_catalog(tmp_path / "shared.jsonl"), load_catalog(tmp_path / "twins.jsonl")
    met: dict[tuple[str, ...], int] = {}
    for item in range(ITEMS):
        prefix = tuple(shared.identifier(item))
        assert tuple(twins.identifier(item)) == (*prefix, f"<c_{met.get(prefix, 0)}>")
        met[prefix] = met.get(prefix, 0) + 1
    assert max(met.values()) > 1
    assert not (tmp_path / "twins.codebooks.safetensors").exists()
    assert "Give one of --unique, --digit and --item-token" in run(*flags, "--out", tmp_path / "no.jsonl", "--digit", "--unique").output


def test_build_reads_plain_ids_and_is_reproducible(tmp_path: Path, embeddings: Path) -> None:
    (tmp_path / "ids.txt").write_text("\n".join(f"x{item}" for item in range(ITEMS)) + "\n")
    versions = []
    flags = ("build", "--embeddings", embeddings, "--items", tmp_path / "ids.txt", "--codes", 4, "--seed", 3)
    for name in ("one.jsonl", "two.jsonl"):
        done = run(*flags, "--out", tmp_path / name)
        assert done.exit_code == 0, done.output
        versions.append(load_catalog(tmp_path / name).version)
    assert versions[0] == versions[1]


def test_build_knows_a_list_of_items_by_what_stands_in_it(tmp_path: Path, embeddings: Path, items: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    flags = ("build", "--embeddings", embeddings, "--out", out, "--codes", 8, "--overwrite")
    built = run(*flags, "--items", items.rename(tmp_path / "items.ndjson"))
    assert built.exit_code == 0, built.output
    assert load_catalog(out).known_attributes(3) == {"title": "Item 3", "price": 3}
    (tmp_path / "ids.txt").write_text("\ufeff" + "".join(f"x{item}\n" for item in range(ITEMS)), encoding="utf-8")
    assert run(*flags, "--items", tmp_path / "ids.txt").exit_code == 0
    assert load_catalog(out).item_ids[0] == "x0"
    for name, sign in (("items.csv", ","), ("items.txt", "\t")):
        (tmp_path / name).write_text("".join(f"y{item}{sign}Title\n" for item in range(ITEMS)))
        refused = run(*flags, "--items", tmp_path / name)
        assert refused.exit_code == 1
        assert f"{tmp_path / name} is a table of several columns: list items as JSONL of item_id and title" in refused.output
    assert load_catalog(out).item_ids[0] == "x0"


def test_build_replaces_nothing_unasked(tmp_path: Path, embeddings: Path, items: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    out.write_text("precious")
    flags = ("build", "--embeddings", embeddings, "--items", items, "--out", out, "--codes", 8)
    refused = run(*flags)
    assert refused.exit_code == 1
    assert f"{out} already exists: choose another name, or pass --overwrite" in refused.output
    assert out.read_text() == "precious"
    assert run(*flags, "--overwrite").exit_code == 0
    assert len(load_catalog(out)) == ITEMS


def test_what_was_there_stays_where_there_is_no_room(
    tmp_path: Path, embeddings: Path, items: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_half(catalog: Catalog, path: Path) -> None:
        path.write_text('{"item_id": ')
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    old = {tmp_path / "catalog.jsonl": b"precious", tmp_path / "catalog.codebooks.safetensors": b"also", tmp_path / "c.catalog": b"this"}
    for path, content in old.items():
        path.write_bytes(content)
    random_catalog(20).save(tmp_path / "some.jsonl")
    before = {*tmp_path.iterdir()}
    monkeypatch.setattr(Catalog, "save", write_half)
    monkeypatch.setattr("drafting.catalog.artefact.save_arrays", lambda arrays, header, path: write_half(arrays, Path(os.devnull)))
    built = run("build", "--embeddings", embeddings, "--items", items, "--out", tmp_path / "catalog.jsonl", "--codes", 8, "--overwrite")
    converted = run("convert", tmp_path / "some.jsonl", "--out", tmp_path / "c.catalog", "--overwrite")
    for done, name in ((built, "catalog.jsonl"), (converted, "c.catalog")):
        assert done.exit_code == 1
        assert done.output.splitlines()[-1] == f"{tmp_path / name} cannot be written: No space left on device."
    assert {path: path.read_bytes() for path in old} == old
    assert {*tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["c.json", "c.parquet", "c.catalog", "c.npy", "c.tsv"])
def test_build_writes_no_file_that_would_be_read_as_something_else(tmp_path: Path, embeddings: Path, items: Path, name: str) -> None:
    refused = run("build", "--embeddings", embeddings, "--items", items, "--out", tmp_path / name)
    assert refused.exit_code == 1
    assert f"a file of the name {name} is read as something else: let it end in .jsonl" in refused.output
    assert not (tmp_path / name).exists()


def test_build_says_what_does_not_fit(tmp_path: Path, embeddings: Path, items: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    (tmp_path / "few.txt").write_text("a\nb\n")
    assert "has the shape (40, 6), but" in run("build", "--embeddings", embeddings, "--items", tmp_path / "few.txt", "--out", out).output
    assert "is not a .npy array" in run("build", "--embeddings", items, "--items", items, "--out", out).output
    np.savez(tmp_path / "items.npz", np.load(embeddings))
    packed = run("build", "--embeddings", tmp_path / "items.npz", "--items", items, "--out", out)
    assert "is not a .npy array, but a zip file, such as .npz: save the one array with np.save." in packed.output
    (tmp_path / "twice.txt").write_text("a\n" * ITEMS)
    twice = run("build", "--embeddings", embeddings, "--items", tmp_path / "twice.txt", "--out", out)
    assert "Item 'a' appears twice in the catalog" in twice.output
    (tmp_path / "bad.jsonl").write_text('{"name": "a"}\n')
    assert "Item 1 of" in run("build", "--embeddings", embeddings, "--items", tmp_path / "bad.jsonl", "--out", out).output
    crowded = run("build", "--embeddings", embeddings, "--items", items, "--out", out, "--levels", 1, "--codes", 8, "--unique")
    assert "40 items share the prefix '', but the last level has only 8 codes" in crowded.output
    nowhere = run("build", "--embeddings", embeddings, "--items", items, "--out", tmp_path / "no" / "catalog.jsonl")
    assert f"There is no directory {tmp_path / 'no'}" in nowhere.output
    assert not out.exists()
    assert not (tmp_path / "catalog.codebooks.safetensors").exists()


@pytest.mark.parametrize("piped", ["--items", "--embeddings"])
def test_build_waits_for_no_pipe(tmp_path: Path, embeddings: Path, items: Path, piped: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    files = {"--items": items, "--embeddings": embeddings, piped: tmp_path / "pipe"}
    result = run("build", *(part for pair in files.items() for part in pair), "--out", tmp_path / "catalog.jsonl")
    assert result.exit_code == 1
    assert result.output.strip().endswith("cannot be read: it is not a regular file.")


def test_inspect_by_hand(tmp_path: Path) -> None:
    identifiers = {"w": ["<a_0>", "<b_0>"], "x": ["<a_0>", "<b_1>"], "y": ["<a_1>", "<b_0>"], "z": ["<a_1>", "<b_0>"]}
    catalog_of(identifiers, {"w": "First"}).save(tmp_path / "catalog.jsonl")
    shown = run("inspect", tmp_path / "catalog.jsonl", "--samples", 2)
    assert shown.exit_code == 0, shown.output
    lines = [line.split() for line in shown.output.splitlines()]
    assert ["version", load_catalog(tmp_path / "catalog.jsonl").version] in lines
    assert "items               4, 1 with a title" in shown.output
    assert "identifiers         3 of 2 tokens, 4 different tokens in all" in shown.output
    assert "shared identifiers  1, by 2 items" in shown.output
    # Depth 2: three nodes below two, at most two below one; one of the three has no sibling.
    assert ["1", "2", "2.00", "2", "0.0%"] in lines
    assert ["2", "3", "1.50", "2", "33.3%"] in lines
    assert ["<a_0><b_0>", "w", "First"] in lines
    assert ["<a_1><b_0>", "z"] in lines


def test_inspect_shows_what_shares_codes_with_an_item(tmp_path: Path) -> None:
    identifiers = {
        "it": ("<a_1>", "<b_1>"),
        "twin": ("<a_1>", "<b_1>"),
        "near": ("<a_1>", "<b_2>"),
        "too": ("<a_1>", "<b_3>"),
        "far": ("<a_2>", "<b_1>"),
    }
    catalog_of(identifiers, {"it": "Das Boot", "near": "U-571"}).save(tmp_path / "catalog.jsonl")
    shown = run("inspect", tmp_path / "catalog.jsonl", "--like", "it", "--samples", 1)
    assert shown.exit_code == 0, shown.output
    assert shown.stdout.splitlines() == [
        "<a_1><b_1>  it  Das Boot",
        "",
        "<a_1><b_1>  another item",
        "    twin",
        "",
        "<a_1>  2 other items",
        "  <b_2>  near  U-571",
    ]
    assert "has no item 'none'" in run("inspect", tmp_path / "catalog.jsonl", "--like", "none").output


def test_compare_ranks_identifiers_that_say_something_first(tmp_path: Path, data: Path) -> None:
    """Users stay in one half of the items. Codes of a half tell it at once; behind codes at random it takes more than a few passes."""
    rng = np.random.default_rng(1)
    halves = {f"i{item}": (f"<a_{item // 20}>", f"<b_{item % 20}>") for item in range(ITEMS)}
    random = dict(zip(halves, [(f"<a_{code // 20}>", f"<b_{code % 20}>") for code in rng.permutation(ITEMS).tolist()], strict=True))
    catalog_of(halves).save(tmp_path / "halves.jsonl")
    catalog_of(random).save(tmp_path / "random.jsonl")
    compared = run("compare", tmp_path / "random.jsonl", tmp_path / "halves.jsonl", "--data", data, "--epochs", 6)
    assert compared.exit_code == 0, compared.output
    table = compared.stdout[compared.stdout.index("validation users, seen items left out, best first") :]
    assert "80 validation users" in compared.stdout
    assert table.index("halves.jsonl") < table.index("random.jsonl")

    rows = [json.loads(line) for line in (data / "interactions.jsonl").read_text().splitlines()]
    kinds = ({**row, "kind": "buy" if row["user"] < 30 else "see"} for row in rows if row["user"] or row["timestamp"] < 4)
    (data / "interactions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in kinds))
    ruled = ("--label-kind", "buy", "--min-items", 5, "--epochs", 0.1)
    assert "29 validation users" in run("compare", tmp_path / "halves.jsonl", "--data", data, *ruled).stdout

    catalog_of({"other": ("<a_1>",)}).save(tmp_path / "other.jsonl")
    refused = run("compare", tmp_path / "halves.jsonl", tmp_path / "other.jsonl", "--data", data)
    assert refused.exit_code == 1
    assert "hold other items" in refused.output


def test_inspect_the_papers_catalog(beauty_dir: Path) -> None:
    shown = run("inspect", beauty_dir / "beauty.index.json")
    nodes = [line.split()[1] for line in shown.output.splitlines() if line.split()[:1] and line.split()[0] in "1234"]
    assert nodes == ["91", "6,539", "11,172", "12,023"]
    assert "shared identifiers  9, by 21 items" in shown.output


def test_inspect_says_what_is_no_catalog(tmp_path: Path) -> None:
    (tmp_path / "catalog.jsonl").write_text("{}\n")
    shown = run("inspect", tmp_path / "catalog.jsonl")
    assert shown.exit_code == 1
    assert "Line 1 of the catalog" in shown.output


def test_convert_writes_what_is_mapped(tmp_path: Path) -> None:
    identifiers = {f"i{item}": [f"<a_{item % 7}>", f"<b_{item % 5}>"] for item in range(ITEMS)}
    catalog = catalog_of(identifiers)
    catalog.save(tmp_path / "catalog.jsonl")
    save_tokenizer(catalog, tmp_path / "model")
    out = tmp_path / "items.catalog"
    done = run("convert", tmp_path / "catalog.jsonl", "--out", out, "--model", tmp_path / "model")
    assert f"(40 items, 35 identifiers, version {catalog.version})" in done.output
    mapped = load_catalog(out)
    assert mapped.version == catalog.version
    assert mapped.tokens == tuple(sorted(catalog.tokens))
    assert "already exists" in run("convert", tmp_path / "catalog.jsonl", "--out", out).output
    assert "must end in .catalog" in run("convert", tmp_path / "catalog.jsonl", "--out", tmp_path / "x.bin").output
    save_tokenizer(catalog, tmp_path / "other", leave_out=("<b_3>",))
    refused = run("convert", tmp_path / "catalog.jsonl", "--out", tmp_path / "no.catalog", "--model", tmp_path / "other")
    assert refused.exit_code == 1
    assert "has no token '<b_3>', which the identifier of item 'i3' needs" in refused.output
    assert not (tmp_path / "no.catalog").exists()


def test_convert_leaves_a_record_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However the paths are written; that of another catalog is replaced when asked to."""
    catalog = random_catalog(20)
    catalog.save(tmp_path / "items.jsonl")
    record = tmp_path / "items.learnt.json"
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "interactions.jsonl").write_text('{"user": 0, "item": "0", "timestamp": 0}\n')
    write_learnt(record, Learnt(catalog.version, "train", source_of(tmp_path / "data", SplitRule("leave-one-out"))))
    written = record.read_bytes()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").symlink_to(tmp_path)
    for out in ("items.catalog", "here/items.catalog"):
        done = run("convert", tmp_path / "items.jsonl", "--out", out)
        assert done.exit_code == 0, done.output
        (tmp_path / "items.catalog").unlink()
    assert record.read_bytes() == written
    (tmp_path / "other.learnt.json").write_text("of another")
    assert "other.learnt.json already exists" in run("convert", "items.jsonl", "--out", "other.catalog").output
    assert run("convert", "items.jsonl", "--out", "other.catalog", "--overwrite").exit_code == 0
    assert (tmp_path / "other.learnt.json").read_bytes() == written


def test_convert_of_a_tensor_says_what_it_found_and_takes_what_it_does_not_say(tmp_path: Path) -> None:
    codes = np.random.default_rng(0).integers(9, size=(3, 8))
    torch.save(torch.from_numpy(codes), tmp_path / "sids.pt")
    (tmp_path / "ids.txt").write_text("".join(f"x{item}\n" for item in range(8)))
    flags = (
        "convert",
        tmp_path / "sids.pt",
        "--out",
        tmp_path / "sids.catalog",
        "--items",
        tmp_path / "ids.txt",
        "--tokens",
        "<s{level}_{code}>",
    )
    refused = run(*flags)
    assert refused.exit_code == 1
    assert "say which with --items-in rows or --items-in columns of `atspeed catalog convert`." in refused.output
    assert "--items-in takes rows or columns, got 'both'." in run(*flags, "--items-in", "both").output
    done = run(*flags, "--items-in", "columns")
    assert done.exit_code == 0, done.output
    assert f"{tmp_path / 'sids.pt'} is a matrix of codes [3, 8] with an item in each of its columns." in done.output
    catalog = load_catalog(tmp_path / "sids.catalog")
    assert tuple(catalog.item_ids) == tuple(f"x{item}" for item in range(8))
    assert catalog.identifier(2) == tuple(f"<s{level}_{code}>" for level, code in enumerate(codes[:, 2], start=1))
    shown = run("inspect", tmp_path / "sids.pt", "--items-in", "rows")
    assert "identifiers         3 of 8 tokens" in shown.output


BEGIN, AND = "<|sid_begin|>", "[INST]"


@pytest.fixture
def shop(tmp_path: Path) -> tuple[object, ...]:
    """A catalog, a model whose prompts have text of all kinds, and a store with one user; as flags of `inspect`."""
    catalog = random_catalog(items=30, depth=2, codes=5)
    catalog.save(tmp_path / "catalog.jsonl")
    save_random_model(tmp_path / "model", catalog)
    tokenizer = scratch_tokenizer((*sorted(catalog.tokens), BEGIN, AND))
    tokenizer.save_pretrained(tmp_path / "model")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path / "model")
    PromptTemplate(f"{BEGIN}{{history}}{BEGIN}", AND, max_items=3, min_items=3, add_bos=True).save(tmp_path / "model")
    url = f"sqlite:///{tmp_path / 'histories.db'}"

    async def store() -> None:
        histories = open_history_store(url)
        await histories.append("anna", [Event(f"item-{item}", float(item)) for item in (4, 5, 99, 6, 7)])
        await histories.close()

    asyncio.run(store())
    return (tmp_path / "catalog.jsonl", "--target", tmp_path / "model", "--histories", url)


def test_inspect_shows_a_users_prompt_token_by_token(tmp_path: Path, shop: tuple[object, ...]) -> None:
    shown = run("inspect", *shop, "--prompt", "anna", "--json")
    assert shown.exit_code == 0, shown.output
    answer = json.loads(shown.stdout)
    catalog = load_catalog(tmp_path / "catalog.jsonl")
    served = ServedModel(tmp_path / "model")
    prompt = served.fit(catalog).prompts.build(catalog.indices_of([f"item-{item}" for item in (4, 5, 6, 7)])).tolist()
    tokens = answer.pop("tokens")
    assert [token["id"] for token in tokens] == prompt
    assert [token["position"] for token in tokens] == list(range(len(prompt)))
    assert [token["token"] for token in tokens] == served.tokenizer.convert_ids_to_tokens(prompt)
    assert [token["part"] for token in tokens] == ["before"] * 2 + (["item"] * 2 + ["separator"]) * 2 + ["item"] * 2 + ["after"]
    assert [token.get("item_id") for token in tokens if token["part"] == "item"] == [f"item-{item}" for item in (5, 5, 6, 6, 7, 7)]
    assert tokens[2]["title"] == "Title 5"
    history = [f"item-{item}" for item in (4, 5, 6, 7)]
    assert answer == {"model": "model", "catalog_version": catalog.version, "history": history, "left_out": 1, "items": 3}


def test_a_prompt_as_a_table_and_of_given_items(shop: tuple[object, ...]) -> None:
    shown = run("inspect", *shop, "--prompt", "anna")
    assert shown.exit_code == 0, shown.output
    assert "model: 11 tokens" in shown.stdout
    assert shown.stdout.splitlines()[-1] == (
        "Items of the history: 4, of which the prompt has the newest 3; stored, but not in the catalog: 1."
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.stdout.splitlines() if line.startswith("│")]
    assert [row[1] for row in rows] == [str(position) for position in range(11)]
    assert [row[0] for row in rows][:5] == ["before", "before", "item item-5, Title 5", "item item-5, Title 5", "separator"]
    assert rows[4][3:] == [AND, f'"{AND}"']
    given = run("inspect", *shop, "--history", "item-7, item-4")
    assert "model: 8 tokens" in given.stdout


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--prompt", "berta"), "There is no user 'berta': no events are stored for that id."),
        (("--history", "item-99"), "The catalog has no item 'item-99', which history names."),
        (("--history", ""), "The history is empty: a prompt needs at least one item."),
        (("--prompt", "anna", "--history", "item-1"), "Give --prompt or --history, not both."),
        (("--prompt", "anna", "--base", "."), "Only adapters have a base, and"),
    ],
)
def test_prompts_that_can_not_be_shown(shop: tuple[object, ...], flags: tuple[str, ...], sentence: str) -> None:
    refused = run("inspect", *shop, *flags)
    assert refused.exit_code == 1
    assert sentence in refused.stderr
    assert "Traceback" not in refused.output


def test_a_prompt_needs_a_model(shop: tuple[object, ...]) -> None:
    assert "A prompt is made for a model: name its directory with --target." in run("inspect", shop[0], "--prompt", "anna").stderr


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Users who stay in one half of the items, which are listed with titles in no order."""
    directory, rng = tmp_path / "data", np.random.default_rng(0)
    directory.mkdir()
    rows = [(user, (user % 2) * 20 + int(rng.integers(20)), time) for user in range(80) for time in range(8)]
    events = (f'{{"user": {user}, "item": "i{item}", "timestamp": {time}}}\n' for user, item, time in rows)
    (directory / "interactions.jsonl").write_text("".join(events))
    order = rng.permutation(ITEMS).tolist()
    lines = (f'{{"item_id": "i{item}", "title": "{"lamp" if item % 2 else "chair"} {item}", "price": {item}}}\n' for item in order)
    (directory / "items.jsonl").write_text("".join(lines))
    return directory


def halves(catalog: Path) -> tuple[dict[str, str], str]:
    """The first token of each item, and the items' ids in the order of the catalog."""
    loaded = load_catalog(catalog)
    return {name: loaded.identifier(index)[0] for index, name in enumerate(loaded.item_ids)}, " ".join(loaded.item_ids)


def test_build_from_a_data_directory_clusters_by_who_met_the_items(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    flags = ("--levels", 1, "--codes", 2, "--item-token", "--text-weight", 0, "--dims", 8)
    built = run("build", "--data", data, "--out", out, *flags)
    assert built.exit_code == 0, built.output
    assert "0 items share an identifier" in built.output
    assert not (tmp_path / "catalog.codebooks.safetensors").exists()
    catalog, (first, names) = load_catalog(out), halves(out)
    assert catalog.identifier_length == 2
    assert names == " ".join(json.loads(line)["item_id"] for line in (data / "items.jsonl").read_text().splitlines())
    assert len({first[f"i{item}"] for item in range(20)}) == len({first[f"i{item}"] for item in range(20, 40)}) == 1
    assert first["i0"] != first["i20"]
    assert len({catalog.identifier(index)[1] for index in range(ITEMS)}) == ITEMS
    assert catalog.known_attributes(0)["price"] == int(catalog.item_ids[0][1:])

    again = run("build", "--data", data, "--out", tmp_path / "again.jsonl", *flags)
    assert again.exit_code == 0, again.output
    assert (tmp_path / "again.jsonl").read_bytes() == out.read_bytes()

    sizes = []
    for more in ((), ("--balanced",)):
        assert run("build", "--data", data, "--out", out, "--overwrite", *flags, "--codes", 8, *more).exit_code == 0
        sizes.append(Counter(halves(out)[0].values()).values())
    plain, balanced = sizes
    assert max(plain) > 7 or min(plain) < 2
    assert 2 <= min(balanced) <= max(balanced) <= 7


@pytest.mark.parametrize(("flags", "changed"), [(("--label-kind", "buy"), (3, 4, 5)), (("--min-items", 7), range(8, 12))])
def test_what_a_rule_holds_out_says_nothing_of_identifiers(tmp_path: Path, data: Path, flags: tuple[object, ...], changed: range) -> None:
    """Users buy at 1, 3 and 5, so with purchases to predict all from 3 on is held out; six users are shorter than seven, from 8 on."""
    rng = np.random.default_rng(0)
    met = rng.integers(20, size=(80, 12)) + 20 * (np.arange(80) % 2)[:, None]
    catalogs = []
    for name in ("as it was", "changed"):
        users = [row.tolist()[:8] for row in met[:74]] + [row.tolist()[8:] for row in met[74:]]
        events = [
            {"user": user, "item": f"i{item}", "timestamp": time, "kind": "buy" if time in (1, 3, 5) else "see"}
            for user, row in enumerate(users)
            for time, item in enumerate(row)
        ]
        (data / "interactions.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
        for rule in (flags, ()):
            out = tmp_path / f"{name}{len(rule)}.jsonl"
            built = run("build", "--data", data, "--out", out, "--levels", 2, "--codes", 4, "--text-weight", 0, "--dims", 8, *rule)
            assert built.exit_code == 0, built.output
            catalogs.append(out.read_bytes())
        met[:, list(changed)] = rng.integers(ITEMS, size=(80, len(changed)))
    assert catalogs[0] == catalogs[2]
    assert catalogs[1] != catalogs[3], "without the rule it would have"


def test_build_chooses_the_form_that_a_tiny_target_learns_best(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, judged = tmp_path / "catalog.jsonl", []

    def judge(where: Path, catalog: Catalog, settings: ProxySettings) -> ProxyQuality:
        judged.append(catalog)
        assert (where, settings.rule.min_items, settings.keep_seen) == (data, 2, True)
        return ProxyQuality(0.1 * len(judged), 0.01, 0.0, None, 7, 1.0)

    monkeypatch.setattr("verification.evaluation.proxy.judge_identifiers", judge)
    given = ("--data", data, "--out", out, "--codes", 8, "--text-weight", 0, "--dims", 8, "--min-items", 2)
    asked = ("build", *given, "--keep-seen", "--choose")
    built = run(*asked)
    assert built.exit_code == 0, built.output
    assert [catalog.identifier_length for catalog in judged] == [2, 2, 3, 3]
    assert [len(catalog.tokens) for catalog in judged][:2] == [8 + ITEMS, 8 + ITEMS]
    written = load_catalog(out)
    assert written.version == judged[3].version
    assert (tmp_path / "catalog.codebooks.safetensors").exists()
    rows = [line for line in built.output.splitlines() if "--levels" in line and "│" in line]
    assert next(row.split("│")[1].strip() for row in rows) == "--levels 3 --codes 8"
    assert len(rows) == 4
    assert "leave out --levels" in run(*asked, "--overwrite", "--balanced").output
    assert "leave out --levels" in run(*asked, "--overwrite", "--levels", 3).output
    assert "seen items kept" in built.output
    assert "--keep-seen says how --choose judges identifiers" in run(*asked[:-1], "--overwrite").output


def test_nothing_is_clustered_where_validation_labels_can_not_choose(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = (f'{{"user": {user}, "item": "i{(user + time) % 2}", "timestamp": {time}}}\n' for user in range(9) for time in range(6))
    (data / "interactions.jsonl").write_text("".join(events))
    monkeypatch.setattr("drafting.embeddings.sources.embed_items", None)
    refused = run("build", "--data", data, "--out", tmp_path / "catalog.jsonl", "--codes", 8, "--choose")
    assert refused.exit_code == 1
    assert "9 of 9 validation labels are items that their users had met before" in refused.output


def test_build_from_texts_alone_clusters_by_words_and_keeps_codebooks(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "catalog.jsonl"
    built = run("build", "--data", data, "--out", out, "--levels", 1, "--codes", 2, "--text-weight", 1, "--dims", 8)
    assert built.exit_code == 0, built.output
    first, _ = halves(out)
    assert len({first[f"i{item}"] for item in range(0, 40, 2)}) == len({first[f"i{item}"] for item in range(1, 40, 2)}) == 1
    assert first["i0"] != first["i1"]
    assert len(Codebooks.load(tmp_path / "catalog.codebooks.safetensors").levels) == 1


@pytest.mark.parametrize("met", [1, 3])
@pytest.mark.parametrize("titled", [False, True])
def test_build_from_interactions_that_say_nothing_of_items(tmp_path: Path, met: int, titled: bool) -> None:
    """Of one interaction a user, and of three of which two are held out, no item has another beside it."""
    data, out = tmp_path / "data", tmp_path / "catalog.jsonl"
    data.mkdir()
    rows = [{"user": f"u{user}", "item": f"i{(user + place) % 90}", "timestamp": place} for user in range(90) for place in range(met)]
    (data / "interactions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    items = [{"item_id": f"i{item}", **({"title": f"lamp {item % 9}"} if titled else {})} for item in range(90)]
    (data / "items.jsonl").write_text("".join(f"{json.dumps(item)}\n" for item in items))
    built = run("build", "--data", data, "--out", out, "--levels", 1, "--codes", 4, "--item-token")
    assert built.exit_code == 0, built.output
    assert len(load_catalog(out)) == 90
    assert ("90 items have neither an interaction that counts nor a text" in built.output) != titled


def test_identifiers_that_know_the_validation_part_are_not_compared(tmp_path: Path, data: Path) -> None:
    flags = ("--data", data, "--levels", 1, "--codes", 2, "--dims", 8)
    for fit, weight in (("all", 0), ("train", 0), ("all", 1)):
        out = tmp_path / f"{fit}{weight}.jsonl"
        built = run("build", *flags, "--fit", fit, "--text-weight", weight, "--out", out)
        assert built.exit_code == 0, built.output
        refused = run("compare", out, "--data", data, "--epochs", 0.1)
        assert (refused.exit_code == 1) is (fit == "all" and weight == 0)
        assert ("were made from the part valid, too" in refused.output.replace("\n", " ")) is (refused.exit_code == 1)
    assert run("convert", tmp_path / "all0.jsonl", "--out", tmp_path / "served.catalog").exit_code == 0
    assert "were made from the part valid" in run("compare", tmp_path / "served.catalog", "--data", data).output.replace("\n", " ")
    # What another catalog of the same stem has learnt is not replaced unasked.
    kept = (tmp_path / "train0.learnt.json").read_bytes()
    refused = run("convert", tmp_path / "all0.jsonl", "--out", tmp_path / "train0.catalog")
    assert "train0.learnt.json already exists" in refused.output.replace("\n", "")
    assert (tmp_path / "train0.learnt.json").read_bytes() == kept
    assert run("convert", tmp_path / "train0.jsonl", "--out", tmp_path / "train0.catalog").exit_code == 0


def check_goes_with_catalog(beside: Path, out: Path, *build: object) -> None:
    """A build in the place of a catalog asks for what lies beside that one, and removes it with the catalog."""
    assert f"{beside} already exists" in run(*build).output
    assert beside.exists()
    built = run(*build, "--overwrite")
    assert built.exit_code == 0, built.output
    assert len(load_catalog(out)) == ITEMS
    assert not beside.exists()


def test_the_record_of_a_catalog_goes_with_it(tmp_path: Path, data: Path, embeddings: Path) -> None:
    """Else `evaluate` would doubt identifiers that have learnt nothing of any interactions."""
    out, record = tmp_path / "catalog.jsonl", tmp_path / "catalog.learnt.json"
    flags = ("build", "--out", out, "--levels", 1, "--codes", 2)
    assert run(*flags, "--data", data, "--dims", 8).exit_code == 0
    out.unlink()
    anew = (*flags, "--embeddings", embeddings, "--items", data / "items.jsonl")
    (tmp_path / "catalog.codebooks.safetensors").unlink()
    check_goes_with_catalog(record, out, *anew)


def test_codebooks_go_with_the_catalog_that_they_made(tmp_path: Path, embeddings: Path, items: Path) -> None:
    """Else they would lie beside a catalog of other clusters, as if they could place its new items."""
    out, codebooks = tmp_path / "catalog.jsonl", tmp_path / "catalog.codebooks.safetensors"
    flags = ("build", "--embeddings", embeddings, "--items", items, "--out", out, "--codes", 8)
    assert run(*flags).exit_code == 0
    assert codebooks.exists()
    out.unlink()
    anew = (*flags, "--item-token")
    check_goes_with_catalog(codebooks, out, *anew)


def test_build_takes_the_items_of_another_catalog(tmp_path: Path, data: Path) -> None:
    index = tmp_path / "items.json"
    index.write_text(json.dumps({f"i{item}": ["<a_0>", f"<b_{item}>"] for item in range(ITEMS)}))
    built = run("build", "--data", data, "--items", index, "--out", tmp_path / "catalog.jsonl", "--levels", 2, "--codes", 4, "--dims", 8)
    assert built.exit_code == 0, built.output
    catalog = load_catalog(tmp_path / "catalog.jsonl")
    assert list(catalog.item_ids) == [f"i{item}" for item in range(ITEMS)]
    assert len({catalog.identifier(item)[0] for item in range(ITEMS)}) > 1


def test_build_says_what_it_needs(tmp_path: Path, data: Path, embeddings: Path, items: Path) -> None:
    out = ("--out", tmp_path / "catalog.jsonl")
    assert "give --data" in run("build", "--items", items, *out).output
    assert "give --data" in run("build", "--data", data, "--embeddings", embeddings, "--items", items, *out).output
    for flags in (("--text-weight", 0.5), ("--label-kind", "buy"), ("--min-items", 2)):
        assert "are for --data" in run("build", "--embeddings", embeddings, "--items", items, *flags, *out).output
    (data / "items.jsonl").unlink()
    assert "or as items.jsonl in" in run("build", "--data", data, *out).output
    (data / "items.jsonl").write_text('{"item_id": "i0"}\n')
    assert "the catalog has no such item" in run("build", "--data", data, *out).output
    assert not (tmp_path / "catalog.jsonl").exists()


def test_a_catalog_may_lie_in_an_object_store(tmp_path: Path) -> None:
    """Through obstore as every URL; S3 is `tests/server/catalogs/test_object_files.py`'s."""
    catalog = tmp_path / "catalog.jsonl"
    catalog.write_text('{"item_id": "a", "codes": [1, 2]}\n{"item_id": "b", "codes": [1, 3]}\n')
    shown = run("inspect", f"file://{catalog}")
    assert shown.exit_code == 0, shown.output
    assert "items               2, 0 with a title" in shown.output
    refused = run("inspect", f"file://{tmp_path}/other.jsonl")
    assert refused.exit_code == 2
    assert f"there is no file file://{tmp_path}/other.jsonl." in refused.output.replace("│\n│ ", "").replace("\n", "")
