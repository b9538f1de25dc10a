"""Plain beam search against transformers' `generate` and against brute force, on both hosts."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from drafting.catalog.catalog import Catalog
from drafting.trie.item_set import ItemSet
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, generate_lists, model_scores
from verification.evaluation.generate import PrefixTable
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult

HOSTS = ["transformers", pytest.param("vllm", marks=pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed"))]
TOLERANCE = 1e-4
BEAM_WIDTHS = (1, 5, 10, 20)
HISTORIES_PER_LENGTH = [3, pytest.param(10, marks=pytest.mark.exhaustive)]
LENGTHS = range(1, 21)


def load(folder: Path, catalog: Catalog, host: str, **options: object) -> Recommender:
    return Recommender.load(folder, catalog, host=host, kv_memory_gib=0.25, **options)


def as_pairs(result: BeamResult, identifiers: np.ndarray) -> list[tuple[tuple[int, ...], float]]:
    """The distinct identifiers of a list with their scores."""
    return [(tuple(identifiers[item.item].tolist()), item.score) for item in result.firsts]


def assert_same(ours: list[tuple[tuple[int, ...], float]], theirs: list[tuple[tuple[int, ...], float]]) -> None:
    assert [identifier for identifier, _ in ours] == [identifier for identifier, _ in theirs]
    np.testing.assert_allclose([score for _, score in ours], [score for _, score in theirs], atol=TOLERANCE, rtol=0)


@pytest.fixture(scope="module")
def paper_model(paper_catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_random_model(tmp_path_factory.mktemp("beauty"), paper_catalog, heads=4, key_value_heads=2, seed=3)


@pytest.fixture(scope="module", params=HISTORIES_PER_LENGTH)
def paper_histories(request: pytest.FixtureRequest, paper_catalog: Catalog) -> list[list[int]]:
    rng = np.random.default_rng(7)
    return [rng.integers(len(paper_catalog), size=length).tolist() for length in LENGTHS for _ in range(request.param)]


@pytest.fixture(scope="module")
def expected(paper_catalog: Catalog, paper_model: Path, paper_histories: list[list[int]]) -> dict[tuple[int, int], list]:
    """transformers' list for every history and beam width."""
    reference = load(paper_model, paper_catalog, "transformers")
    model = AutoModelForCausalLM.from_pretrained(paper_model).eval()
    trie = PrefixTable(paper_catalog.token_ids(reference_vocabulary(paper_model)))
    lists = {}
    alike = len(paper_histories) // len(LENGTHS)
    for start in range(0, len(paper_histories), alike):
        prompts = [reference.prompts.build(history) for history in paper_histories[start : start + alike]]
        for k in BEAM_WIDTHS:
            for offset, found in enumerate(generate_lists(model, prompts, trie, k, paper_catalog.identifier_length)):
                lists[start + offset, k] = found
    return lists


def reference_vocabulary(folder: Path) -> dict[str, int]:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder).get_vocab()


@pytest.fixture(scope="module", params=HOSTS)
def paper_recommender(request: pytest.FixtureRequest, paper_catalog: Catalog, paper_model: Path) -> Iterator[Recommender]:
    recommender = load(paper_model, paper_catalog, request.param)
    yield recommender
    recommender.close()


def test_lists_equal_generate_in_mixed_batches(
    paper_recommender: Recommender, paper_model: Path, paper_histories: list[list[int]], expected: dict
) -> None:
    """All histories at all beam widths, in random order, joining and leaving a running batch."""
    identifiers = paper_recommender.catalog.token_ids(reference_vocabulary(paper_model))
    jobs = [(number, k) for number in range(len(paper_histories)) for k in BEAM_WIDTHS]
    rng = np.random.default_rng(1)
    rng.shuffle(jobs)
    engine, waiting, checked = paper_recommender.engine, list(jobs), 0
    while waiting or engine.running:
        for _ in range(min(int(rng.integers(0, 5)), len(waiting))):
            number, k = waiting.pop()
            engine.add(paper_recommender.request(f"{number}/{k}", paper_histories[number], k, k))
        for result in engine.step().finished:
            number, k = map(int, result.request_id.split("/"))
            assert_same(as_pairs(result, identifiers), expected[number, k])
            assert result.usage.target_forwards == paper_recommender.catalog.identifier_length
            checked += 1
    assert checked == len(jobs)
    assert engine.used_slots == 0


