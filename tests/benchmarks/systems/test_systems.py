"""The systems that are compared find the same lists, whatever they draft and however many are asked at once."""

import json
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from benchmarks.systems.histories import random_histories
from benchmarks.systems.question import Question, SystemSpec
from benchmarks.systems.shapes import SHAPES, make_catalog, make_checkpoint
from benchmarks.systems.systems import EngineSystem, GenerateSystem, make_system
from benchmarks.systems.vllm_beam_search import VllmBeamSearch
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


class Rival:
    """Stands in for vLLM's engine: each beam search knows prompts of those before it until they are forgotten."""

    known = 0

    def __init__(self, model: str, **settings: Any) -> None:
        self.settings, self.found_known = settings, list[int]()

    def beam_search(self, prompts: list[dict[str, list[int]]], params: object, use_tqdm: bool) -> list[SimpleNamespace]:
        self.found_known.append(self.known)
        self.known += len(prompts)
        return [SimpleNamespace(sequences=[SimpleNamespace(tokens=[*prompt["prompt_token_ids"], 7])]) for prompt in prompts]

    def reset_prefix_cache(self) -> bool:
        self.known = 0
        return True


def test_a_rival_caches_prompts_within_a_question_alone_and_has_the_checkpoints_precision(
    spec: SystemSpec, histories: list[list[int]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Blocks of its cache had more tokens than the prompts, so that every beam of a list computed all of its prompt anew."""
    for name in ("vllm", "vllm.sampling_params"):
        module = ModuleType(name)
        module.LLM, module.BeamSearchParams = Rival, dict  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, name, module)
    for variable in ("VLLM_ENABLE_V1_MULTIPROCESSING", "VLLM_LOGGING_LEVEL"):
        monkeypatch.setenv(variable, "")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    half = tmp_path / "half"
    shutil.copytree(spec.target, half)
    config = json.loads((half / "config.json").read_text())
    (half / "config.json").write_text(json.dumps(config | {"dtype": "bfloat16"}))
    for target, dtype in ((spec.target, torch.float32), (half, torch.bfloat16)):
        system = make_system(SystemSpec("vllm", target, spec.catalog, 1))
        assert isinstance(system, VllmBeamSearch)
        for k in (2, 3):
            assert [outcome.identifiers for outcome in system.search(Question(histories, k))] == [[(7,)]] * len(histories)
        rival: Any = system._llm
        assert rival.found_known == [*range(len(histories))] * 2
        assert (rival.settings["block_size"], rival.settings["dtype"]) == (32, dtype)
