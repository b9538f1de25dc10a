"""Encoder-decoder targets: lists equal transformers' constrained `generate`, whatever is drafted, cached or beside them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from drafting.alignment.settings import TrainingError
from drafting.beam.rule import MAX_BEAM_WIDTH
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_set import ItemSet
from tests.blending import check_blended
from tests.models import random_catalog, save_random_model
from tests.oracles import brute_force_beam, generate_lists
from tests.speculation import noisy_copy, run
from tests.t5_models import START, save_t5_model
from tests.verification.engine.test_beam_search import as_pairs, assert_same, reference_vocabulary
from verification.blend import Blend
from verification.engine.engine import SpeculativeBeamEngine
from verification.evaluation.generate import PrefixTable
from verification.hosts.checkpoint import HostError, check_no_encoder, load_config
from verification.hosts.encoder_decoder import EncoderDecoderHost
from verification.hosts.encoder_decoder_layers import joined
from verification.hosts.graphs import graphed
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import BeamRequest, Think
from verification.result import BeamResult
from verification.scored import Scored
from verification.teacher import make_teacher

CATALOG = random_catalog(items=300, depth=4, codes=6)
LENGTHS = range(1, 21)
PER_LENGTH = 10
K = 10
GATED = {"feed_forward_proj": "gated-gelu"}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "t5 with a head of its own scale": ("t5", {"scale_decoder_outputs": False}),
    "t5 with fewer layers in its decoder": ("t5", {"num_layers": 3, "num_decoder_layers": 1}),
    "flan-t5": ("t5", GATED),
    "mt5": ("mt5", GATED),
    "umt5, with biases in every layer": ("umt5", GATED),
}
PLANS = ("none", "trie", "beam:12", "beam:40x2", "beam:8+children")


class World:
    """A target with drafts of both kinds, histories of every length, and transformers' list after each of them."""

    def __init__(self, folder: Path) -> None:
        self.target = save_t5_model(folder / "target", CATALOG)
        self.drafts = {
            "t5": noisy_copy(self.target, folder / "t5-draft", 0.1),
            "causal": save_random_model(folder / "draft", CATALOG, layers=1, hidden=16, heads=1),
        }
        self.model: Any = AutoModelForSeq2SeqLM.from_pretrained(self.target).eval()
        rng = np.random.default_rng(3)
        self.histories = [rng.integers(len(CATALOG), size=length).tolist() for length in LENGTHS for _ in range(PER_LENGTH)]
        self.recommender = Recommender.load(self.target, CATALOG, kv_memory_gib=0.02, dtype="float32")
        self.identifiers = self.recommender.catalog.token_ids(reference_vocabulary(self.target))
        self.prompts = [self.recommender.prompts.build(history) for history in self.histories]
        table, depth = PrefixTable(self.identifiers), CATALOG.identifier_length
        self.expected = [
            found
            for start in range(0, len(self.prompts), PER_LENGTH)
            for found in generate_lists(self.model, self.prompts[start : start + PER_LENGTH], table, K, depth)
        ]

    def requests(self) -> list[BeamRequest]:
        return [BeamRequest(str(number), prompt, K, K) for number, prompt in enumerate(self.prompts)]

    def scores(self, prompt: np.ndarray) -> Any:
        """Log-probabilities of the token after each prefix, by plain forwards."""

        def score(prefixes: list[tuple[int, ...]]) -> np.ndarray:
            texts = torch.tensor([[START, *prefix] for prefix in prefixes])
            encoded = torch.from_numpy(prompt[:-1]).expand(len(texts), -1)
            with torch.inference_mode():
                return self.model(input_ids=encoded, decoder_input_ids=texts).logits[:, -1].log_softmax(-1).numpy()

        return score


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    world = World(tmp_path_factory.mktemp("t5"))
    yield world
    world.recommender.close()


def test_blended_lists_are_the_ranking_by_target_and_neighbours(world: World) -> None:
    """The candidates' prefixes are computed by the decoder with its first token."""
    engine = world.recommender.engine
    items = np.random.default_rng(2).permutation(len(CATALOG))[:20]
    blend = Blend.of(engine.trie, items, np.linspace(1, 9, 20), 2.0)
    for prompt in world.prompts[::70]:
        check_blended(engine, BeamRequest("blended", prompt, K, MAX_BEAM_WIDTH, blend=blend))


