"""Logits that are not finite: a request fails by itself, the others get the lists that they get alone, and nothing of it is kept."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from drafting.beam.model import TreeBatch
from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.trie.item_set import ItemSet
from tests.lists import lines
from tests.models import random_catalog, save_random_model
from tests.scoring import scores_of
from tests.speculation import ITEMS, SameModel, Speculation
from tests.verification.engine.test_beam_search import HOSTS
from verification.engine.calibration import measure_costs
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import BeamRequest, ReservedPlaces
from verification.result import BeamResult, StepReport
from verification.scored import Scored

DEPTH = 4
K = 6
RULES = [STRICT, SearchRule(Verification.GUMBEL, seed=1), SearchRule(Verification.RELAXED, seed=1)]
# A token that no identifier has; BOS begins every prompt.
BOS, UNKNOWN = 1, 2
NAN = float("nan")


def damage(source: Path, folder: Path, tokens: list[int], value: float = NAN) -> Path:
    """The model with these tokens' embeddings overwritten."""
    model = AutoModelForCausalLM.from_pretrained(source)
    with torch.no_grad():
        model.get_input_embeddings().weight[tokens] = value
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("damaged")


@pytest.fixture(scope="module")
def pair(folders: Path) -> Speculation:
    return Speculation(folders)


@pytest.fixture(scope="module")
def damaged(pair: Speculation, folders: Path) -> TransformersHost:
    """The target, but for the embedding of `UNKNOWN`."""
    return TransformersHost(damage(folders / "target", folders / "unknown", [UNKNOWN]), slots=pair.target.total_slots)


def prompt(pair: Speculation, history: list[int], *, marked: bool = False) -> np.ndarray:
    """The tokens of a history; a marked one has the unknown token at its end, whose slot is the root's, and twice before."""
    tokens = np.concatenate([[BOS], pair.identifiers[history].reshape(-1)])
    return np.insert(tokens, [1, len(tokens) - 1, len(tokens)], UNKNOWN) if marked else tokens


def requests_of(pair: Speculation, rule: SearchRule = STRICT) -> list[BeamRequest]:
    """Requests of all lengths; every third, the first among them, is about the unknown token."""
    rng = np.random.default_rng(3)
    found = []
    for number in range(18):
        history = rng.integers(ITEMS, size=int(rng.integers(1, 12))).tolist()
        tokens = prompt(pair, history, marked=number % 3 == 0)
        kind = "marked" if number % 3 == 0 else "sound"
        found.append(BeamRequest(f"{kind} {number}", tokens, K, K + number % 4, rng.permutation(ITEMS)[:20], rule))
    return found


