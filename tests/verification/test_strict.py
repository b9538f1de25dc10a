"""Strict verification loses nothing: with every plan, the list is plain beam search's."""

from pathlib import Path

import numpy as np
import pytest
import torch

from drafting.catalog import Catalog
from drafting.plan import FixedPlan
from drafting.trie import ItemTrie
from tests.models import random_catalog, save_random_model
from verification.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.kv_slots import SlotPool
from verification.request import BeamRequest, BeamResult
from verification.search import beam_widths

PLANS = ("none", "trie", "beam:3", "beam:12", "beam:40", "beam:8+children", "beam:30+children")


def vocabulary(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()


def noisy_copy(source: Path, folder: Path, noise: float) -> Path:
    """A draft that is the target with noise on its weights: right often, wrong often."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(source)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    return folder


class Case:
    """A catalog, its target and its draft, and engines for every plan on one pair of models."""

    def __init__(self, folder: Path, depth: int) -> None:
        codes = {1: 90, 2: 12, 3: 7, 4: 5, 5: 4}[depth]
        self.catalog: Catalog = random_catalog(items=150, depth=depth, codes=codes, seed=depth)
        target = save_random_model(folder / "target", self.catalog, layers=1, hidden=32, heads=1, seed=depth)
        self.target = TransformersHost(target, kv_memory_gib=0.01)
        self.draft = TransformersHost(noisy_copy(target, folder / "draft", 0.15), slots=self.target.total_slots)
        self.identifiers = self.catalog.token_ids(vocabulary(target))
        self.trie = ItemTrie.build(self.identifiers)

    def engine(self, plan: str) -> SpeculativeBeamEngine:
        return SpeculativeBeamEngine(self.target, self.trie, self.draft, FixedPlan.parse(plan))

    def requests(self, count: int, rng: np.random.Generator) -> list[BeamRequest]:
        found = []
        for number in range(count):
            k = int(rng.integers(1, 21))
            excluded = rng.permutation(len(self.catalog))[: int(rng.choice([0, 0, 20, 140, 150]))]
            history = rng.integers(len(self.catalog), size=rng.integers(1, 8))
            prompt = np.concatenate([[1], self.identifiers[history].reshape(-1)])
            found.append(BeamRequest(str(number), prompt, k, k + int(rng.integers(0, 10)), excluded))
        return found


@pytest.fixture(scope="module", params=[1, 2, 3, 4, 5])
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(tmp_path_factory.mktemp("strict"), request.param)


def run(engine: SpeculativeBeamEngine, requests: list[BeamRequest], rng: np.random.Generator) -> dict[str, BeamResult]:
    """Runs the requests in batches that change at random."""
    waiting, results = list(requests), {}
    while waiting or engine.running:
        for _ in range(min(int(rng.integers(0, 6)), len(waiting))):
            engine.add(waiting.pop())
        for result in engine.step().finished:
            results[result.request_id] = result
    assert engine.used_slots == 0
    return results


def test_every_plan_gives_the_plain_list(case: Case) -> None:
    """400 cases over the five depths and seven plans make 2,800 lists; only scores closer than 1e-5 may change places."""
    rng = np.random.default_rng(case.trie.depth)
    requests = case.requests(80, rng)
    plain = run(case.engine("none"), requests, rng)
    accepted = dict.fromkeys(PLANS, 0)
    for plan in PLANS:
        for name, result in run(case.engine(plan), requests, rng).items():
            expected = plain[name]
            np.testing.assert_allclose([i.score for i in result.items], [i.score for i in expected.items], atol=1e-4)
            for ours, theirs in zip(result.items, expected.items, strict=True):
                assert ours.item == theirs.item or abs(ours.score - theirs.score) < 1e-5, plan
            assert result.usage.target_forwards + result.usage.accepted_steps <= case.trie.depth
            if result.items:
                assert result.usage.target_forwards + result.usage.accepted_steps == case.trie.depth
            accepted[plan] += result.usage.accepted_steps
    assert accepted["none"] == 0
    if case.trie.depth > 1:
        assert accepted["beam:40"] > 0
        assert accepted["trie"] > 0


@pytest.mark.parametrize("plan", PLANS)
def test_drafts_leave_the_slots_that_plain_searches_need(case: Case, plan: str) -> None:
    """With hardly more node slots than the requests need, drafts must do without and nothing may fail."""
    requests = case.requests(12, np.random.default_rng(3))
    plain = run(case.engine("none"), requests, np.random.default_rng(0))
    engine = case.engine(plan)
    needed = sum(1 + sum(beam_widths(request, case.trie)[1:-1]) for request in requests)
    engine._nodes = engine._grower._nodes = engine._judge._nodes = SlotPool(needed + 30)
    for request in requests:
        engine.add(request)
    results: list[BeamResult] = []
    while engine.running:
        results += engine.step().finished
    for result in results:
        assert [item.item for item in result.items] == [item.item for item in plain[result.request_id].items]
    assert len(results) == len(requests)


def test_a_perfect_draft_needs_one_forward(case: Case) -> None:
    """The target as its own draft, with a beam as wide as the target's, is always right."""
    engine = SpeculativeBeamEngine(case.target, case.trie, SameModel(case.target), FixedPlan.parse("beam:30"))
    for result in run(engine, case.requests(10, np.random.default_rng(0)), np.random.default_rng(0)).values():
        assert result.usage.target_forwards == 1


class SameModel:
    """A second key/value memory for a model that is both target and draft."""

    def __init__(self, host: TransformersHost) -> None:
        self._host = host
        self._caches = [torch.zeros_like(cache) for cache in host._caches]
        self.device, self.total_slots = host.device, host.total_slots

    def score(self, batch):
        self._host._caches, self._caches = self._caches, self._host._caches
        logits = self._host.score(batch)
        self._host._caches, self._caches = self._caches, self._host._caches
        return logits

    def close(self) -> None: ...
