"""Texts before lists: both are transformers' own, on both hosts, whatever is drafted and whoever shares the steps."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from drafting.beam.model import TreeModel
from drafting.beam.rule import MAX_BEAM_WIDTH, SearchRule, Verification
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from tests.blending import check_blended
from tests.lists import alone, lines
from tests.oracles import generate_lists
from tests.speculation import ITEMS, Speculation, run
from tests.verification.engine.test_beam_search import HOSTS
from tests.verification.engine.test_not_finite import damage
from verification.blend import Blend
from verification.engine.engine import SpeculativeBeamEngine
from verification.engine.think import next_tokens
from verification.evaluation.generate import PrefixTable
from verification.hosts.transformers import TransformersHost
from verification.request import BeamRequest, ReservedPlaces, Think
from verification.result import BeamResult
from verification.slots.pool import OutOfSlots, SlotPool

DEPTH = 3
K = 5
MOST = 12
# Tokens that no text of these models has.
NEVER = np.array([1, 1])
SAMPLED = SearchRule(Verification.GUMBEL, seed=5, temperature=1.5)


class Site:
    """A pair of models, and the target as transformers has it."""

    def __init__(self, models: Speculation, model: PreTrainedModel) -> None:
        self.models = models
        self.model = model
        self.table = PrefixTable(models.identifiers[:, :DEPTH])
        rng = np.random.default_rng(0)
        histories = [rng.integers(ITEMS, size=int(rng.integers(1, 7))) for _ in range(12)]
        self.prompts = [np.concatenate([[1], models.identifiers[history].reshape(-1)]) for history in histories]
        self.texts = [self._greedy(prompt) for prompt in self.prompts]

    def _greedy(self, prompt: np.ndarray) -> list[int]:
        tokens = torch.tensor(prompt[None])
        written = self.model.generate(tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=MOST, do_sample=False)
        return written[0, len(prompt) :].tolist()

    def requests(self) -> list[BeamRequest]:
        """One of each prompt: texts that end with one or two tokens, at a stop, or never, and requests without."""
        found = []
        for number, (prompt, text) in enumerate(zip(self.prompts, self.texts, strict=True)):
            after = np.array(text[:1] * (number % 3), np.int64)
            think = [
                Think(MOST, np.array(text[5:7]), after),
                Think(MOST, np.array(text[3:4]), after),
                Think(MOST, NEVER, after, frozenset(text[6:7])),
                Think(MOST - number % 5, NEVER, after),
                None,
            ][number % 5]
            found.append(BeamRequest(str(number), prompt, K, K, think=think))
        return found

    def check(self, request: BeamRequest, result: BeamResult) -> None:
        """Compare with `generate`, first free and then constrained."""
        prompt = request.prompt
        if (think := request.think) is None:
            assert result.thought is None
            assert result.usage.thought_tokens == 0
        else:
            written, text = written_of(self.texts[int(request.request_id)], think)
            assert result.thought == tuple(text)
            assert result.usage.thought_tokens == len(written)
            prompt = np.concatenate([prompt, text, think.end, think.after]).astype(np.int64)
        (theirs,) = generate_lists(self.model, [prompt], self.table, K, DEPTH)
        scores = {}
        for item in result.items:
            scores.setdefault(tuple(self.models.identifiers[item.item, :DEPTH].tolist()), item.score)
        assert list(scores) == [identifier for identifier, _ in theirs]
        np.testing.assert_allclose(list(scores.values()), [score for _, score in theirs], atol=1e-4)
        usage = result.usage
        assert usage.prompt_tokens == len(request.prompt)
        assert usage.target_forwards + usage.accepted_steps == usage.thought_tokens + DEPTH


def written_of(text: list[int], think: Think) -> tuple[list[int], list[int]]:
    """What of a greedy text is written, and that without its end."""
    for count in range(1, think.max_tokens + 1):
        written = text[:count]
        if written[-len(think.end) :] == think.end.tolist():
            return written, written[: -len(think.end)]
        if written[-1] in think.stops:
            return written, written[:-1]
    return text[: think.max_tokens], text[: think.max_tokens]


def advance(engine: SpeculativeBeamEngine, steps: int = 1000) -> dict[str, BeamResult]:
    """The lists of so many steps, or of all until nothing runs."""
    results = {}
    while engine.running and steps:
        results.update((result.request_id, result) for result in engine.step().finished)
        steps -= 1
    return results


@pytest.fixture(scope="module", params=HOSTS)
def hosted(request: pytest.FixtureRequest, speculation: Speculation, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp(request.param)
    models = Speculation(folder, request.param)
    yield Site(models, AutoModelForCausalLM.from_pretrained(folder / "target").eval())
    models.target.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    folder = tmp_path_factory.mktemp("thinking")
    return Site(Speculation(folder), AutoModelForCausalLM.from_pretrained(folder / "target").eval())


@pytest.mark.parametrize("plan", ["none", "trie", "beam:12", "beam:8+children"])
def test_text_and_list_equal_generate(hosted: Site, plan: str) -> None:
    """Alone, and joining and leaving a running batch, with the draft and without."""
    requests = hosted.requests()
    for request in requests[:5]:
        hosted.check(request, alone(hosted.models.engine(DEPTH, plan), request))
    results = run(hosted.models.engine(DEPTH, plan), requests, np.random.default_rng(1))
    assert len(results) == len(requests)
    for request in requests:
        hosted.check(request, results[request.request_id])
    saved = sum(result.usage.accepted_steps for result in results.values())
    assert (saved > 0) == (plan != "none")


@pytest.mark.parametrize("thinks", [True, False])
def test_blended_lists_follow_the_text(hosted: Site, thinks: bool) -> None:
    """The candidates' prefixes enter the tree behind the text, with drafts beside them."""
    engine = hosted.models.engine(DEPTH, "beam:12")
    request = next(each for each in hosted.requests() if (each.think is not None) == thinks)
    items = np.random.default_rng(2).permutation(ITEMS)[:20]
    blend = Blend.of(engine.trie, items, np.linspace(1, 9, 20), 2.0)
    result = check_blended(engine, replace(request, k=10, beam_width=MAX_BEAM_WIDTH, blend=blend))
    assert (result.thought is not None) == thinks


