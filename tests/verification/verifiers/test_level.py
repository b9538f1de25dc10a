"""Levels verified before those above are read, as where reading waits for the device, against levels verified and read one by one."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from drafting.beam import expand
from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.catalog.builder import catalog_of
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_trie import ItemTrie
from tests.models import save_random_model
from tests.speculation import SWEPT_DEPTHS, Speculation, noisy_copy, run
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest
from verification.result import BeamResult
from verification.verifiers.level import LevelVerifier

PLANS = [FixedPlan.parse(name) for name in ("none", "trie", "beam:30", "beam:12", "beam:20x1", "beam:12+children")]
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=3, temperature=0.7), SearchRule(Verification.RELAXED, seed=5)]


def both(make_engine: Callable[[], SpeculativeBeamEngine], requests: list[BeamRequest], plans: list[FixedPlan]) -> dict[str, BeamResult]:
    """Runs the requests both ways, in the same batches and under the same plans, which change from step to step; the results are one."""
    found = []
    for waits in (False, True):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("verification.verifiers.level.is_async", lambda device, waits=waits: waits)
            engine = make_engine()
        found.append(run(engine, requests, np.random.default_rng(2), list(plans)))
    assert found[0] == found[1]
    return found[0]


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_verifying_before_reading_changes_neither_lists_nor_what_they_cost(
    speculation: Speculation, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests of all rules side by side, many of which reject what was drafted."""
    requests = [
        replace(request, request_id=f"{number}/{request.request_id}")
        for number, rule in enumerate(RULES * 2)
        for request in speculation.requests(6, np.random.default_rng(number), rule)
    ]
    verify, levels = LevelVerifier.verify, []

    def counting(*args):  # type: ignore[no-untyped-def]
        levels.append(verify(*args))
        return levels[-1]

    monkeypatch.setattr(LevelVerifier, "verify", counting)
    mixed = [requests[place] for place in np.random.default_rng(1).permutation(len(requests))]
    results = both(lambda: speculation.engine(depth), mixed, PLANS)
    assert max(map(len, levels)) == depth
    accepted = [result.usage.accepted_steps for result in results.values()]
    assert depth == 1 or 0 < sum(accepted) < len(accepted) * (depth - 1)


def test_beams_of_unlike_sizes_that_are_expanded_apart_are_those_that_are_together(
    speculation: Speculation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By target and draft, with every rule."""
    requests = [
        replace(request, request_id=f"{number}/{request.request_id}")
        for number, rule in enumerate(RULES)
        for request in speculation.requests(8, np.random.default_rng(number), rule)
    ]
    together = run(speculation.engine(4), requests, np.random.default_rng(2), list(PLANS))
    monkeypatch.setattr(expand, "PADDING_SHARE", 0)
    monkeypatch.setattr(expand, "MUCH_PADDING", 0)
    assert run(speculation.engine(4), requests, np.random.default_rng(2), list(PLANS)) == together


@pytest.mark.parametrize("depth", [3, 4, 5])
def test_beams_that_are_short_at_one_level_and_full_at_the_next(speculation: Speculation, depth: int) -> None:
    """The draft's numbers in the empty places are older, and a relaxed search must not compare with them."""
    rng = np.random.default_rng(0)
    codes = speculation.identifiers[:, 0]
    requests = []
    for number in range(90):
        excluded = np.flatnonzero(~np.isin(codes, rng.permutation(np.unique(codes))[: rng.integers(3, 9)]))
        prompt = np.concatenate([[1], speculation.identifiers[rng.integers(150, size=5)].reshape(-1)])
        k = int(rng.integers(9, 16))
        requests.append(BeamRequest(str(number), prompt, k, k, excluded, replace(RULES[number % 3], seed=number)))
    both(lambda: speculation.engine(depth), requests, [FixedPlan.parse(name) for name in ("beam:40", "beam:30+children", "beam:40x1")])


def test_a_rejected_level_leads_nowhere_outside_the_trie(tmp_path: Path) -> None:
    """Few nodes at the end of each level have many children above them, so a step in the wrong place soon leaves the level."""
    rows = [[0, 0, 0, code, 0] for code in range(10)] + [[0, 1, 0, 0, 0], [0, 2, 0, 0, 0], [1, 0, 0, 0, 0]]
    items = {f"item-{place}": [f"<{letter}_{code}>" for letter, code in zip("abcde", row, strict=True)] for place, row in enumerate(rows)}
    catalog = catalog_of(items)
    folder = save_random_model(tmp_path / "target", catalog, layers=1, hidden=32, heads=1)
    target = TransformersHost(folder, slots=4096)
    draft = TransformersHost(noisy_copy(folder, tmp_path / "draft", 2.0), slots=4096)
    identifiers = catalog.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    rng = np.random.default_rng(0)
    histories = [identifiers[rng.integers(len(rows), size=rng.integers(1, 8))].reshape(-1) for _ in range(300)]
    requests = [BeamRequest(str(number), np.concatenate([[1], history]), 1, 1) for number, history in enumerate(histories)]
    plan = FixedPlan.parse("beam:1")
    results = both(lambda: SpeculativeBeamEngine(target, ItemTrie.build(identifiers), draft, plan), requests, [plan])
    assert min(result.usage.accepted_steps for result in results.values()) < 4