def test_scores_are_the_decoders(world: World) -> None:
    """The encoder reads the prompt once, for all parts of the candidates."""
    items = np.random.default_rng(2).permutation(len(CATALOG))[:60]
    found = dict(zip((5, 60, 170), world.recommender.score([world.histories[user] for user in (5, 60, 170)], items), strict=True))
    for user, scores in found.items():
        score = world.scores(world.prompts[user])
        steps = [score([tuple(row[:depth]) for row in world.identifiers[items]]) for depth in range(CATALOG.identifier_length)]
        rows = np.arange(len(items))
        expected = sum(log_probs[rows, world.identifiers[items, depth]] for depth, log_probs in enumerate(steps))
        np.testing.assert_allclose(scores, expected, atol=1e-4, rtol=0)
    engine = world.recommender.engine
    engine.add(world.recommender.score_request("parts", world.histories[60], Scored.of(engine.trie, items)))
    finished: tuple[BeamResult, ...] = ()
    while not finished:
        finished = engine.step(20).finished
    assert finished[0].usage.target_forwards > 2
    assert finished[0].scores is not None
    np.testing.assert_allclose(np.frombuffer(finished[0].scores, np.float32), found[60], atol=1e-4)


def test_two_hundred_lists_equal_generate_together_and_alone(world: World) -> None:
    results = list(world.recommender.recommend(world.histories, K, K))
    results += [next(iter(world.recommender.recommend([history], K, K))) for history in world.histories[::11]]
    assert len(world.expected) == 200
    for result, expected in zip(results, world.expected + world.expected[::11], strict=True):
        assert_same(as_pairs(result, world.identifiers), expected)
        assert result.usage.target_forwards == CATALOG.identifier_length