def test_a_draft_reads_the_text_too(site: Site) -> None:
    """The target as its own draft is always right, which it can only be if it has computed the text."""
    assert isinstance(site.models.target, TransformersHost)
    from tests.speculation import SameModel

    for request in site.requests():
        result = alone(site.models.engine(DEPTH, "beam:30", SameModel(site.models.target)), request)
        site.check(request, result)
        assert result.usage.target_forwards == result.usage.thought_tokens + 1


def test_sampled_texts_depend_on_nothing_but_their_seed(site: Site) -> None:
    """The same alone, in company and again; another with another seed."""
    requests = [
        BeamRequest(str(number), prompt, K, K, think=Think(MOST, NEVER, rule=replace(SAMPLED, seed=number)))
        for number, prompt in enumerate(site.prompts)
    ]
    engine = site.models.engine(DEPTH, "beam:12")
    together = run(engine, requests, np.random.default_rng(0))
    again = run(
        engine, requests[::-1] + [replace(one, request_id=f"beside {one.request_id}") for one in site.requests()], np.random.default_rng(3)
    )
    for request in requests:
        by_itself = alone(engine, request)
        assert by_itself.thought == together[request.request_id].thought == again[request.request_id].thought
        assert lines(by_itself) == lines(together[request.request_id]) == lines(again[request.request_id])
    greedy = sum(together[str(number)].thought == tuple(text) for number, text in enumerate(site.texts))
    assert greedy < len(requests) / 2
    other = [replace(request, prompt=site.prompts[0]) for request in requests]
    assert len({alone(engine, request).thought for request in other}) > len(requests) / 2