def test_lists_equal_generate_alone(
    paper_recommender: Recommender, paper_model: Path, paper_histories: list[list[int]], expected: dict
) -> None:
    identifiers = paper_recommender.catalog.token_ids(reference_vocabulary(paper_model))
    for number in range(0, len(paper_histories), 7):
        for k in BEAM_WIDTHS:
            (result,) = paper_recommender.recommend([paper_histories[number]], k, k)
            assert_same(as_pairs(result, identifiers), expected[number, k])


MODELS = {
    "llama-tied": {"family": "llama", "tied": True, "heads": 2, "key_value_heads": 2},
    "qwen2-grouped": {"family": "qwen2", "heads": 4, "key_value_heads": 1},
    "qwen3-grouped-tied": {"family": "qwen3", "heads": 4, "key_value_heads": 2, "tied": True},
}


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("shape", MODELS)
def test_every_family_equals_generate(host: str, shape: str, tmp_path: Path) -> None:
    catalog = random_catalog(items=300, depth=3, codes=12)
    folder = save_random_model(tmp_path / "model", catalog, **MODELS[shape])
    recommender = load(folder, catalog, host)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    trie, rng = PrefixTable(identifiers), np.random.default_rng(0)
    histories = [rng.integers(len(catalog), size=size).tolist() for size in (1, 4, 9)]
    for history, result in zip(histories, recommender.recommend(histories, 8, 8), strict=True):
        (theirs,) = generate_lists(model, [recommender.prompts.build(history)], trie, 8, catalog.identifier_length)
        assert_same(as_pairs(result, identifiers), theirs)
    recommender.close()


@pytest.mark.parametrize("host", HOSTS)
def test_bfloat16_scores_are_those_of_float32_within_its_rounding(host: str, tmp_path: Path) -> None:
    catalog = random_catalog(items=300, depth=3, codes=12)
    folder = save_random_model(tmp_path / "model", catalog, heads=2, dtype=torch.bfloat16)
    recommender = load(folder, catalog, host)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    (result,) = recommender.recommend([[5, 17, 200]], 10, 10)
    prompt = recommender.prompts.build([5, 17, 200])
    (exact,) = generate_lists(model, [prompt], PrefixTable(identifiers), 10, catalog.identifier_length)
    found = as_pairs(result, identifiers)
    assert len({identifier for identifier, _ in found} & {identifier for identifier, _ in exact}) >= 8
    for identifier, score in found:
        tokens = torch.tensor([[*prompt, *identifier]])
        with torch.inference_mode():
            log_probs = model(tokens).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
        assert score == pytest.approx(float(log_probs[range(3), identifier].sum()), abs=0.25)
    recommender.close()


