"""Explanations: every prefix and number that they tell, against brute force and the engine's own counters, whatever is drafted."""

from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

from drafting.beam.rows import Rows
from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from tests.explaining import ALL, Prefix, check_by_brute_force, check_explained, prefixes
from tests.lists import assert_same_list
from tests.models import random_catalog, save_random_model
from tests.oracles import model_scores
from tests.speculation import ITEMS, SWEPT_DEPTHS, Speculation, run
from tests.t5_models import save_t5_model
from tests.verification.engine.test_blend import random_blend, with_blend
from tests.verification.engine.test_reserved import with_places
from tests.verification.verifiers.test_strict import random_plans
from verification.recommender import Recommender
from verification.request import BeamRequest, Think

RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=3, temperature=0.7), SearchRule(Verification.RELAXED, seed=3, temperature=1.3)]
PLANS = ("none", "trie", "beam:6", "beam:3x1+children")
# Tokens that no text of these models has.
NEVER = np.array([1, 1])


def of_every_kind(models: Speculation, depth: int, rng: np.random.Generator) -> list[BeamRequest]:
    """Requests by each rule, with reserved places, with candidates and behind texts, each with its own bound."""
    plain = models.requests(24, rng)
    requests = [replace(request, rule=rule) for request, rule in zip(plain[:12], RULES * 4, strict=True)]
    requests += [with_places(request, rng) for request in plain[12:15]]
    requests += [with_blend(request, models.tries[depth], rng) for request in plain[15:18]]
    requests += [with_places(with_blend(request, models.tries[depth], rng), rng) for request in plain[18:21]]
    requests += [replace(request, think=Think(4, NEVER)) for request in plain[21:]]
    return [replace(request, explain=int(rng.choice([0, 5, 40, ALL])), cache_key=f"user {rng.integers(9)}") for request in requests]


@pytest.mark.parametrize("depth", SWEPT_DEPTHS)
def test_they_are_the_engines_own_numbers_and_change_no_list(speculation: Speculation, depth: int) -> None:
    """Plans change at random from step to step, and half of the company asks for none."""
    rng = np.random.default_rng(depth)
    requests = of_every_kind(speculation, depth, rng)
    others = [replace(request, request_id=f"{request.request_id}, silent", explain=None) for request in requests]
    engine = speculation.engine(depth)
    results = run(engine, [*requests, *others], rng, random_plans(speculation, depth, rng))
    for request, other in zip(requests, others, strict=True):
        result, silent = results[request.request_id], results[other.request_id]
        check_explained(result, request, speculation.identifiers[:, :depth])
        assert silent.explanation is None
        if request.rule.verification is not Verification.RELAXED:
            assert_same_list(result, silent)
    assert not engine._explaining._beams, "what was written down ends with its request"


@pytest.mark.parametrize("rule", RULES[1:], ids=lambda rule: rule.verification.value)
def test_sampled_continuations_sum_to_their_prefix(speculation: Speculation, rule: SearchRule) -> None:
    identifiers = speculation.identifiers[:, :4]
    asked = speculation.requests(16, np.random.default_rng(2), rule)
    requests = [replace(request, explain=ALL) for request in asked if len(request.excluded_items) < ITEMS]
    results = run(speculation.engine(4, "beam:12"), requests, np.random.default_rng(0))
    for result in results.values():
        assert result.explanation is not None
        above: dict[Prefix, float] = {(): 0.0}
        for depth, level in enumerate(result.explanation.searches[0], start=1):
            names = prefixes(level, depth, identifiers)
            sums = dict.fromkeys(above, 0.0)
            for name, log_prob in zip(names, level.log_probs, strict=True):
                if name[:-1] in above:
                    sums[name[:-1]] += np.exp(log_prob)
            np.testing.assert_allclose(list(sums.values()), np.exp(list(above.values())), atol=1e-5)
            above = dict(zip(names[: level.beam], level.log_probs, strict=False))


def test_a_search_that_begins_again_is_told_from_its_second_beginning(speculation: Speculation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its drafts may have spoilt the first forward, so it goes on without."""
    request = BeamRequest("spoilt", np.array([1, *speculation.identifiers[3]]), 5, 8, explain=20)
    score, forwards = speculation.target.score, count()
    monkeypatch.setattr(speculation.target, "score", lambda batch: Rows.of(score(batch).logits() * (np.nan if next(forwards) == 0 else 1)))
    result = run(speculation.engine(4, "beam:12"), [request], np.random.default_rng(0))["spoilt"]
    check_explained(result, request, speculation.identifiers[:, :4])
    assert result.explanation is not None
    assert [level.forward for level in result.explanation.searches[0]] == [1, 2, 3, 4]
    assert result.usage.drafted_nodes == 0


def t5_scores(model: Any, prompt: np.ndarray) -> Any:
    """As `model_scores`: the prompt's last token begins the decoder's."""

    def score(names: list[Prefix]) -> np.ndarray:
        encoder = torch.tensor(prompt[:-1]).expand(len(names), -1)
        decoder = torch.tensor([[int(prompt[-1]), *name] for name in names])
        with torch.inference_mode():
            return model(input_ids=encoder, decoder_input_ids=decoder).logits[:, -1].log_softmax(-1).numpy()

    return score


@pytest.mark.parametrize("family", ["llama", "t5"])
def test_explanations_that_tell_all_equal_brute_force(family: str, tmp_path: Path) -> None:
    """Random plans, filters, exclusions and blends, also behind cached prompts, on a target of either kind."""
    rng = np.random.default_rng(0)
    catalog = random_catalog(items=120, depth=3, codes=5, seed=1)
    save = save_random_model if family == "llama" else save_t5_model
    folder = save(tmp_path / "target", catalog)
    draft = save_random_model(tmp_path / "draft", catalog, layers=1, hidden=16, heads=1)
    recommender = Recommender.load(folder, catalog, draft=draft, kv_memory_gib=0.05, dtype="float32")
    model = (AutoModelForCausalLM if family == "llama" else AutoModelForSeq2SeqLM).from_pretrained(folder).eval()
    engine, trie = recommender.engine, recommender.engine.trie
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    for number, plan in enumerate(PLANS):
        allowed = rng.random(len(catalog)) < rng.choice([0.05, 0.5, 1.0])
        excluded = rng.permutation(len(catalog))[: int(rng.choice([0, 40]))]
        filtered = ItemSet.of(allowed)
        allowed[excluded] = False
        blend = random_blend(trie, allowed, rng)[0] if number in (1, 2) else None
        k, history = int(rng.integers(1, 9)), rng.integers(len(catalog), size=3).tolist()
        request = recommender.request(str(number), history, k, k + number, excluded, STRICT, "ann", filtered, blend=blend)
        request = replace(request, explain=ALL)
        engine.use_plan(FixedPlan.parse(plan))
        result = run(engine, [request], rng)[str(number)]
        assert result.explanation is not None
        check_explained(result, request, identifiers)
        score = (model_scores if family == "llama" else t5_scores)(model, request.prompt)
        check_by_brute_force(result.explanation.searches[0], request, score, identifiers, allowed)
