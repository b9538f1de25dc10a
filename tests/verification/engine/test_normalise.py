"""Scores that are normalised over the children of each prefix: lists of `generate` with `renormalize_logits`, and brute force."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig

from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeBatch
from drafting.beam.rule import MAX_BEAM_WIDTH, STRICT, Normalisation, NormaliseName, SearchRule, Verification
from drafting.beam.tree import SequenceState, TokenTree
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.model_files import ModelFiles, ModelFilesError
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from tests.lists import assert_same_list
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, generate_lists, model_scores, over_children
from tests.speculation import COSTS, ITEMS, Speculation, run
from tests.t5_models import save_t5_model
from tests.verification.engine.test_beam_search import HOSTS, as_pairs, assert_same, reference_vocabulary
from tests.verification.engine.test_not_finite import UNKNOWN, damage, outcomes, requests_of
from verification.blend import Blend
from verification.engine.engine import SpeculativeBeamEngine
from verification.evaluation.generate import PrefixTable, generate_beams
from verification.hosts.served_model import ServedModel
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import BeamRequest
from verification.result import BeamResult

DEPTH = 4
PLANS = ("none", "trie", "beam:3", "beam:12", "beam:12x1", "beam:8+children")
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=3, temperature=0.7), SearchRule(Verification.RELAXED, seed=4)]
CHILDREN = Normalisation.CHILDREN


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return random_catalog(items=150, depth=3, codes=9)


@pytest.fixture(scope="module")
def folder(catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that says itself that it is to be searched so."""
    path = save_random_model(tmp_path_factory.mktemp("model") / "target", catalog, layers=1)
    GenerationConfig(renormalize_logits=True).save_pretrained(path)
    return path


def histories_of(items: int) -> list[list[int]]:
    rng = np.random.default_rng(1)
    return [rng.integers(items, size=size).tolist() for size in (1, 4, 4, 9)]


@pytest.mark.parametrize("host", HOSTS)
def test_lists_equal_generate_with_renormalize_logits(host: str, catalog: Catalog, folder: Path) -> None:
    """Together and alone, with every plan; greedily too."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    recommender = Recommender.load(folder, catalog, draft=folder, host=host, kv_memory_gib=0.05)
    histories, table = histories_of(len(catalog)), PrefixTable(identifiers)
    for k in (1, 20):
        prompts = [recommender.prompts.build(history) for history in histories]
        expected = [generate_lists(model, [prompt], table, k, 3, renormalise=True)[0] for prompt in prompts]
        for plan in ("none", "trie", "beam:25", "beam:8+children") if host == "transformers" else ("beam:25",):
            recommender.engine.use_plan(FixedPlan.parse(plan))
            together = recommender.recommend(histories, k, k)
            alone = [next(recommender.recommend([history], k, k)) for history in histories[:1]]
            for found, theirs in zip([*together, *alone], [*expected, *expected[:1]], strict=True):
                assert_same(as_pairs(found, identifiers), theirs)
    (whole,) = generate_lists(model, [prompts[0]], table, 20, 3)
    assert [row for row, _ in whole] != [row for row, _ in expected[0]], "another normaliser makes other lists"
    recommender.close()


@pytest.mark.parametrize("host", HOSTS)
def test_rows_of_a_large_vocabulary_are_projected(host: str, catalog: Catalog, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks of a few tokens, together and drafted, each request normalised as it says; equal to `generate`, also masked by level."""
    for name in ("drafting.beam.continuations._WHOLE", "verification.hosts.head.SUMMED_TOKENS", "verification.hosts.head.SUMMED_ROWS"):
        monkeypatch.setattr(name, 8)
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    recommender = Recommender.load(folder, catalog, draft=folder, host=host, kv_memory_gib=0.05, normalise="level")
    head = recommender.engine.target.score(batch_of_one(recommender)).head
    monkeypatch.setattr(type(head), "logits", None)
    table, history = PrefixTable(identifiers), histories_of(len(catalog))[3]
    plain = recommender.request("level", history, 20, 20)
    requests = [plain, *(replace(plain, request_id=over.value, normalise=over) for over in (Normalisation.VOCABULARY, CHILDREN))]
    arguments: dict[str, dict[str, bool]] = {"level": {"by_level": True}, "vocabulary": {}, "children": {"renormalise": True}}
    for plan in ("none", "trie", "beam:25"):
        recommender.engine.use_plan(FixedPlan.parse(plan))
        lists = {result.request_id: result for result in recommender.search(requests) if isinstance(result, BeamResult)}
        for name, how in arguments.items():
            sequences, scores = generate_beams(model, plain.prompt[None], table, 20, 3, **how)
            theirs = list(zip(map(tuple, sequences.tolist()), scores.tolist(), strict=True))
            assert_same(as_pairs(lists[name], identifiers), theirs)
    recommender.close()


def batch_of_one(recommender: Recommender) -> TreeBatch:
    """A prompt of three tokens."""
    device = recommender.engine.target.device
    tree = TokenTree(recommender.engine.target.total_slots, 3, device)
    slots = np.arange(3)
    tree.add_prompt(*(torch.from_numpy(array).to(device) for array in (slots, slots + 1)))
    return forward_batch(tree, [ForwardPart(SequenceState(slots, slots * 0), slots, 1)])