@pytest.mark.parametrize(("draft", "first", "waits"), [("t5", 0, False), ("causal", 1, False), ("t5", 1, True)])
def test_drafts_of_both_kinds_change_no_list(world: World, draft: str, first: int, waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Plans change from step to step, so every tree meets what an earlier plan has left in it; also where reading drafts waits."""
    for module in ("drafting.plans.drafters", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: waits)
    target = world.recommender.engine.target
    host = EncoderDecoderHost if draft == "t5" else TransformersHost
    model = host(world.drafts[draft], slots=target.total_slots)
    engine = SpeculativeBeamEngine(target, world.recommender.engine.trie, model)
    requests = world.requests()[first::2]
    results = run(engine, requests, np.random.default_rng(5), list(map(FixedPlan.parse, PLANS)))
    for request in requests:
        assert_same(as_pairs(results[request.request_id], world.identifiers), world.expected[int(request.request_id)])
    usages = [result.usage for result in results.values()]
    assert any("beam" in usage.plan for usage in usages)
    assert any(usage.accepted_depths for usage in usages)
    assert sum(usage.target_forwards for usage in usages) < CATALOG.identifier_length * len(usages)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_equals_generate(name: str, tmp_path: Path) -> None:
    family, settings = FAMILIES[name]
    folder = save_t5_model(tmp_path / "model", CATALOG, family, max_items=5, **settings)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder, attn_implementation="eager").eval()
    recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.02, dtype="float32", plan="trie")
    identifiers, rng = recommender.catalog.token_ids(reference_vocabulary(folder)), np.random.default_rng(1)
    histories = [rng.integers(len(CATALOG), size=length).tolist() for length in (1, 3, 5)]
    for history, result in zip(histories, recommender.recommend(histories, K, K), strict=True):
        (expected,) = generate_lists(model, [recommender.prompts.build(history)], PrefixTable(identifiers), K, CATALOG.identifier_length)
        assert_same(as_pairs(result, identifiers), expected)
    recommender.close()


def test_projections_are_joined_in_the_same_memory_and_those_of_another_kind_are_left_as_they_are(world: World) -> None:
    own = EncoderDecoderHost(world.target, slots=1)._decoder.block[0].layer[0].SelfAttention
    rows = torch.randn(3, own.q.in_features, generator=torch.Generator().manual_seed(0))
    assert own.k.weight.untyped_storage().data_ptr() == own.joined.weight.untyped_storage().data_ptr()
    torch.testing.assert_close(own.joined(rows), torch.cat([own.q(rows), own.k(rows), own.v(rows)], -1))

    class Quantized(nn.Linear):
        def forward(self, states: Tensor) -> Tensor:
            return super().forward(states).round()

    other = nn.Module()
    for name in "kv":
        other.add_module(name, Quantized(4, 6, bias=False))
    states = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    assert (joined(other, "kv")(states) == torch.cat([other.k(states), other.v(states)], -1)).all()


def test_filters_exclusions_and_wide_beams_equal_brute_force(world: World) -> None:
    recommender, rng = world.recommender, np.random.default_rng(9)
    asked, expected = {}, {}
    for number, (k, width) in enumerate(((1, 1), (5, 5), (3, 8), (10, 10), (20, 40))):
        allowed = rng.random(len(CATALOG)) < 0.3
        excluded = rng.permutation(len(CATALOG))[:100] if number % 2 else np.empty(0, np.int64)
        history = rng.integers(len(CATALOG), size=4).tolist()
        request = recommender.request(str(number), history, k, width, excluded, allowed_items=ItemSet.of(allowed))
        allowed[excluded] = False
        asked[str(number)] = request
        expected[str(number)] = brute_force_beam(world.scores(request.prompt), world.identifiers, allowed, k, width)
    results = run(recommender.engine, list(asked.values()), rng)
    for name, result in results.items():
        assert_same(as_pairs(result, world.identifiers), expected[name])


def test_an_encoded_history_is_read_again_only_by_the_very_same_one(world: World) -> None:
    recommender = world.recommender
    engine = recommender.engine
    engine.forget_histories()
    histories = [[1, 2, 3], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3], [1, 2]]
    cached = []
    for number, history in enumerate(histories):
        engine.add(recommender.request(str(number), history, K, K, cache_key="ann"))
        found = [result for _ in range(CATALOG.identifier_length) for result in engine.step().finished]
        cached.append(found[0].usage.cached_tokens)
        (expected,) = recommender.recommend([history], K, K)
        assert_same(as_pairs(found[0], world.identifiers), as_pairs(expected, world.identifiers))
    assert cached == [0, 3 * CATALOG.identifier_length, 0, 0, 0]
    assert engine.cached_slots == 2 * CATALOG.identifier_length
    engine.forget_histories()
    assert engine.used_slots == engine.cached_slots == 0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_scores_in_half_precision_are_those_of_float32_within_its_rounding(world: World, dtype: str) -> None:
    recommender = Recommender.load(world.target, CATALOG, kv_memory_gib=0.02, dtype=dtype)
    (result,) = recommender.recommend([world.histories[100]], K, K)
    recommender.close()
    score = world.scores(world.prompts[100])
    found = as_pairs(result, world.identifiers)
    assert len({identifier for identifier, _ in found} & {identifier for identifier, _ in world.expected[100]}) >= 7
    for identifier, ours in found:
        theirs = sum(float(score([identifier[:depth]])[0, token]) for depth, token in enumerate(identifier))
        assert ours == pytest.approx(theirs, abs=0.5)


def test_what_can_not_be_served_is_refused_in_a_sentence(world: World, tmp_path: Path) -> None:
    causal, t5 = world.drafts["causal"], world.drafts["t5"]
    with pytest.raises(HostError, match="t5-draft is an encoder-decoder model, which can only draft for a target that is one, too"):
        Recommender.load(causal, CATALOG, draft=t5, plan="beam:10", kv_memory_gib=0.02)
    folder = save_t5_model(tmp_path / "model", CATALOG)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": 2}))
    with pytest.raises(HostError, match=r"begins with 0 by its config\.json, and with 2 by generation_config\.json: make them alike"):
        Recommender.load(folder, CATALOG, kv_memory_gib=0.02)
    (folder / "config.json").write_text(json.dumps(settings | {"decoder_start_token_id": None}))
    with pytest.raises(HostError, match="has no decoder_start_token_id"):
        Recommender.load(folder, CATALOG, kv_memory_gib=0.02)
    AutoConfig.for_model("bart", d_model=16).save_pretrained(folder)
    with pytest.raises(HostError, match=r"\(bart\) is an encoder-decoder model, of which T5, mT5 and umT5 can be served"):
        Recommender.load(folder, CATALOG, kv_memory_gib=0.02)


def test_a_t5_can_not_teach(world: World, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="is an encoder-decoder model, which can't teach: train a smaller T5"):
        make_teacher(world.target, tmp_path, CATALOG, tmp_path / "out")


def test_a_text_before_a_list_is_refused_and_takes_no_slot(world: World) -> None:
    engine = world.recommender.engine
    with pytest.raises(ValueError, match=r"^A model with an encoder can't think before a list: "):
        engine.add(BeamRequest("thinks", world.prompts[0], K, K, think=Think(3, np.array([3]))))
    assert (engine.running, engine.used_slots) == (0, 0)


def test_the_vllm_host_has_no_encoder(world: World) -> None:
    """It asks this of every model, before it loads one."""
    with pytest.raises(HostError, match=r"\(t5\) has an encoder, which needs the transformers host: serve it with --engine transformers"):
        check_no_encoder(load_config(world.target), world.target)


def test_cuda_graphs_are_for_models_without_an_encoder(world: World) -> None:
    with pytest.raises(HostError, match="CUDA graphs are recorded of models without an encoder"):
        graphed(world.recommender.engine.target, 4, 100)
