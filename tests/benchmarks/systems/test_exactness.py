"""The count of lists that depend on how they are computed, on a small model that is asked random histories."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.systems.exactness import Difference, difference, run
from drafting.beam.rule import STRICT
from tests.models import random_catalog, save_random_model
from verification.result import BeamResult, RankedItem, Usage

CATALOG = random_catalog(items=100, depth=3)
PLAIN = BeamResult("", (RankedItem(1, -1.0, 1), RankedItem(2, -1.000001, 2), RankedItem(3, -3.0, 3)), Usage(3), STRICT)


def test_what_differs_is_told_from_ties_and_from_other_items() -> None:
    first, second, third = PLAIN.items
    tie, swapped = replace(PLAIN, items=(second, first, third)), replace(PLAIN, items=(first, third, second))
    other = replace(PLAIN, items=(first, second, RankedItem(4, -2.9, 3)))
    found = difference([PLAIN] * 4, [PLAIN, tie, swapped, other])
    assert found == Difference(differ=3, others=1, ties=1)


def test_every_precision_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = save_random_model(tmp_path / "target", CATALOG, layers=1, hidden=32)
    CATALOG.save(catalog := tmp_path / "catalog.jsonl")
    assert run(target, target, catalog, None, 5, 6, 1, kv_memory_gib=0.005) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["float32", "bfloat16", "bfloat16 --exact"]
    ways = ["in company 0", "cached prompt 0", "trie 0", "beam:40 0"]
    assert lines[2].endswith("of 6 lists differ: " + ", ".join(f"{way} (0 with other items)" for way in ways))