def outcomes(engine: SpeculativeBeamEngine, requests: list[BeamRequest], together: int = 5) -> tuple[dict[str, BeamResult], list[str]]:
    """The lists, and the ids of the requests that failed, with so many beginning in each step."""
    waiting, results, failed = list(reversed(requests)), dict[str, BeamResult](), []
    while waiting or engine.running:
        for _ in range(min(together, len(waiting))):
            engine.add(waiting.pop())
        report = engine.step()
        results.update((result.request_id, result) for result in report.finished)
        failed += report.failed
    assert engine.used_slots == 0
    return results, failed


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("plan", ["none", "trie", "beam:20+children"])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
def test_a_request_fails_alone(
    pair: Speculation, damaged: TransformersHost, plan: str, rule: SearchRule, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where levels are verified before those above are read, as on a GPU."""
    for module in ("drafting.device", "drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    requests = requests_of(pair, rule)
    expected = {}
    for request in requests:
        expected |= outcomes(pair.engine(DEPTH, plan), [request])[0]
    engine = SpeculativeBeamEngine(damaged, pair.tries[DEPTH], pair.draft, pair.engine(DEPTH, plan).plan)
    for _ in range(2):
        results, failed = outcomes(engine, requests)
        assert sorted(failed) == sorted(request.request_id for request in requests if UNKNOWN in request.prompt)
        assert len(failed) == 6
        assert sorted(results) == sorted(expected.keys() - set(failed))
        for request_id, result in results.items():
            assert lines(result) == lines(expected[request_id])


@pytest.mark.parametrize("plan", ["none", "trie", "beam:30"])
def test_a_prefix_without_finite_scores_ends_its_request_when_it_is_in_the_beam(pair: Speculation, folders: Path, plan: str) -> None:
    """The beam meets a damaged token at its first level or never; only where it does, there is no list, whatever was drafted beside it."""
    tokens = np.unique(pair.identifiers[:, 0])[::3].tolist()
    model = TransformersHost(damage(folders / "target", folders / f"level {plan}", tokens), slots=pair.target.total_slots)
    rng = np.random.default_rng(0)
    sound = np.flatnonzero(~np.isin(pair.identifiers[:, 0], tokens))
    requests = [BeamRequest(str(number), prompt(pair, rng.permutation(sound)[:4].tolist()), 1, 1) for number in range(40)]
    expected, _ = outcomes(pair.engine(DEPTH), requests)
    engine = SpeculativeBeamEngine(model, pair.tries[DEPTH], pair.draft, pair.engine(DEPTH, plan).plan)
    results, failed = outcomes(engine, requests)
    met = {request_id for request_id, result in expected.items() if pair.identifiers[result.items[0].item, 0] in tokens}
    assert set(failed) == met
    assert 0 < len(met) < len(requests)
    assert {request_id: lines(result) for request_id, result in results.items()} == {
        request_id: lines(result) for request_id, result in expected.items() if request_id not in met
    }


def test_both_searches_of_a_list_with_reserved_places_end(pair: Speculation, damaged: TransformersHost) -> None:
    items = ItemSet.of(np.arange(ITEMS) % 7 == 0)
    requests = [replace(request, reserved=ReservedPlaces(2, items)) for request in requests_of(pair)]
    expected, _ = outcomes(pair.engine(DEPTH), requests)
    results, failed = outcomes(SpeculativeBeamEngine(damaged, pair.tries[DEPTH]), requests)
    assert len(failed) == len(set(failed)) == 6
    assert {request_id: lines(result) for request_id, result in results.items()} == {
        request_id: lines(result) for request_id, result in expected.items() if request_id not in failed
    }


def test_scores_end_with_their_own_request_alone(pair: Speculation, damaged: TransformersHost) -> None:
    """At the root for one whose prompt is about the unknown token; below a damaged prefix for one that has come to it."""
    everything = Scored.of(pair.tries[DEPTH], np.arange(ITEMS))
    requests = [replace(request, k=1, beam_width=1, scored=everything) for request in requests_of(pair)[:6]]
    requests[1:3] = requests_of(pair)[1:3]
    results, failed = outcomes(SpeculativeBeamEngine(damaged, pair.tries[DEPTH]), requests)
    assert sorted(failed) == [request.request_id for request in requests if request.request_id.startswith("marked")]
    expected, _ = outcomes(pair.engine(DEPTH), requests)
    assert [lines(results[request.request_id]) for request in requests[1:3]] == [
        lines(expected[request.request_id]) for request in requests[1:3]
    ]
    for name in (requests[4].request_id, requests[5].request_id):
        np.testing.assert_allclose(scores_of(results[name]), scores_of(expected[name]), atol=1e-4)


def test_nothing_of_a_failed_request_is_kept(pair: Speculation, damaged: TransformersHost) -> None:
    """Neither for its user, nor as the beginning of all prompts; what the user's requests before have left is forgotten, too."""
    shared = prompt(pair, [5])
    engine = SpeculativeBeamEngine(damaged, pair.tries[DEPTH], shared_tokens=shared)
    marked = BeamRequest("marked", np.concatenate([shared, [UNKNOWN], pair.identifiers[7]]), K, K, cache_key="ann")
    assert outcomes(engine, [marked]) == ({}, ["marked"])
    assert engine.cached_slots == 0
    assert engine.tokens_needed(marked) == len(marked.prompt)
    sound = BeamRequest("sound", np.concatenate([shared, pair.identifiers[[8, 9]].reshape(-1)]), K, K, cache_key="ann")
    (first,) = outcomes(engine, [sound])[0].values()
    assert engine.cached_slots == len(sound.prompt) - 1
    longer = replace(sound, prompt=np.concatenate([sound.prompt, [UNKNOWN], pair.identifiers[7]]))
    assert outcomes(engine, [longer]) == ({}, ["sound"])
    assert engine.cached_slots == len(shared)
    (again,) = outcomes(engine, [sound])[0].values()
    assert (first.usage.cached_tokens, again.usage.cached_tokens) == (0, len(shared))
    assert lines(again) == lines(first)


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.verification.value)
def test_a_draft_without_finite_scores_is_dropped_and_costs_no_request(
    pair: Speculation, folders: Path, rule: SearchRule, waits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where this is not read before the target has verified what it drafted."""
    for module in ("drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    draft = TransformersHost(damage(folders / "draft", folders / "damaged draft", [UNKNOWN]), slots=pair.target.total_slots)
    requests = requests_of(pair, rule)
    expected, _ = outcomes(pair.engine(DEPTH, "none"), requests)
    engine = pair.engine(DEPTH, "beam:20", draft)
    reports: list[StepReport] = []
    for request in requests:
        engine.add(request)
    while engine.running:
        reports.append(engine.step())
    assert [report.draft_failed for report in reports] == [True, *[False] * (len(reports) - 1)]
    assert not engine.has_draft
    results = {result.request_id: result for report in reports for result in report.finished}
    assert results.keys() == expected.keys()
    for request_id, result in results.items():
        # A relaxed list may depend on a draft, and where that is read late, it was the one of all others in the step.
        if rule.verification is not Verification.RELAXED or not waits or request_id.startswith("marked"):
            assert lines(result) == lines(expected[request_id])
        assert len(result.items) == len(expected[request_id].items)


def test_a_draft_that_fails_below_a_level_without_finite_scores_is_dropped_once(
    pair: Speculation, folders: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where reading waits, the next level is drafted before anyone knows of the first."""
    for module in ("drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: True)
    draft = TransformersHost(damage(folders / "draft", folders / "failing draft", [UNKNOWN]), slots=pair.target.total_slots)
    calls, score = count(1), draft.score

    def failing(batch: TreeBatch) -> torch.Tensor:
        if next(calls) == 2:
            raise RuntimeError("out of memory")
        return score(batch)

    monkeypatch.setattr(draft, "score", failing)
    request = requests_of(pair)[0]
    assert UNKNOWN in request.prompt
    expected, _ = outcomes(pair.engine(DEPTH, "none"), [request])
    engine = pair.engine(DEPTH, "beam:20", draft)
    results, failed = outcomes(engine, [request])
    assert next(calls) == 3
    assert not engine.has_draft
    assert not failed
    assert lines(results[request.request_id]) == lines(expected[request.request_id])


def test_calibration_of_a_model_without_finite_scores_ends(pair: Speculation, folders: Path) -> None:
    everything = list(range(int(pair.identifiers.max()) + 1))
    model = TransformersHost(damage(folders / "target", folders / "everything", everything), slots=pair.target.total_slots)
    engine = SpeculativeBeamEngine(model, pair.tries[DEPTH], SameModel(model))
    costs = measure_costs(engine, longest_prompt=40)
    assert costs.target.seconds(100) > 0
    assert costs.draft is None
    assert (engine.running, engine.used_slots, engine.cached_slots) == (0, 0, 0)


@pytest.mark.parametrize("host", HOSTS)
def test_a_damaged_item_of_the_catalog(host: str, tmp_path: Path) -> None:
    """The catalog's first item, after which a server warms up, is damaged: the lists of others are as they were."""
    catalog = random_catalog(items=40, depth=3, codes=30)
    sound = save_random_model(tmp_path / "sound", catalog, layers=1, max_items=5)
    reference = Recommender.load(sound, catalog, host="transformers", kv_memory_gib=0.01)
    token = int(reference.engine.trie.token[reference.engine.trie.paths(reference.engine.trie.leaf_of_item[:1])[0, 0]])
    damage(sound, tmp_path / "damaged", [token])
    for name in ("prompt.json", "tokenizer.json", "tokenizer_config.json"):
        (tmp_path / "damaged" / name).write_bytes((sound / name).read_bytes())
    recommender = Recommender.load(tmp_path / "damaged", catalog, host=host, dtype="float32", kv_memory_gib=0.01)
    try:
        others = [item for item in range(1, 40) if catalog.identifier(item)[0] != catalog.identifier(0)[0]]
        # Two prefixes of the first level, so that most lists never meet the damaged one.
        requests = [recommender.request(f"sound {item}", [item], 2, 2) for item in others]
        requests = [recommender.request("first", [0], 2, 2), *requests, recommender.request("last", [others[0], 0], 2, 2)]
        results, failed = outcomes(recommender.engine, requests, together=9)
        assert {"first", "last"} <= set(failed)
        assert len(failed) < len(others) / 2
        expected, _ = outcomes(reference.engine, requests, together=1)
        assert {request_id: lines(result) for request_id, result in results.items()} == {
            request_id: lines(result) for request_id, result in expected.items() if request_id not in failed
        }
    finally:
        recommender.close()
