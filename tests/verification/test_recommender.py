"""Models and catalogs that do not fit together are refused with a sentence."""

import gc
import json
import re
import weakref
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2Config, GPT2LMHeadModel

from drafting.beam.rule import SearchRule, Verification
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import CatalogError
from drafting.catalog.loading import load_catalog
from drafting.errors import PromptError
from drafting.plans.fixed_plan import PlanError
from drafting.prompts.user_state import UserEvent, UserState
from tests.lists import lines
from tests.models import random_catalog, save_random_model, save_tokenizer
from tests.t5_models import save_t5_model
from verification.batch import ScoresNotFinite
from verification.hosts.checkpoint import HostError
from verification.hosts.served_model import ServedModel
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender
from verification.request import BeamRequest, PromptTokens
from verification.result import BeamResult

CATALOG = random_catalog(items=30, depth=2, codes=5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_random_model(tmp_path / "model", CATALOG, layers=1)


def edit_config(model: Path, **settings: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


def load(model: Path, **options: object) -> Recommender:
    return Recommender.load(model, CATALOG, **({"kv_memory_gib": 0.01} | options))


def test_no_such_directory(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="does not exist"):
        load(tmp_path / "nothing")


def test_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"has no config\.json"):
        load(tmp_path)


def test_no_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    with pytest.raises(HostError, match="has no weights"):
        load(model)


def test_truncated_weights(model: Path) -> None:
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(HostError, match=r"weights in .* cannot be loaded"):
        load(model)


def test_no_tokenizer(model: Path) -> None:
    for path in model.glob("tokenizer*"):
        path.unlink()
    with pytest.raises(HostError, match="has no tokenizer"):
        load(model)


def test_tokenizer_that_lacks_a_catalog_token(model: Path) -> None:
    save_tokenizer(CATALOG, model, leave_out=("<a_1>",))
    with pytest.raises(CatalogError, match="has no token '<a_1>'"):
        load(model)


def test_codes_that_the_model_calls_otherwise(tmp_path: Path) -> None:
    """TIGER's numbers, which become `<a_3>` unless `--tokens` says otherwise."""
    folder = save_random_model(tmp_path / "model", catalog_of({"x": ["<sid_1_3>"], "y": ["<sid_1_4>"]}), layers=1)
    numbers, tokens = {"x": [3], "y": [4]}, {"x": ["<a_3>"], "y": ["<sid_1_4>"]}
    for index, told in ((numbers, True), (tokens, False)):
        (tmp_path / "index.json").write_text(json.dumps(index))
        with pytest.raises(CatalogError, match="has no token '<a_3>'") as refused:
            ServedModel(folder).fit(load_catalog(tmp_path / "index.json"))
        assert ("convert them to the model's own tokens (`atspeed catalog convert --tokens`)" in str(refused.value)) is told


def test_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "small", random_catalog(items=30, depth=2, codes=3), layers=1)
    save_tokenizer(CATALOG, folder)
    with pytest.raises(HostError, match="has tokens that its model does not know: they reach id 12, and the model has 9 embeddings"):
        load(folder)


def test_prompt_longer_than_the_model_reads(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, layers=1, max_positions=32, max_items=20)
    with pytest.raises(HostError, match="can grow to 43 tokens"):
        load(folder)


def test_layers_of_an_unknown_kind(model: Path) -> None:
    edit_config(model, model_type="qwen3", layer_types=["linear_attention"])
    with pytest.raises(HostError, match=r"\(qwen3\) has layers of a kind that is not known here \(linear_attention\)"):
        load(model)


def test_a_model_that_does_not_say_how_much_it_reads(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "bloom", "hidden_size": 32, "n_head": 2, "vocab_size": 13}))
    with pytest.raises(HostError, match="has no max_position_embeddings"):
        load(model)


def test_weights_of_another_model(model: Path) -> None:
    edit_config(model, num_hidden_layers=2)
    with pytest.raises(HostError, match=r"are not those of its config\.json: \d+ are missing"):
        load(model)


def test_more_memory_than_there_is(model: Path) -> None:
    with pytest.raises(HostError, match="cannot be loaded"):
        load(model, kv_memory_gib=1e9)