@pytest.fixture(scope="module", params=[1, 2, 4])
def small(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recommender, AutoModelForCausalLM]:
    """A catalog of each identifier length on the transformers host, and the plain model."""
    catalog = random_catalog(items=120, depth=request.param, codes=6 if request.param > 1 else 90, seed=request.param)
    folder = save_random_model(tmp_path_factory.mktemp("small"), catalog, layers=1, seed=request.param)
    return load(folder, catalog, "transformers"), AutoModelForCausalLM.from_pretrained(folder).eval()


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 0.99])
def test_exclusions_and_wide_beams_equal_brute_force(small: tuple[Recommender, AutoModelForCausalLM], share: float) -> None:
    """The k best of what is not excluded come back, also where levels hold fewer prefixes than the beam is wide."""
    recommender, model = small
    catalog, trie = recommender.catalog, recommender.engine.trie
    rng = np.random.default_rng(int(100 * share))
    identifiers = np.empty((len(catalog), catalog.identifier_length), np.int64)
    identifiers[:] = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    for k, beam_width in ((1, 1), (3, 8), (10, 10), (20, 40)):
        history = rng.integers(len(catalog), size=5).tolist()
        excluded = rng.permutation(len(catalog))[: int(share * len(catalog))]
        allowed = np.ones(len(catalog), bool)
        allowed[excluded] = False
        prompt = recommender.prompts.build(history)

        theirs = brute_force_beam(model_scores(model, prompt), identifiers, allowed, k, beam_width)
        (result,) = recommender.recommend([history], k, beam_width, [excluded.tolist()])
        assert_same(as_pairs(result, identifiers), theirs)
        returned = [item.item for item in result.items]
        assert len(set(returned)) == len(returned)
        assert allowed[returned].all()
        best = {tuple(identifiers[item.item].tolist()): item.rank for item in result.items}
        shared = [i for i in np.flatnonzero(allowed) if tuple(identifiers[i].tolist()) in best]
        assert sorted(shared) == sorted(returned), "all eligible items of a returned identifier are listed"


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_filters_with_exclusions_equal_brute_force(small: tuple[Recommender, AutoModelForCausalLM], share: float) -> None:
    """Requests with filters, exclusions and neither share steps; each gets the k best of what is eligible for it, or all of it."""
    recommender, model = small
    engine, trie = recommender.engine, recommender.engine.trie
    rng = np.random.default_rng(int(100 * share))
    identifiers = trie.token.numpy()[trie.paths(trie.leaf_of_item)]
    asked, expected = {}, {}
    for number, (k, beam_width) in enumerate(((1, 1), (5, 5), (3, 8), (10, 10), (20, 40), (20, 20))):
        allowed = rng.random(len(trie.items)) < share
        items = ItemSet.of(allowed) if number % 3 else None
        excluded = rng.permutation(len(trie.items))[: len(trie.items) // 4] if number % 2 else np.empty(0, np.int64)
        request = recommender.request(
            str(number), rng.integers(len(trie.items), size=4).tolist(), k, beam_width, excluded, allowed_items=items
        )
        allowed = allowed if items else np.ones(len(trie.items), bool)
        allowed[excluded] = False
        asked[str(number)] = allowed
        expected[str(number)] = brute_force_beam(model_scores(model, request.prompt), identifiers, allowed, k, beam_width)
        engine.add(request)
    results: list[BeamResult] = []
    while engine.running:
        results += engine.step().finished
    assert {result.request_id for result in results} == asked.keys()
    for result in results:
        assert all(asked[result.request_id][item.item] for item in result.items)
        assert_same(as_pairs(result, identifiers), expected[result.request_id])


def test_a_filter_that_leaves_five_items_returns_those(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    recommender, _ = small
    items = np.random.default_rng(5).choice(len(recommender.catalog), 5, replace=False)
    request = recommender.request("five", [1, 2], 20, 20, allowed_items=ItemSet.of_items(items, len(recommender.catalog)))
    recommender.engine.add(request)
    results = []
    while not results:
        results = recommender.engine.step().finished
    assert sorted(item.item for item in results[0].items) == sorted(items)


def test_ninety_percent_excluded_leaves_the_best_of_the_rest(paper_recommender: Recommender, paper_model: Path) -> None:
    catalog = paper_recommender.catalog
    identifiers = catalog.token_ids(reference_vocabulary(paper_model))
    model = AutoModelForCausalLM.from_pretrained(paper_model).eval()
    allowed = np.random.default_rng(5).random(len(catalog)) < 0.1
    prompt = paper_recommender.prompts.build([1, 2, 3])
    theirs = brute_force_beam(model_scores(model, prompt), identifiers, allowed, k=20, beam_width=60)
    excluded = np.flatnonzero(~allowed).tolist()
    (result,) = paper_recommender.recommend([[1, 2, 3]], k=20, beam_width=60, excluded_items=[excluded])
    assert_same(as_pairs(result, identifiers), theirs)
    assert allowed[[item.item for item in result.items]].all()


def test_cancel_frees_slots_and_leaves_others_alone(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    recommender, _ = small
    engine = recommender.engine
    (alone,) = recommender.recommend([[1, 2]], k=5)
    engine.add(recommender.request("stays", [1, 2], 5))
    engine.add(recommender.request("goes", [3, 4], 5))
    if recommender.catalog.identifier_length > 1:
        engine.step()
    assert engine.cancel("goes")
    assert not engine.cancel("goes")
    results: list[BeamResult] = []
    while engine.running:
        results += engine.step().finished
    assert [item.item for item in results[0].items] == [item.item for item in alone.items]
    assert engine.used_slots == 0
    assert engine.step().tokens == 0


def test_request_ids_must_differ(small: tuple[Recommender, AutoModelForCausalLM]) -> None:
    engine = small[0].engine
    request = BeamRequest("same", np.array([1]), 1, 1)
    engine.add(request)
    with pytest.raises(ValueError, match="already running"):
        engine.add(request)
    engine.cancel("same")
    assert engine.used_slots == 0
