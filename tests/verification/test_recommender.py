"""Models and catalogs that do not fit together are refused with a sentence."""

import gc
import json
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from drafting.catalog.catalog import CatalogError
from drafting.plans.plan import PlanError
from drafting.prompt import PromptError
from tests.models import random_catalog, save_random_model, save_tokenizer
from verification.hosts.checkpoint import HostError
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender

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


def test_tokenizer_larger_than_the_model(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "small", random_catalog(items=30, depth=2, codes=3), layers=1)
    save_tokenizer(CATALOG, folder)
    with pytest.raises(HostError, match="resize the model's embeddings"):
        load(folder)


def test_prompt_longer_than_the_model_reads(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, layers=1, max_positions=32, max_items=20)
    with pytest.raises(HostError, match="can grow to 43 tokens"):
        load(folder)


def test_sliding_window_attention(model: Path) -> None:
    edit_config(model, model_type="mistral", sliding_window=8)
    with pytest.raises(HostError, match="only models whose layers all use plain attention"):
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
def test_quantizing_needs_a_gpu(model: Path, dtype: str) -> None:
    with pytest.raises(HostError, match="Quantizing weights needs a GPU"):
        load(model, host="vllm", quantization="fp8", dtype=dtype)


def test_memory_for_no_slot(model: Path) -> None:
    with pytest.raises(HostError, match="hold no key/value slot"):
        load(model, kv_memory_gib=1e-7)


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
    plain = list(load(model).recommend([[1, 2], [3]], k=4))
    drafted = list(load(model, draft=model, plan="beam:8").recommend([[1, 2], [3]], k=4))
    assert [[item.item for item in result.items] for result in plain] == [[item.item for item in result.items] for result in drafted]
    assert {result.usage.target_forwards for result in drafted} == {1}
    assert {result.usage.accepted_steps for result in drafted} == {1}