def test_a_sampled_text_is_drawn_token_by_token(site: Site) -> None:
    """From the model's own logits after the text so far, by the noise of its place."""
    for number, prompt in enumerate(site.prompts):
        rule = replace(SAMPLED, seed=number)
        text: list[int] = []
        for place in range(MOST):
            with torch.inference_mode():
                logits = site.model(torch.tensor([[*prompt, *text]])).logits[:, -1]
            text += next_tokens(logits, [rule], [place]).tolist()
        request = BeamRequest("draws", prompt, K, K, think=Think(MOST, NEVER, rule=rule))
        assert alone(site.models.engine(DEPTH), request).thought == tuple(text)


def test_draws_follow_the_softmax_at_the_temperature() -> None:
    logits = torch.randn(1, 50, generator=torch.Generator().manual_seed(0)).expand(4000, -1)
    rules = [SearchRule(Verification.GUMBEL, seed=seed, temperature=0.7) for seed in range(4000)]
    drawn = next_tokens(logits, rules, [3] * 4000).bincount(minlength=50) / 4000
    expected = (logits[0].double() / 0.7).softmax(0)
    assert float((drawn - expected).abs().sum()) < 0.1
    # Neither one seed's draws at two places nor the rows of one forward are the same.
    positions = next_tokens(logits, rules[:1] * 4000, range(4000)).bincount(minlength=50) / 4000
    assert float((positions - expected).abs().sum()) < 0.1