def test_generate_normalises_over_all_children_where_items_are_left_out(catalog: Catalog, folder: Path) -> None:
    """As a list with exclusions does, against brute force: taking items away changes no score."""
    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    recommender = Recommender.load(folder, catalog, kv_memory_gib=0.05)
    rng = np.random.default_rng(2)
    for history, share in zip(histories_of(len(catalog)), (0.1, 0.5, 0.9, 0.97), strict=True):
        excluded = rng.permutation(len(catalog))[: int(share * len(catalog))].tolist()
        allowed = np.ones(len(catalog), bool)
        allowed[excluded] = False
        prompt = recommender.prompts.build(history)
        score = over_children(model_scores(model, prompt), identifiers)
        by_force = brute_force_beam(score, identifiers, allowed, 4, 4)
        (result,) = recommender.recommend([history], 4, 4, [excluded])
        assert_same(as_pairs(result, identifiers), by_force)
        rest = recommender.request("rest", history, 4, 4, allowed_items=ItemSet.of(allowed))
        (filtered,) = recommender.search([rest])
        assert isinstance(filtered, BeamResult)
        assert_same(as_pairs(filtered, identifiers), as_pairs(result, identifiers))
        if len(by_force) == 4:
            (theirs,) = generate_lists(model, [prompt], PrefixTable(identifiers).without(excluded), 4, 3, renormalise=True)
            assert_same(by_force, theirs)
    recommender.close()


def test_an_encoder_decoder_equals_generate_too(catalog: Catalog, tmp_path: Path) -> None:
    folder = save_t5_model(tmp_path / "t5", catalog)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    identifiers = catalog.token_ids(reference_vocabulary(folder))
    recommender = Recommender.load(folder, catalog, draft=folder, plan="beam:12", kv_memory_gib=0.02, normalise="children")
    histories = histories_of(len(catalog))
    for history, result in zip(histories, recommender.recommend(histories, 8, 8), strict=True):
        (theirs,) = generate_lists(model, [recommender.prompts.build(history)], PrefixTable(identifiers), 8, 3, renormalise=True)
        assert_same(as_pairs(result, identifiers), theirs)
    recommender.close()


def test_a_level_of_only_children_adds_nothing(tmp_path: Path) -> None:
    """Identifiers that end with a token of their own have the scores of those without it, to the last bit."""
    rng = np.random.default_rng(0)
    codes = sorted({tuple(row) for row in rng.integers(12, size=(80, 2)).tolist()})
    short = {f"item-{i}": [f"<a_{a}>", f"<b_{b}>"] for i, (a, b) in enumerate(codes)}
    long = catalog_of({item: [*tokens, f"<c_{item}>"] for item, tokens in short.items()})
    folder = save_random_model(tmp_path / "model", long, layers=1)
    lists = []
    for catalog in (catalog_of(short), long):
        recommender = Recommender.load(folder, catalog, kv_memory_gib=0.02, normalise="children")
        (result,) = recommender.search([BeamRequest("x", np.array([1, 5, 6, 7]), 20, 20)])
        assert isinstance(result, BeamResult)
        lists.append([(recommender.catalog.item_ids[item.item], item.score) for item in result.items])
        recommender.close()
    assert lists[0] == lists[1]
    assert len(lists[0]) == 20


def test_exact_lists_in_half_precision(catalog: Catalog, tmp_path: Path) -> None:
    """The same to the last bit, together, alone and with drafts."""
    folder = save_random_model(tmp_path / "model", catalog, dtype=torch.bfloat16)
    recommender = Recommender.load(folder, catalog, draft=folder, kv_memory_gib=0.05, exact=True, normalise="children")
    histories = histories_of(len(catalog))
    alone = [next(recommender.recommend([history], 10, 20)).items for history in histories]
    for plan in ("none", "trie", "beam:20"):
        recommender.engine.use_plan(FixedPlan.parse(plan))
        assert [result.items for result in recommender.recommend(histories, 10, 20)] == alone
    recommender.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pair")


@pytest.fixture(scope="module")
def pair(folders: Path) -> Speculation:
    return Speculation(folders)


def engine_of(pair: Speculation, plan: str = "none", normalise: Normalisation = CHILDREN) -> SpeculativeBeamEngine:
    return SpeculativeBeamEngine(pair.target, pair.tries[DEPTH], pair.draft, FixedPlan.parse(plan), normalise=normalise)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
