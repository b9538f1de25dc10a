"""A target, a draft that is often right and often wrong, and tries of every depth over their tokens."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.rows import Rows
from drafting.beam.rule import STRICT, Normalisation, SearchRule
from drafting.catalog.builder import catalog_of
from drafting.plans.costs import CostCurve, ForwardCosts
from drafting.plans.fixed_plan import FixedPlan
from drafting.plans.plan import Plan
from drafting.plans.planner import Planner
from drafting.trie.item_trie import ItemTrie
from tests.models import save_random_model
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.checkpoint import auto_class, load_config
from verification.hosts.loading import load_host
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest
from verification.result import BeamResult

DEPTHS = (1, 2, 3, 4, 5)
# The depths of a sweep: a trie without inner levels and one with several in every run, all of them in `make test-all`.
SWEPT_DEPTHS = [pytest.param(depth, marks=() if depth in (1, 4) else pytest.mark.exhaustive) for depth in DEPTHS]
CODES = (40, 7, 5, 4, 3)
ITEMS = 150
# Forwards that cost much and little beside their tokens, so that the planner drafts now wide, now not at all.
COSTS = [
    *(ForwardCosts(CostCurve(balance, 1.0), CostCurve(0.02 * balance, 0.01)) for balance in (5.0, 50.0, 1000.0)),
    ForwardCosts(CostCurve(50.0, 1.0, free=100.0), CostCurve(1.0, 0.01, free=100.0)),
]


class Speculation:
    """One pair of models on one host; `depth` picks the trie."""

    def __init__(self, folder: Path, host: str = "transformers") -> None:
        rng = np.random.default_rng(0)
        rows = np.stack([rng.integers(codes, size=ITEMS) for codes in CODES], axis=1)
        tokens = {f"item-{i}": [f"<{'abcde'[level]}_{code}>" for level, code in enumerate(row)] for i, row in enumerate(rows)}
        self.catalog = catalog_of(tokens)
        self.folder = target = save_random_model(folder / "target", self.catalog, layers=1, hidden=32, heads=1)
        self.target: TreeModel = load_host(host, target, dtype="float32", kv_memory_gib=0.01, longest=64)
        # Those of the target, which an engine's host packs, as they are before.
        self.target_model = TransformersHost(target, dtype="float32", slots=1).model
        self.draft = TransformersHost(noisy_copy(target, folder / "draft", 0.15), slots=self.target.total_slots)
        self.identifiers = self.catalog.token_ids(AutoTokenizer.from_pretrained(target).get_vocab())
        self.tries = {depth: ItemTrie.build(self.identifiers[:, :depth]) for depth in DEPTHS}

    def engine(
        self,
        depth: int,
        plan: Plan | str = "none",
        draft: TreeModel | None = None,
        normalise: Normalisation = Normalisation.VOCABULARY,
    ) -> SpeculativeBeamEngine:
        """An engine of its own; the draft is at hand under every plan. `auto` is the planner."""
        if isinstance(plan, str):
            plan = self.planner(depth) if plan == "auto" else FixedPlan.parse(plan)
        return SpeculativeBeamEngine(self.target, self.tries[depth], draft or self.draft, plan, normalise=normalise)

    def planner(self, depth: int, costs: ForwardCosts = COSTS[2]) -> Planner:
        return Planner(costs, self.tries[depth].mean_fan_out, items=30)

    def requests(self, count: int, rng: np.random.Generator, rule: SearchRule = STRICT) -> list[BeamRequest]:
        """Requests of every kind: of any k and width, with few, most or all items excluded; and with retrieved items."""
        found = []
        for number in range(count):
            k = int(rng.integers(1, 21))
            excluded = rng.permutation(ITEMS)[: int(rng.choice([0, 0, 20, 140, ITEMS]))]
            history = rng.integers(ITEMS, size=rng.integers(1, 8))
            prompt = np.concatenate([[1], self.identifiers[history].reshape(-1)])
            retrieved = np.random.default_rng(number).permutation(ITEMS)[: number % 40]
            found.append(BeamRequest(str(number), prompt, k, k + int(rng.integers(0, 10)), excluded, rule, retrieved=retrieved))
        return found


def noisy_copy(source: Path, folder: Path, noise: float) -> Path:
    """A draft that is the target with noise on its weights, right often and wrong often; with the target's tokenizer."""
    model = auto_class(load_config(source)).from_pretrained(source)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += noise * parameter.std() * torch.randn(parameter.shape, generator=generator)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def run(
    engine: SpeculativeBeamEngine, requests: list[BeamRequest], rng: np.random.Generator, plans: list[Plan] | None = None
) -> dict[str, BeamResult]:
    """Runs the requests in batches that change at random, each step by a random one of `plans`; leaves no slot behind."""
    waiting, results = list(requests), dict[str, BeamResult]()
    while waiting or engine.running:
        for _ in range(min(int(rng.integers(0, 6)), len(waiting))):
            engine.add(waiting.pop())
        if plans:
            engine.use_plan(plans[rng.integers(len(plans))])
        for result in engine.step().finished:
            results[result.request_id] = result
    assert engine.used_slots == 0
    assert results.keys() >= {request.request_id for request in requests}, "a list that ended in failure compares with nothing"
    return results


def assert_early_ends_leave_nothing(engine: SpeculativeBeamEngine, requests: Iterable[BeamRequest], rng: np.random.Generator) -> None:
    """Add requests, let some steps run between them and cancel some of them at random; no slot is in use behind them, nor lost."""
    for request in requests:
        engine.add(request)
        if rng.random() < 0.6:
            engine.step()
        if rng.random() < 0.5 and engine.running:
            engine.cancel(request.request_id)
    while engine.running:
        engine.step()
    assert engine.used_slots == 0
    assert not engine.slots.owners
    engine.forget_histories()
    assert engine.slots.prompts.free == engine.slots.prompts.total
    assert engine.slots.nodes.free == engine.slots.nodes.total


class SameModel:
    """A second key/value memory for a model that is both target and draft."""

    def __init__(self, host: TransformersHost) -> None:
        self._host = host
        self._caches = [torch.zeros_like(cache) for cache in host._caches]
        self.device, self.total_slots, self.has_encoder = host.device, host.total_slots, host.has_encoder

    def score(self, batch: TreeBatch) -> Rows:
        self._host._caches, self._caches = self._caches, self._host._caches
        rows = self._host.score(batch)
        self._host._caches, self._caches = self._caches, self._host._caches
        return rows

    def close(self) -> None: ...
