"""The systems that are compared find the same lists, whatever they draft and however many are asked at once."""

from pathlib import Path

import pytest

from benchmarks.systems.histories import random_histories
from benchmarks.systems.question import Question, SystemSpec
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from benchmarks.systems.systems import EngineSystem, GenerateSystem, make_system
from drafting.plans.fixed_plan import PlanError

K = 4
PLANS = ("none", "trie", "beam:8", "beam:8+children", "auto")


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> SystemSpec:
    folder, catalog = tmp_path_factory.mktemp("bench"), make_catalog(SHAPES["tiny"])
    catalog.save(folder / "catalog.jsonl")
    make_checkpoint(folder / "target", SHAPES["tiny"].target, catalog)
    make_checkpoint(folder / "draft", SHAPES["tiny"].draft, catalog, seed=1)
    return SystemSpec("atspeed/transformers", folder / "target", folder / "catalog.jsonl", 1, folder / "draft", PLANS)


@pytest.fixture(scope="module")
def histories() -> list[list[int]]:
    return random_histories(320, 5, 6)


def test_every_plan_and_load_gives_the_lists_of_transformers(spec: SystemSpec, histories: list[list[int]]):
    ours = make_system(spec)
    assert isinstance(ours, EngineSystem)
    rival = make_system(SystemSpec("transformers", spec.target, spec.catalog, 1))
    assert isinstance(rival, GenerateSystem)
    expected = [outcome.identifiers for outcome in rival.search(Question(histories, K))]
    for plan in PLANS:
        for concurrency in (1, 3):
            outcomes = ours.search(Question(histories, K, plan, concurrency))
            assert [outcome.identifiers for outcome in outcomes] == expected, (plan, concurrency)
            assert all(outcome.seconds > 0 for outcome in outcomes)
    assert [outcome.target_forwards for outcome in ours.search(Question(histories, K))] == [4] * len(histories)
    assert max(outcome.target_forwards for outcome in ours.search(Question(histories, K, "trie"))) < 4


def test_a_plan_without_its_draft_is_refused(spec: SystemSpec, tmp_path: Path):
    ours = make_system(SystemSpec("atspeed/transformers", spec.target, spec.catalog, 1))
    with pytest.raises(ValueError, match="needs a draft model"):
        ours.search(Question([[1]], K, "beam:8"))
    with pytest.raises(PlanError, match="There is no plan 'guess'"):
        ours.search(Question([[1]], K, "guess"))