def test_every_plan_gives_the_plain_list(pair: Speculation, rule: SearchRule, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where levels are drafted and verified unread, so that some nodes stand for no prefix; samples are those over the vocabulary."""
    requests = pair.requests(12, np.random.default_rng(1), rule)
    plain = run(engine_of(pair), requests, np.random.default_rng(0))
    if rule is not STRICT:
        sampled = run(engine_of(pair, normalise=Normalisation.VOCABULARY), requests, np.random.default_rng(0))
        assert_lists(sampled, plain)
    for module in ("drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    planners = [pair.planner(DEPTH, costs) for costs in COSTS]
    plans = [*planners, *map(FixedPlan.parse, PLANS)] if rule.verification is not Verification.RELAXED else [FixedPlan.parse("none")]
    engine = engine_of(pair)
    results = run(engine, requests, np.random.default_rng(0), plans)
    assert_lists(results, plain)
    assert engine.has_draft
    if rule.verification is not Verification.RELAXED:
        assert sum(result.usage.accepted_steps for result in results.values()) > 3


def assert_lists(results: dict[str, BeamResult], expected: dict[str, BeamResult]) -> None:
    assert results.keys() == expected.keys()
    for name, theirs in expected.items():
        assert_same_list(results[name], theirs)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("plan", ["none", "trie", "beam:20+children"])
def test_a_request_whose_scores_are_not_finite_fails_alone(
    pair: Speculation, folders: Path, plan: str, waits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("drafting.device", "drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    host = TransformersHost(damage(folders / "target", tmp_path, [UNKNOWN]), slots=pair.target.total_slots)
    requests = requests_of(pair)
    engine = SpeculativeBeamEngine(host, pair.tries[DEPTH], pair.draft, FixedPlan.parse(plan), normalise=CHILDREN)
    results, failed = outcomes(engine, requests)
    assert sorted(failed) == sorted(request.request_id for request in requests if UNKNOWN in request.prompt)
    alone, _ = outcomes(engine_of(pair), requests)
    assert_lists(results, {name: alone[name] for name in alone.keys() - set(failed)})


def test_blended_lists_equal_brute_force(pair: Speculation, folders: Path) -> None:
    """Candidates that the beam does not reach are scored alike."""
    model = AutoModelForCausalLM.from_pretrained(folders / "target").eval()
    identifiers, trie, rng = pair.identifiers[:, :DEPTH], pair.tries[DEPTH], np.random.default_rng(4)
    names = [tuple(row) for row in identifiers.tolist()]
    prompt = np.concatenate([[1], pair.identifiers[:3].reshape(-1)])
    score = over_children(model_scores(model, prompt), identifiers)
    totals = dict.fromkeys(names, 0.0)
    for depth in range(DEPTH):
        for name, row in zip(totals, score([name[:depth] for name in totals]), strict=True):
            totals[name] += float(row[name[depth]])
    items = rng.permutation(ITEMS)[:30]
    near = dict(zip(items.tolist(), rng.random(30) + 0.1, strict=True))
    best = {name: max(near[item] for item in near if names[item] == name) for name in {names[item] for item in near}}
    ranking = {name: total + 0.7 * math.log(best.get(name, min(best.values()) / 2)) for name, total in totals.items()}
    blend = Blend.of(trie, items, np.array(list(near.values())), 0.7)
    result = run(engine_of(pair), [BeamRequest("x", prompt, 20, MAX_BEAM_WIDTH, blend=blend)], rng)["x"]
    expected = sorted(ranking, key=lambda name: -ranking[name])[:20]
    assert_same(as_pairs(result, identifiers), [(name, totals[name]) for name in expected])


def test_a_successor_normalises_alike(pair: Speculation) -> None:
    engine = engine_of(pair)
    assert engine.successor(pair.tries[3], FixedPlan.parse("none")).normalise is CHILDREN


@pytest.mark.parametrize(("name", "expected"), [("auto", "children"), ("vocabulary", "vocabulary"), ("children", "children")])
def test_an_option_overrides_what_the_model_says(name: NormaliseName, expected: str, catalog: Catalog, folder: Path) -> None:
    recommender = Recommender.load(folder, catalog, kv_memory_gib=0.02, normalise=name)
    assert recommender.engine.normalise == expected
    recommender.close()


@pytest.mark.parametrize(
    ("adapter", "base", "expected"),
    [
        (None, None, False),
        (None, {"renormalize_logits": True}, True),
        ({}, None, False),
        ({"renormalize_logits": None}, None, False),
        ({"renormalize_logits": True}, {}, True),
        ({"renormalize_logits": False}, {"renormalize_logits": True}, False),
    ],
)
def test_an_adapter_says_it_before_its_base(adapter: dict | None, base: dict | None, expected: bool, tmp_path: Path) -> None:
    files = ModelFiles(tmp_path / "adapter", tmp_path / "base")
    for part, said in ((files.directory, adapter), (files.weights, base)):
        part.mkdir()
        if said is not None:
            (part / "generation_config.json").write_text(json.dumps(said))
    assert files.renormalises is expected


def test_a_damaged_generation_configuration_is_refused_unless_an_option_decides(catalog: Catalog, tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", catalog, layers=1)
    for text, sentence in (
        ("{", r"generation_config\.json is damaged: it is no generation configuration\."),
        ('{"renormalize_logits": "yes"}', r"must say true or false for renormalize_logits, got 'yes'\."),
    ):
        (folder / "generation_config.json").write_text(text)
        with pytest.raises(ModelFilesError, match=sentence):
            Recommender.load(folder, catalog, kv_memory_gib=0.02)
        assert ServedModel(folder).normalisation("vocabulary") is Normalisation.VOCABULARY