def test_a_model_with_other_names_for_its_sizes(tmp_path: Path) -> None:
    """GPT-2 calls its heads and positions differently and knows no rotary embedding."""
    folder = save_random_model(tmp_path / "model", CATALOG)
    for path in folder.glob("*.safetensors"):
        path.unlink()
    settings = GPT2Config(vocab_size=13, n_embd=32, n_layer=1, n_head=2, n_positions=128, bos_token_id=1, eos_token_id=None)
    GPT2LMHeadModel(settings).save_pretrained(folder)
    (result,) = load(folder).recommend([[1, 2]], k=4)
    assert len({item.rank for item in result.items}) == 4


@pytest.mark.parametrize("drafted", [False, True])
def test_a_token_without_an_embedding_is_refused_before_it_spoils_a_step(model: Path, drafted: bool) -> None:
    """The tokenizer has one more than the model, as Gemma 3's has for images."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["<image>"])
    tokenizer.save_pretrained(model)
    recommender = load(model, draft=model if drafted else None, plan="beam:5" if drafted else "none")
    number = tokenizer.get_vocab()["<image>"]
    for wrong, name in ((number, "'<image>'"), (-1, "-1")):
        with pytest.raises(PromptError, match=f"The prompt holds {name}, of which the model, or its draft, has no embedding"):
            recommender.request("refused", PromptTokens(np.array([1, 5, wrong, 2])), 2)
    (result,) = recommender.search([recommender.request("taken", PromptTokens(np.array([1, 5, number - 1])), 2)])
    assert isinstance(result, BeamResult)


def test_a_prompt_longer_than_the_model_was_checked_for_is_refused_before_it_spoils_a_step(model: Path) -> None:
    """It may have been built elsewhere; a model with learnt positions has none of such tokens."""
    recommender = load(model)
    longest = recommender.prompts.max_tokens
    with pytest.raises(PromptError, match=f"has {longest + 1} tokens, and this model's have {longest} at most, as its prompt.json"):
        recommender.request("refused", PromptTokens(np.ones(longest + 1, np.int64)), 2)
    (result,) = recommender.search([recommender.request("taken", PromptTokens(np.ones(longest, np.int64)), 2)])
    assert isinstance(result, BeamResult)


@pytest.mark.parametrize("encodes", [False, True])
def test_a_prompt_of_nothing_is_refused_before_it_spoils_a_step(encodes: bool, tmp_path: Path) -> None:
    """As of a template that lists one kind of events, for a user who has only others; what an encoder reads ends before the last token."""
    folder = save_t5_model(tmp_path / "model", CATALOG) if encodes else save_random_model(tmp_path / "model", CATALOG, layers=1)
    lists = {"template": "{{ behaviours.buy | join }}", "behaviours": {"buy": {}}}
    (folder / "prompt.json").write_text(json.dumps({"format": "jinja", "max_tokens": 40, "add_special_tokens": False} | lists))
    recommender = load(folder)
    for nothing in (UserState([UserEvent(3, "watch")]), PromptTokens(np.zeros(int(encodes), np.int64))):
        with pytest.raises(PromptError, match="The prompt holds nothing for the model to read"):
            recommender.request("refused", nothing, 2)
    (result,) = recommender.search([recommender.request("taken", UserState([UserEvent(3, "buy")]), 2)])
    assert isinstance(result, BeamResult)


@pytest.mark.parametrize("place", ["end", "after", "template"])
def test_a_prompt_file_with_a_token_without_an_embedding_is_refused(model: Path, place: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens(["</think>"])
    tokenizer.save_pretrained(model)
    think = {"end": "<a_2>", "max_tokens": 3}
    fields = {"template": "</think>{history}"} if place == "template" else {"think": think | {place: "</think>"}}
    (model / "prompt.json").write_text(json.dumps({"max_items": 3} | fields))
    with pytest.raises(HostError, match="has tokens that its model does not know: they reach id"):
        load(model)


def test_a_text_holds_no_token_that_the_draft_can_not_read(model: Path, tmp_path: Path) -> None:
    """The target has rows that no token of the tokenizer has, as large models of a family do, and writes anything that it may."""
    draft = save_random_model(tmp_path / "draft", CATALOG, layers=1)
    larger = AutoModelForCausalLM.from_pretrained(model)
    known = larger.config.vocab_size
    larger.resize_token_embeddings(4 * known, mean_resizing=False)
    larger.save_pretrained(model)
    (model / "prompt.json").write_text(json.dumps({"max_items": 3, "think": {"end": "<a_2><b_2><a_2>", "max_tokens": 8}}))
    rule = SearchRule(Verification.GUMBEL, temperature=100.0)
    for options, is_bounded in (({}, False), ({"draft": draft, "plan": "beam:4"}, True)):
        recommender = load(model, **options)
        thoughts = [result.thought for result in recommender.recommend([[1], [2], [3]], 2, rule=rule, think=8)]
        assert (max(max(thought or ()) for thought in thoughts) < known) == is_bounded
        assert recommender.engine.has_draft == is_bounded
        successor = recommender.successor(CATALOG, "next")
        assert (max(max(result.thought or ()) for result in successor.recommend([[1], [2]], 2, rule=rule, think=8)) < known) == is_bounded
        recommender.close()


def test_unknown_host_and_precision(model: Path) -> None:
    with pytest.raises(HostError, match="There is no host 'tensorflow'"):
        load(model, host="tensorflow")
    with pytest.raises(HostError, match="There is no precision 'float8'"):
        load(model, dtype="float8")
    with pytest.raises(HostError, match="needs the vLLM host"):
        load(model, tensor_parallel=2)
    with pytest.raises(HostError, match="quantizing them needs the vLLM host"):
        load(model, quantization="fp8")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU has CUDA graphs")
def test_graphs_need_a_gpu_and_without_one_nothing_stays_loaded(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[TransformersHost] = []
    monkeypatch.setattr(TransformersHost, "close", lambda host: closed.append(host))
    with pytest.raises(HostError, match="CUDA graphs need a GPU"):
        load(model, draft=model, plan="beam:5", graph_requests=4)
    assert len(closed) == 2


@pytest.mark.skipif(find_spec("vllm") is None or torch.cuda.is_available(), reason="needs vLLM on a CPU")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_quantizing_by_vllm_needs_a_gpu(model: Path, dtype: str) -> None:
    with pytest.raises(HostError, match="Quantizing weights to fp8 needs a GPU"):
        load(model, host="vllm", quantization="fp8", dtype=dtype)


def test_memory_for_no_slot(model: Path) -> None:
    with pytest.raises(HostError, match="hold no key/value slot"):
        load(model, kv_memory_gib=1e-7)


@pytest.mark.parametrize("gib", [0.0, -1.0, float("nan"), float("inf")])
def test_memory_of_no_amount(model: Path, gib: float) -> None:
    with pytest.raises(HostError, match=rf"^The memory for keys and values is a positive number of GiB, got {gib}\.$"):
        load(model, kv_memory_gib=gib)


def test_a_recommender_that_loads_serves(model: Path) -> None:
    recommender = load(model)
    histories = [[number % 30] * (number % 25 + 1) for number in range(60)]
    results = list(recommender.recommend(histories, k=4))
    for history, result in zip(histories, results, strict=True):
        (alone,) = recommender.recommend([history], k=4)
        assert [item.item for item in alone.items] == [item.item for item in result.items]
    assert recommender.engine.used_slots == 0


def test_an_error_or_a_caller_who_leaves_frees_everything(model: Path) -> None:
    recommender = load(model)
    with pytest.raises(PromptError, match="history is empty"):
        list(recommender.recommend([[1], []], k=4))
    with pytest.raises(ValueError, match="excludes an item that the catalog of 30 items does not have"):
        list(recommender.recommend([[1], [2]], k=4, excluded_items=[[3], [30]]))
    with pytest.raises(ValueError, match="shorter"):
        list(recommender.recommend([[1], [2]], k=4, excluded_items=[[3]]))
    assert next(recommender.recommend([[number] for number in range(30)] * 3, k=4)).items
    gc.collect()
    assert recommender.engine.used_slots == 0
    assert recommender.engine.running == 0


@pytest.mark.parametrize(
    ("history", "sentence"),
    [
        ([-1], "The history names an item that the catalog of 30 items does not have, index -1."),
        ([1, 30], "The history names an item that the catalog of 30 items does not have, index 30."),
        ([2**70], "The history names an item that the catalog of 30 items does not have, index"),
        (np.array([2**64 - 1], np.uint64), "The history names an item that the catalog of 30 items does not have, index"),
        ([1, 2.0], "The history names 2.0, but items are whole numbers here, catalog indices from 0 to 29"),
        ([1, float("nan")], "The history names nan, but items are whole numbers here"),
        (np.array([1.5]), "The history names 1.5, but items are whole numbers here"),
        ([True, 3], "The history names True, but items are whole numbers here"),
        (np.array([True]), "The history names True, but items are whole numbers here"),
        ([np.bool_(True)], "The history names np.True_, but items are whole numbers here"),
        (["item-3"], "The history names 'item-3', but items are whole numbers here"),
        (["3"], "The history names '3', but items are whole numbers here"),
        ([None], "The history names None, but items are whole numbers here"),
        ("3", "The history names '3', which is not a row of catalog indices."),
        (3, "The history names 3, which is not a row of catalog indices."),
        ({3, 4}, "The history names {3, 4}, which is not a row of catalog indices."),
        (np.array(3), "The history names array(3), which is not a row of catalog indices."),
        (np.array([[1, 2]]), "The history names array([[1, 2]]), which is not a row of catalog indices."),
        (torch.tensor([1, 2]), "The history names tensor([1, 2]), which is not a row of catalog indices."),
        ([torch.tensor(1)], "The history names tensor(1), but items are whole numbers here"),
        (np.array([], np.int64), "The history is empty: a prompt needs at least one item."),
    ],
)
def test_what_is_no_index_of_the_catalog_is_refused_in_a_sentence(model: Path, history: object, sentence: str) -> None:
    recommender = load(model)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
        list(recommender.recommend([[1], history], k=4))
    if np.size(history):
        with pytest.raises(ValueError, match=f"^{re.escape(sentence.replace('The history names', 'The request excludes'))}"):
            list(recommender.recommend([[1]], k=4, excluded_items=[history]))
    assert (recommender.engine.running, recommender.engine.used_slots) == (0, 0)


@pytest.mark.parametrize(("k", "beam_width"), [(2.5, None), ("3", None), (True, None), (0, None), (3, 0), (3, 4.0), (3, False), (4, 3)])
def test_lengths_that_make_no_sense_are_refused_in_a_sentence(model: Path, k: object, beam_width: object) -> None:
    with pytest.raises(ValueError, match=r"are whole numbers, got|must be at least k, got|<= 5000 must hold, got"):
        list(load(model).recommend([[1]], k, beam_width))


def test_integers_of_every_kind_are_indices(model: Path) -> None:
    recommender = load(model)
    (expected,) = recommender.recommend([[3, 14, 15]], 4, excluded_items=[[9, 2]])
    kinds: list[Any] = [
        np.array([3, 14, 15]),
        np.array([3, 14, 15], np.uint8),
        np.array([[3, 14, 15]], np.int32)[0, ::1],
        (3, np.int64(14), np.uint16(15)),
    ]
    for history in kinds:
        (found,) = recommender.recommend([history], np.int64(4), excluded_items=[np.array([9, 2], np.int16)])
        assert lines(found) == lines(expected)
    for found, history in zip(recommender.recommend(np.array([[3, 14, 15], [1, 2, 3]]), 4), ([3, 14, 15], [1, 2, 3]), strict=True):
        (alone,) = recommender.recommend([history], 4)
        assert lines(found) == lines(alone)


def test_a_request_waits_for_what_another_catalog_on_the_same_model_runs(model: Path) -> None:
    """Its slots are taken by lists of the other, whose callers find them later; a catalog that nobody has any more is not kept."""
    recommender = load(model, kv_memory_gib=2e-5)
    successor = recommender.successor(CATALOG, "next")
    histories = [[number, 3, 5, 7, 9] for number in range(20)]
    expected = [lines(found) for found in recommender.recommend([*histories, range(20)], k=4)]
    waiting = recommender.recommend(histories, k=4)
    found = [lines(next(waiting))]
    blocked = successor.request("blocked", range(20), 4)
    assert successor.engine.fits(blocked)
    assert not successor.engine.has_room(blocked)
    (answer,) = successor.search([blocked])
    assert isinstance(answer, BeamResult)
    assert lines(answer) == expected[-1]
    assert found + [lines(each) for each in waiting] == expected[:-1]
    assert (recommender.engine.running, successor.engine.running, recommender.engine.used_slots) == (0, 0, 0)
    gone = weakref.ref(successor.engine)
    del successor
    gc.collect()
    assert gone() is None


def test_threads_share_a_recommender(model: Path) -> None:
    """Each gets the lists that it gets alone, in its order; some leave early, and some make a mistake. No slot stays in use."""
    recommender = load(model, draft=model, plan="beam:8")
    histories = [[(7 * number + step) % 30 for step in range(1 + number % 20)] for number in range(40)]
    expected = [lines(found) for found in load(model).recommend(histories, k=4)]

    def ask(number: int) -> None:
        mine = histories[number:] + histories[:number]
        lists = recommender.recommend(mine, k=4)
        if number % 4 == 1:
            assert [lines(next(lists)) for _ in range(5)] == [*expected[number:], *expected[:number]][:5]
            lists.close()
        elif number % 4 == 2:
            with pytest.raises(ValueError, match="does not have"):
                list(recommender.recommend([*mine[:9], [99]], k=4))
        else:
            assert [lines(found) for found in lists] == expected[number:] + expected[:number]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(12)))
    assert (recommender.engine.running, recommender.engine.used_slots) == (0, 0)


def test_a_list_that_is_given_up_within_a_step_waits_for_no_lock(model: Path) -> None:
    """As the garbage collector may do it, in the thread that makes the step; what comes next takes the slots back."""
    recommender = load(model)
    histories = [[(7 * number + step) % 30 for step in range(1 + number % 20)] for number in range(200)]
    lists = recommender.recommend(histories, k=4)
    assert any(recommender.engine.running for _ in lists)
    with recommender._shared.turns.lock:
        lists.close()
        assert recommender.engine.running > 0
    assert len(list(recommender.recommend(histories[:1], k=4))) == 1
    assert (recommender.engine.running, recommender.engine.used_slots) == (0, 0)


def test_iterations_of_one_thread_share_a_recommender_and_its_successor(model: Path) -> None:
    recommender = load(model)
    successor = recommender.successor(CATALOG, "next")
    histories = [[number] for number in range(30)]
    expected = [lines(found) for found in recommender.recommend(histories, k=4)]
    iterations = [source.recommend(histories, k=4) for source in (recommender, successor, recommender)]
    for *lists, alone in zip(*iterations, expected, strict=True):
        assert list(map(lines, lists)) == [alone] * 3
    assert (recommender.engine.used_slots, successor.engine.running) == (0, 0)


def test_a_list_of_scores_that_are_not_finite_is_an_error_and_never_a_list(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"][load(model).prompts.build([7])[-1]] = float("inf")
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    recommender = load(model)
    sound = [item for item in range(30) if recommender.catalog.identifier(item)[1] != recommender.catalog.identifier(7)[1]]
    with pytest.raises(ScoresNotFinite, match=r"^The model's scores were not finite \(NaN or infinite\), so there is no list"):
        list(recommender.recommend([[sound[0]], [sound[1], 7], [sound[2]]], k=4))
    assert (recommender.engine.running, recommender.engine.used_slots) == (0, 0)
    for found in recommender.recommend([[item] for item in sound], k=4):
        assert np.isfinite([item.score for item in found.items]).all()


def test_draft_of_another_vocabulary(model: Path, tmp_path: Path) -> None:
    draft = save_random_model(tmp_path / "draft", random_catalog(items=30, depth=2, codes=4), layers=1)
    with pytest.raises(HostError, match="has another vocabulary than the target"):
        load(model, draft=draft, plan="beam:5")


def test_draft_of_another_catalog(model: Path, tmp_path: Path) -> None:
    target, draft = tmp_path / "target", tmp_path / "draft"
    for folder, version in ((target, "abc"), (draft, "abd")):
        save_random_model(folder, CATALOG, layers=1)
        (folder / "training.json").write_text(json.dumps({"catalog": {"version": version}}))
    with pytest.raises(HostError, match=r"trained for another catalog \(version abd\)"):
        load(target, draft=draft, plan="beam:5")
    (draft / "training.json").write_text("{}")
    with pytest.raises(HostError, match=r"training.json is damaged"):
        load(target, draft=draft, plan="beam:5")


def test_draft_that_reads_less_than_the_prompt(model: Path, tmp_path: Path) -> None:
    draft = save_random_model(tmp_path / "draft", CATALOG, layers=1, max_positions=32)
    with pytest.raises(HostError, match="can grow to 43 tokens"):
        load(model, draft=draft, plan="beam:5")


@pytest.mark.parametrize(
    ("plan", "message"),
    [("beam", "There is no plan 'beam'"), ("beam:0", "at least one node"), ("beam:4", "needs a draft"), ("beam:4x2", "drafts 2 levels")],
)
def test_bad_plans(model: Path, plan: str, message: str) -> None:
    with pytest.raises(PlanError, match=message):
        load(model, plan=plan)


def test_a_draft_changes_the_cost_and_not_the_list(model: Path) -> None:
    plain = list(load(model).recommend([[1, 2], [3]], 4, 8))
    drafted = list(load(model, draft=model, plan="beam:8").recommend([[1, 2], [3]], k=4))
    assert [[item.item for item in result.items] for result in plain] == [[item.item for item in result.items] for result in drafted]
    assert {result.usage.target_forwards for result in drafted} == {1}
    assert {result.usage.accepted_steps for result in drafted} == {1}


def thinks(model: Path, **think: object) -> None:
    """Let the model write text before a list."""
    prompt = json.loads((model / "prompt.json").read_text())
    (model / "prompt.json").write_text(json.dumps(prompt | {"think": {"end": "<b_0>", "max_tokens": 16, "after": "<a_1><b_2>", **think}}))


def test_text_before_a_list_as_the_prompt_says(model: Path) -> None:
    """It ends by its end, by what `generate` would end at, or where the request says."""
    thinks(model)
    recommender = load(model)
    tokens = recommender._served.vocabulary
    reference = AutoModelForCausalLM.from_pretrained(model).eval()
    for history in ([1], [4, 7], [3, 5, 9]):
        prompt = recommender.prompts.build(history)
        given = torch.tensor(prompt[None])
        written = reference.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=9, do_sample=False)[
            0, len(prompt) :
        ].tolist()
        text = written[: written.index(tokens["<b_0>"])] if tokens["<b_0>"] in written else written
        (result,) = recommender.recommend([history], 4, think=9)
        assert result.thought == tuple(text)
        whole = np.concatenate([prompt, text, [tokens[token] for token in ("<b_0>", "<a_1>", "<b_2>")]])
        recommender.engine.add(BeamRequest("behind", whole, 4, 4))
        while not (behind := recommender.engine.step().finished):
            pass
        assert lines(result) == lines(behind[0])
    recommender.close()
    # The third token that it writes is one that ends a text.
    (model / "generation_config.json").write_text(json.dumps({"eos_token_id": [0, written[2]]}))
    recommender = load(model)
    (result,) = recommender.recommend([history], 4, think=9)
    assert result.thought == tuple(written[: written.index(written[2])])
    assert result.usage.thought_tokens == len(result.thought) + 1
    for wrong in (-1, 17):
        with pytest.raises(ValueError, match=rf"^The text before a list has 1 to 16 tokens, as prompt\.json says, not {wrong}\.$"):
            recommender.request("wrong", history, 4, think=wrong)
    recommender.close()


def test_texts_that_a_model_can_not_write_are_refused_in_a_sentence(model: Path, tmp_path: Path) -> None:
    recommender = load(model)
    with pytest.raises(ValueError, match=r"^This model can't think before a list: its prompt\.json has no field think\.$"):
        recommender.request("thinks", [1], 4, think=5)
    recommender.close()
    thinks(model, max_tokens=250)
    with pytest.raises(
        HostError, match=r"^Prompt, text before the list and identifier can grow to .* lower max_items or think\.max_tokens in"
    ):
        load(model)
    encoder = save_t5_model(tmp_path / "t5", CATALOG)
    thinks(encoder)
    with pytest.raises(HostError, match=r"has an encoder and can't think before a list: leave think out of prompt\.json\.$"):
        load(encoder)


def test_a_request_that_thinks_has_its_own_prompt(model: Path) -> None:
    thinks(model, prompt={"template": "{history}<b_3>", "max_items": 2, "min_items": 2})
    recommender = load(model)
    plain, thinking = (recommender.request("x", [1, 2, 3], 4, think=think).prompt.tolist() for think in (0, 5))
    assert thinking == [plain[0], *plain[3:], recommender._served.vocabulary["<b_3>"]]
    recommender.close()