def test_equal_logits_give_the_smallest_token_and_broken_ones_none(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.zeros(6, 300)
    logits[0, [7, 9]] = 1.0
    logits[1, 5] = float("nan")
    logits[2, 5] = float("inf")
    logits[3] = float("-inf")
    logits[4, :200] = float("-inf")
    sampled = [SearchRule(), SearchRule(), SearchRule(), SearchRule(), SAMPLED, SAMPLED]
    found = next_tokens(logits, sampled, [0] * 6).tolist()
    assert found[:4] == [7, -1, -1, -1]
    assert found[4] >= 200
    # Where few rows are perturbed at a time, the draws are the same.
    monkeypatch.setattr("verification.engine.think.MOST_SCORES", 1)
    assert next_tokens(logits, sampled, [0] * 6).tolist() == found


def test_others_go_on_while_one_thinks(site: Site) -> None:
    """They take the steps that they take alone."""
    thinking = BeamRequest("thinks", site.prompts[0], K, K, think=Think(MOST, NEVER))
    engine = site.models.engine(DEPTH)
    engine.add(thinking)
    engine.step()
    engine.add(BeamRequest("quick", site.prompts[1], K, K))
    results = advance(engine, DEPTH)
    assert list(results) == ["quick"]
    assert engine.running == 1
    assert list(advance(engine)) == ["thinks"]


def test_slots_for_the_longest_text_are_set_aside_and_no_more(site: Site) -> None:
    think = Think(MOST, np.array(site.texts[0][2:4]), np.array([4, 5]))
    request = BeamRequest("0", site.prompts[0], K, K, think=think)
    longest = len(request.prompt) + MOST + 2 + 2
    for spare in (-1, 0):
        engine = site.models.engine(DEPTH, "trie")
        engine.slots.prompts = SlotPool(longest - 1 + spare, first=engine.slots.prompts.first)
        engine.slots.prefix_cache._pool = engine.slots.prompts
        assert engine.has_room(request) == engine.fits(request) == (spare == 0)
        if spare < 0:
            with pytest.raises(OutOfSlots):
                engine.add(request)
            continue
        engine.add(request)
        assert engine.used_slots == longest - 1
        assert not engine.has_room(replace(request, request_id="1", think=None))
        assert engine.slots.spare_nodes == engine.slots.nodes.total - (1 + K * (DEPTH - 1))
        site.check(request, advance(engine)["0"])
    # One that never ends needs all of it.
    endless = replace(request, think=replace(think, end=NEVER))
    site.check(endless, alone(engine, endless))
    assert engine.used_slots == 0


def test_whatever_ends_a_request_that_thinks_its_slots_are_free(site: Site) -> None:
    """Cancelled before, between and after any of its steps, among others; what is kept of it is its prompt at most."""
    for steps in range(MOST + DEPTH):
        engine = site.models.engine(DEPTH, "beam:12")
        for number, request in enumerate(site.requests()[:4]):
            engine.add(replace(request, cache_key=f"user {number}"))
        ended = advance(engine, steps)
        for number in range(4):
            assert engine.cancel(str(number)) == (str(number) not in ended)
            assert not engine.cancel(str(number))
        assert (engine.running, engine.used_slots) == (0, 0)
        assert engine.slots.nodes.free == engine.slots.nodes.total
        assert engine.cached_slots <= sum(len(prompt) for prompt in site.prompts[:4])
        assert engine.cached_slots == 0 or steps
        engine.forget_histories()
        assert engine.slots.prompts.free == engine.slots.prompts.total


def test_a_cached_prompt_is_that_of_a_list_without_a_text(site: Site) -> None:
    """A text is no use to the next request, so its slots are given to others."""
    engine = site.models.engine(DEPTH, "beam:12")
    request = replace(site.requests()[0], cache_key="user")
    first = alone(engine, request)
    assert engine.cached_slots == len(request.prompt)
    second = alone(engine, request)
    assert (first.usage.cached_tokens, second.usage.cached_tokens) == (0, len(request.prompt) - 1)
    for result in (first, second):
        site.check(request, result)
    plain = alone(engine, replace(request, think=None))
    assert plain.usage.cached_tokens == len(request.prompt) - 1
    site.check(replace(request, think=None), plain)


def test_reserved_places_are_searched_for_behind_the_text(site: Site) -> None:
    items = ItemSet.of(np.arange(ITEMS) % 7 == 0)
    for request in site.requests():
        reserved = ReservedPlaces(2, items)
        result = alone(site.models.engine(DEPTH), replace(request, reserved=reserved))
        if request.think is None:
            continue
        assert result.thought is not None
        prompt = np.concatenate([request.prompt, result.thought, request.think.end, request.think.after]).astype(np.int64)
        plain = alone(site.models.engine(DEPTH), replace(request, prompt=prompt, think=None, reserved=reserved))
        assert lines(result) == lines(plain)


@pytest.fixture(scope="module")
def damaged(site: Site, tmp_path_factory: pytest.TempPathFactory) -> TreeModel:
    """The target, but for the embedding of a token in the first text, which some identifiers have as well."""
    folder = tmp_path_factory.mktemp("damaged")
    damage(Path(site.model.name_or_path), folder, [site.texts[0][2]])
    return TransformersHost(folder, slots=site.models.target.total_slots)


def outcomes(engine: SpeculativeBeamEngine, requests: list[BeamRequest]) -> tuple[dict[str, BeamResult], list[str]]:
    """The lists, and the ids of the requests that failed."""
    for request in requests:
        engine.add(request)
    results, failed = {}, []
    while engine.running:
        report = engine.step()
        results.update((result.request_id, result) for result in report.finished)
        failed += report.failed
    engine.forget_histories()
    assert (engine.used_slots, engine.cached_slots) == (0, 0)
    return results, sorted(failed)


@pytest.mark.parametrize("plan", ["none", "trie", "beam:12"])
def test_a_text_without_finite_logits_ends_its_request_alone(site: Site, damaged: TreeModel, plan: str) -> None:
    """At the step that reads a damaged token; the others' texts and lists are as they were, also where drafts spoil a search behind one."""
    requests = [replace(request, cache_key=request.request_id) for request in site.requests()]
    expected = {request.request_id: alone(site.models.engine(DEPTH, plan), request) for request in requests}
    plain = SpeculativeBeamEngine(damaged, site.models.tries[DEPTH], site.models.draft)
    engine = SpeculativeBeamEngine(damaged, site.models.tries[DEPTH], site.models.draft, FixedPlan.parse(plan))
    results, failed = outcomes(engine, requests)
    assert failed == outcomes(plain, requests)[1]
    assert "0" in failed
    assert len(results) > 2
    assert sorted([*failed, *results]) == sorted(expected)
    for request_id, result in results.items():
        assert result.thought == expected[request_id].thought
        assert result.usage.thought_tokens == expected[request_id].usage.thought_tokens
        assert lines(result) == lines(expected[request_id])
