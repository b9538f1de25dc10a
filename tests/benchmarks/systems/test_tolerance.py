"""Lists with a tolerance are judged by plain beam search's, by what they may lack of it."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from benchmarks.cli import app
from benchmarks.systems.tolerance import Kind, tolerance_of
from drafting.beam.rule import Tolerance
from tests.models import random_catalog, save_random_interactions, save_random_model
from verification.evaluation.searching import NO_PLAN
from verification.result import BeamResult, RankedItem, Usage


def listed(*items: int, last: float = -5.0) -> BeamResult:
    """A list of items whose scores are minus their numbers, but for the last one."""
    scores = [*(float(-item) for item in items[:-1]), last]
    ranked = tuple(RankedItem(item, score, rank) for rank, (item, score) in enumerate(zip(items, scores, strict=True), start=1))
    return BeamResult("a list", ranked, Usage(1))


@pytest.mark.parametrize(
    ("tolerance", "found", "missing", "beyond"),
    [
        (None, listed(1, 2, 3, 9), 0, 0),
        (None, listed(1, 2, 4, 9), 1, 1),
        (Tolerance(items=1), listed(1, 2, 4, 9), 1, 0),
        (Tolerance(items=1), listed(1, 4, 5, 9), 2, 1),
        (Tolerance(mass=0.1), listed(1, 2, 4, 9), 1, 0),
        (Tolerance(mass=0.1), listed(2, 3, 4, 9), 1, 1),
        (None, listed(1, 2, 3, 10), 0, 0),
    ],
)
def test_a_list_is_beyond_its_bound_if_it_lacks_more_than_it_may(
    tolerance: Tolerance | None, found: BeamResult, missing: int, beyond: int
) -> None:
    """The last of the exact list may be another one of the same score. Item 3 is 9% of the list's probability, item 1 is 66%."""
    kind = Kind("a kind", NO_PLAN, tolerance)
    kind.judge(found, listed(1, 2, 3, 9))
    assert (kind.missing, kind.beyond) == ([missing], beyond)


def test_tolerances_are_items_or_shares() -> None:
    assert (tolerance_of("3"), tolerance_of("5%")) == (Tolerance(items=3), Tolerance(mass=0.05))


def test_the_command_compares_all_kinds_of_lists(tmp_path: Path) -> None:
    catalog = random_catalog(items=60, depth=3, codes=5)
    for name in ("target", "draft"):
        save_random_model(tmp_path / name, catalog, max_items=8)
    catalog.save(tmp_path / "catalog.jsonl")
    save_random_interactions(tmp_path, catalog, users=6, events=5)
    models = ("--target", str(tmp_path / "target"), "--draft", str(tmp_path / "draft"))
    asked = ["tolerance", *models, "--catalog", str(tmp_path / "catalog.jsonl"), "--data", str(tmp_path), "--k", "6"]
    result = CliRunner().invoke(app, [*asked, "--tolerances", "2,10%"])
    assert result.exit_code == 0, result.output
    rows = [line.strip("| ").split(" | ") for line in result.stdout.splitlines() if line.startswith("| ")]
    assert [row[0] for row in rows[1:]] == ["plain beam search", "none", "2", "10%"]
    assert [row[-2] for row in rows[1:]] == ["0 of 6"] * 4
    assert (rows[1][1], rows[1][3], rows[2][2]) == ("1.00", "3.00", "1.00")
    assert all(float(row[3]) <= 3 for row in rows[2:])
    for text in ("many", "120%", "-1"):
        refused = CliRunner().invoke(app, [*asked, "--tolerances", text])
        assert refused.exit_code == 1
        assert f"'{text}' is no tolerance" in refused.stderr


@pytest.mark.parametrize(
    ("flags", "status", "sentence"),
    [
        ([], 1, "has learnt the part test (--fit all), so figures there would say nothing"),
        (["--k", "257"], 2, "equal to 256"),
        (["--balance", "-1"], 2, "equal to 1"),
    ],
)
def test_what_could_not_be_judged_or_searched_is_refused(flags: list[str], status: int, sentence: str, tmp_path: Path) -> None:
    for name in ("target", "draft"):
        (tmp_path / name).mkdir()
    (tmp_path / "target" / "training.json").write_text(json.dumps({"settings": {"fit": "all"}}))
    random_catalog(items=5).save(tmp_path / "catalog.jsonl")
    models = ("--target", str(tmp_path / "target"), "--draft", str(tmp_path / "draft"))
    asked = ["tolerance", *models, "--catalog", str(tmp_path / "catalog.jsonl"), "--data", str(tmp_path)]
    refused = CliRunner().invoke(app, [*asked, *flags])
    assert refused.exit_code == status
    assert sentence in refused.stderr
