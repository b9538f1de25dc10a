"""Lists are not judged by what made their identifiers: which catalogs know which parts of which data."""

import json
from pathlib import Path

import pytest

from drafting.alignment.data.splits import SplitRule
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.embeddings.learnt import Learnt, LearntError, copy_learnt, doubt_of, learnt_file, write_learnt
from drafting.neighbours.source_check import source_of

RULE = SplitRule("leave-one-out")


def events(folder: Path, users: int = 3) -> Path:
    folder.mkdir(exist_ok=True)
    lines = [{"user": user, "item": f"i{time}", "timestamp": time} for user in range(users) for time in range(4)]
    (folder / "interactions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def catalog() -> Catalog:
    return catalog_of([(f"i{item}", (f"<a_{item}>",)) for item in range(4)])


def learnt(folder: Path, catalog: Catalog, fit: str, rule: SplitRule = RULE) -> tuple[Path, Path]:
    """A catalog's path beside a record, and the data that it names."""
    path, data = folder / "catalog.jsonl", events(folder / "data")
    write_learnt(learnt_file(path), Learnt(catalog.version, fit, source_of(data, rule)))
    return path, data


@pytest.mark.parametrize(
    ("fit", "part", "knows"),
    [
        ("train", "valid", False),
        ("train", "test", False),
        ("train+valid", "valid", True),
        ("train+valid", "test", False),
        ("all", "valid", True),
        ("all", "test", True),
    ],
)
def test_identifiers_know_the_parts_that_they_were_made_from(tmp_path: Path, catalog: Catalog, fit: str, part: str, knows: bool) -> None:
    path, data = learnt(tmp_path, catalog, fit)
    found = doubt_of(path, catalog, data, RULE, part)
    assert (found is not None and found.sure) is knows
    if found is not None:
        assert f"were made from the part {part}, too (`atspeed catalog build --fit {fit}`)" in found.sentence


@pytest.mark.parametrize("other", [SplitRule("global-time"), SplitRule("leave-one-out", 2), SplitRule("leave-one-out", 1, "buy")])
def test_another_split_knows_some_of_what_is_held_out(tmp_path: Path, catalog: Catalog, other: SplitRule) -> None:
    path, data = learnt(tmp_path, catalog, "train", other)
    found = doubt_of(path, catalog, data, RULE, "test")
    assert found is not None
    assert found.sure
    assert "with another split" in found.sentence


def test_other_data_is_doubted_and_none_is_not(tmp_path: Path, catalog: Catalog) -> None:
    path, _ = learnt(tmp_path, catalog, "all")
    data = events(tmp_path / "other", users=5)
    found = doubt_of(path, catalog, data, RULE, "test")
    assert found is not None
    assert not found.sure
    assert "from other interactions" in found.sentence
    assert doubt_of(tmp_path / "given.json", catalog, tmp_path / "data", RULE, "test") is None


@pytest.mark.parametrize("fit", ["train", "all"])
def test_a_catalog_that_has_changed_beside_its_record_is_doubted_and_not_refused(tmp_path: Path, catalog: Catalog, fit: str) -> None:
    """Its identifiers may be those of before, as where a title was edited, or others."""
    path, data = learnt(tmp_path, catalog, fit)
    edited = catalog_of([(f"i{item}", (f"<a_{item}>",)) for item in range(4)], titles={"i0": "Edited"})
    assert edited.version != catalog.version
    copy_learnt(path, tmp_path / "copy.catalog")
    for each in (path, tmp_path / "copy.catalog"):
        found = doubt_of(each, edited, data, RULE, "test")
        assert (found is not None) is (fit == "all")
        if found is not None:
            assert not found.sure
            assert f"has changed since its identifiers were made (version {catalog.version}, now {edited.version})" in found.sentence
            assert "were made from the part test, too" in found.sentence


@pytest.mark.parametrize("text", ["{", "[]", '{"version": "x"}'])
def test_a_damaged_record_is_refused_in_a_sentence(tmp_path: Path, catalog: Catalog, text: str) -> None:
    path, data = learnt(tmp_path, catalog, "all")
    learnt_file(path).write_text(text)
    with pytest.raises(LearntError, match=r"learnt\.json cannot be read"):
        doubt_of(path, catalog, data, RULE, "test")
