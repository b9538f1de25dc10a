"""A dozen cells of `make models`, and a matrix that tells right cells from wrong ones and does no work twice."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.models import run as matrix
from benchmarks.models.cell import differences, host_lists, reference_lists
from benchmarks.models.checkpoint import KS, PLANS, make_checkpoint, question
from benchmarks.models.isolation import Ending
from benchmarks.models.report import report
from benchmarks.models.run import Cell, run
from benchmarks.models.variants import Variant, all_variants, choose
from tests.verification.hosts.test_vllm import needs_vllm

# Families that no other test has, each with something of its own.
CELLS = {
    "transformers": (
        "gpt2/scaled by layer",
        "glm4/plain",
        "gpt_neox/sequential",
        "smollm3/windows",
        "gemma3_text/windows",
        "granitemoeshared/plain",
        "opt/projected",
        "bert/decoder",
        "stablelm/plain",
        "moshi/plain",
    ),
    "vllm": ("gpt_bigcode/multi-query", "qwen2_moe/plain"),
}
HISTORIES = question()[1][4::5]
LISTS = {"none 2 0": [((1, 2), -1.0), ((1, 3), -2.0)]}


def find(name: str) -> Variant:
    (variant,) = choose([name])
    return variant


@pytest.mark.parametrize("name", CELLS["transformers"])
def test_transformers_lists_equal_generate(name: str, tmp_path: Path) -> None:
    assert_equal(name, "transformers", tmp_path)


@needs_vllm
@pytest.mark.parametrize("name", CELLS["vllm"])
def test_vllm_lists_equal_generate(name: str, tmp_path: Path) -> None:
    assert_equal(name, "vllm", tmp_path)


def assert_equal(name: str, host: str, folder: Path) -> None:
    make_checkpoint(folder / "model", find(name))
    reference = reference_lists(folder / "model", HISTORIES)
    lists = host_lists(folder / "model", host, HISTORIES)
    assert len(lists) == len(PLANS) * (len(HISTORIES) * len(KS) + 1)
    assert list(differences(lists, reference)) == []


def test_names_are_unique_and_choose_by_family_or_variant() -> None:
    names = [str(variant) for variant in all_variants()]
    assert len(set(names)) == len(names)
    assert {variant.family for variant in choose(["qwen*"])} >= {"qwen2", "qwen3_moe"}
    assert [str(variant) for variant in choose(["llama/yarn"])] == ["llama/yarn"]
    assert len(choose([])) == len(names)


@pytest.mark.parametrize(
    ("found", "is_equal"),
    [
        ([((1, 2), -1.00005), ((1, 3), -2.0)], True),
        ([((1, 2), -1.0002), ((1, 3), -2.0)], False),
        ([((1, 3), -1.0), ((1, 2), -2.0)], False),
        ([((1, 2), -1.0), ((1, 4), -2.0)], False),
        ([((1, 2), -1.0), ((1, 2), -2.0)], False),
        ([((1, 2), -1.0)], False),
    ],
)
def test_lists_with_other_items_order_or_scores_differ(found: list, is_equal: bool) -> None:
    assert (not list(differences({"none 2 0": found}, {"2 0": LISTS["none 2 0"]}))) == is_equal


def test_only_equal_scores_may_change_places() -> None:
    tied = [((1, 2), -1.0), ((1, 3), -1.00001), ((1, 4), -2.0)]
    assert not list(differences({"none 3 0": [tied[1], tied[0], tied[2]]}, {"3 0": tied}))
    assert list(differences({"none 3 0": [tied[0], tied[2], tied[1]]}, {"3 0": tied}))


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Children that answer from a script; returns the steps that were asked for."""
    asked = []

    def in_child(function: object, *arguments: object, seconds: float, log: Path) -> Ending:
        step = function.__name__  # type: ignore[attr-defined]
        asked.append(step)
        if step == "make_checkpoint":
            arguments[0].mkdir()  # type: ignore[attr-defined]
        answers = {"make_checkpoint": None, "host_lists": LISTS, "reference_lists": {"2 0": [((1, 2), -1.0), ((1, 3), -2.5)]}}
        if "vllm" in arguments:
            return Ending("refused", f"The model in {arguments[0]} (llama) has wheels, which can't be served.")
        return Ending("answered", answers[step])

    monkeypatch.setattr(matrix, "in_child", in_child)
    monkeypatch.setattr(matrix, "IMPORTED", {"transformers": (), "vllm": ()})
    monkeypatch.setattr(matrix, "versions_here", lambda: {"atspeed-server": "abc", "transformers": "5.0"})
    return asked


def test_a_cell_is_done_once_for_its_versions(scripted: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells = run([find("llama/plain")], ["transformers", "vllm"], tmp_path, 1)
    assert [(cell.host, cell.outcome) for cell in cells] == [("transformers", "wrong"), ("vllm", "refused")]
    assert cells[0].detail == "1 of 1 lists differ, scores by 0.5, first that of none 2 0"
    assert cells[1].detail == "The model in MODEL (llama) has wheels, which can't be served."
    assert scripted == ["make_checkpoint", "host_lists", "reference_lists", "host_lists"]
    assert run([find("llama/plain")], ["transformers", "vllm"], tmp_path, 1) == cells
    assert len(scripted) == 4
    monkeypatch.setattr(matrix, "versions_here", lambda: {"atspeed-server": "abd", "transformers": "5.0"})
    run([find("llama/plain")], ["transformers"], tmp_path, 1)
    assert scripted[4:] == ["host_lists"]


def test_the_page_counts_and_shortens() -> None:
    equal = Cell("llama/plain", "transformers", "equal", "", 1e-5, 1.0, "00", {"transformers": "5.0"})
    refused = replace(equal, host="vllm", outcome="refused", detail="The model in MODEL (llama) has wheels, which can't be served.")
    page = report([equal, refused, replace(equal, variant="doge/a|b", outcome="hang", detail="no answer")], ["transformers", "vllm"])
    assert "| llama | plain | equal | wheels |" in page
    assert "| doge | a\\|b | **hang**: no answer | not tried |" in page
    assert "| transformers | 1 | 0 | 1 | 1 |" in page
    assert "3 cells: transformers 5.0." in page
