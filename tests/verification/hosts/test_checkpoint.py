"""Model directories that can't be served: one sentence on both hosts, whatever is in them, and no code of theirs is run."""

import json
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from drafting.errors import SetupError
from tests.drafting.catalog.test_peers import Code
from tests.models import random_catalog, save_random_model
from tests.verification.engine.test_beam_search import HOSTS
from verification.hosts.checkpoint import HostError, load_config, stop_tokens
from verification.hosts.weights import weight_files
from verification.recommender import Recommender

CATALOG = random_catalog(items=30, depth=2, codes=5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_random_model(tmp_path / "model", CATALOG, layers=1)


def as_pickle(model: Path, write: Callable[[dict[str, torch.Tensor], Path], object], name: str = "pytorch_model.bin") -> None:
    """Replace the weights by what `write` makes of them."""
    write(load_file(model / "model.safetensors"), model / name)
    (model / "model.safetensors").unlink()


def served(model: Path, host: str = "transformers") -> dict[int, float]:
    """A list of the model: its items, and their scores."""
    recommender = Recommender.load(model, CATALOG, host=host, dtype="float32", kv_memory_gib=0.01)
    (result,) = recommender.recommend([[1, 2]], 3)
    recommender.close()
    assert len(result.items) >= 3
    return {item.item: item.score for item in result.items}


def refusal(model: Path, host: str = "transformers") -> str:
    with pytest.raises(HostError) as refused:
        Recommender.load(model, CATALOG, host=host, dtype="auto", kv_memory_gib=0.01)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize(
    ("host", "settings", "package"),
    [
        ("transformers", {"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes"),
        ("transformers", {"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "optimum"),
        ("transformers", {"quant_method": "awq", "bits": 4, "group_size": 128}, "gptqmodel"),
        pytest.param("vllm", {"quant_method": "torchao"}, "torchao", marks=HOSTS[1].marks),
    ],
)
def test_a_quantized_model_whose_package_is_missing(model: Path, host: str, settings: dict[str, object], package: str) -> None:
    if find_spec(package):
        pytest.skip(f"{package} is installed")
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}))
    sentence = refusal(model, host)
    method = settings["quant_method"]
    assert sentence.startswith(f"The model in {model} is quantized ({method}), which needs a package that is not installed: ")
    assert package in sentence.split(": ", 1)[1]


@pytest.mark.parametrize("settings", [{"bits": 4}, {"quant_method": 4}, [1], "gptq"])
def test_a_quantization_that_says_nothing(model: Path, settings: object) -> None:
    path = model / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}))
    assert refusal(model).startswith(str(path))


@pytest.mark.parametrize("host", HOSTS)
def test_a_pickle_of_tensors_is_served(model: Path, host: str) -> None:
    expected = served(model)
    as_pickle(model, torch.save)
    assert served(model, host) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_of_code_is_refused_and_not_run(model: Path, tmp_path: Path, zipped: bool) -> None:
    code = {"model.embed_tokens.weight": Code(tmp_path / "it ran")}
    as_pickle(model, lambda _, path: torch.save(code, path) if zipped else path.write_bytes(pickle.dumps(code, protocol=2)))
    assert refusal(model) == (
        f"The weights in {model / 'pytorch_model.bin'} cannot be loaded: the file is damaged or cut off, or a pickle that holds more than "
        "tensors, which is never run; save the model as safetensors."
    )
    assert not (tmp_path / "it ran").exists()


@pytest.mark.parametrize("kept", [0, 100])
def test_a_pickle_that_is_cut_off(model: Path, kept: int) -> None:
    as_pickle(model, torch.save)
    path = model / "pytorch_model.bin"
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(model).startswith(f"The weights in {path} cannot be loaded: the file is damaged or cut off")


def test_a_pickle_of_something_else(model: Path) -> None:
    as_pickle(model, lambda weights, path: torch.save(list(weights.values()), path))
    assert refusal(model).endswith("cannot be loaded: the file holds no table of tensors, but a list.")


def test_a_pickle_that_is_compressed_is_refused(model: Path) -> None:
    """Mapped, as transformers does, its compressed bytes would be the weights."""
    as_pickle(model, torch.save, "plain")
    with zipfile.ZipFile(model / "plain") as plain, zipfile.ZipFile(model / "pytorch_model.bin", "w", zipfile.ZIP_DEFLATED) as packed:
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert refusal(model) == (
        f"The weights in {model / 'pytorch_model.bin'} are compressed, and libraries that map such a file take its compressed bytes for "
        "weights: save the model as safetensors."
    )


def test_a_pickle_beside_safetensors_is_not_looked_at(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"cut off")
    assert load_config(model).model_type == "llama"


@pytest.mark.parametrize("name", ["consolidated.00.pth", "model.bin", "model.gguf"])
def test_weights_under_another_name_are_named(model: Path, name: str) -> None:
    as_pickle(model, torch.save, name)
    assert refusal(model).endswith(f": {name} is of another kind; write the model with transformers' save_pretrained.")


@pytest.mark.parametrize("contents", ["{", "[]", None])
def test_a_generation_configuration_that_is_damaged_names_no_stop_tokens(model: Path, contents: str | None) -> None:
    path = model / "generation_config.json"
    path.write_text('{"eos_token_id": [5, 6]}')
    config = load_config(model)
    config.eos_token_id = 3
    assert stop_tokens(config, model) == {5, 6}
    path.unlink() if contents is None else path.write_text(contents)
    assert stop_tokens(config, model) == {3}


def test_an_adapter_left_beside_a_model(model: Path) -> None:
    """transformers would apply it silently."""
    (model / "adapter_model.safetensors").write_bytes((model / "model.safetensors").read_bytes())
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    with pytest.raises(SetupError) as refused:
        Recommender.load(model, CATALOG, kv_memory_gib=0.01)
    assert str(refused.value) == (
        f"It is not clear which model {model} holds: adapter_config.json says an adapter, but model.safetensors lies beside it. Move one "
        "of them to another directory; an adapter that has been merged is no longer needed."
    )


def rewrite(model: Path, change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], **settings: object) -> None:
    """Write the weights anew as `change` makes them, and settings of the configuration."""
    path = model / "model.safetensors"
    save_file(change(load_file(path)), path, {"format": "pt"})
    config = model / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | settings))


def noise(model: Path, name: str) -> None:
    """An old copy of the weights under another name."""
    weights = load_file(model / "model.safetensors")
    save_file({key: torch.randn_like(weight) for key, weight in weights.items()}, model / name, {"format": "pt"})


@pytest.mark.parametrize("name", ["model_old.safetensors", "consolidated.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("host", HOSTS)
def test_other_weights_beside_the_model(model: Path, host: str, name: str) -> None:
    noise(model, name)
    assert refusal(model, host) == (
        f"It is not clear which weights {model} holds: {name} lies beside model.safetensors, and not every host would leave it out. "
        "Move it to another directory."
    )


def test_other_pickles_beside_the_model(model: Path) -> None:
    as_pickle(model, torch.save)
    torch.save({}, model / "training_args.bin")
    load_config(model)
    assert [path.name for path in weight_files(model)] == ["pytorch_model.bin"]
    torch.save({}, model / "pytorch_model_old.bin")
    assert "pytorch_model_old.bin lies beside pytorch_model.bin" in refusal(model)


def sharded(model: Path, weight_map: Callable[[dict[str, str]], dict[str, str]] = dict) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    names = {key: f"model-0000{1 + ('layers' in key)}-of-00002.safetensors" for key in weights}
    for file in set(names.values()):
        save_file({key: weights[key] for key, name in names.items() if name == file}, model / file, {"format": "pt"})
    (model / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map(names)}))


@pytest.mark.parametrize("host", HOSTS)
def test_shards_are_served_and_nothing_beside_them(model: Path, host: str) -> None:
    sharded(model)
    Recommender.load(model, CATALOG, host=host, dtype="float32", kv_memory_gib=0.01).close()
    save_file({}, model / "consolidated.safetensors")
    assert "consolidated.safetensors lies beside model-00001-of-00002.safetensors" in refusal(model, host)


def test_shards_that_are_not_there_or_not_named(model: Path) -> None:
    noise(model, "spare")
    sharded(model)
    index = model / "model.safetensors.index.json"
    (model / "spare").rename(model / "model.safetensors")
    assert "has its weights twice, in model.safetensors and as model.safetensors.index.json says" in refusal(model)
    (model / "model.safetensors").unlink()
    (second := model / "model-00002-of-00002.safetensors").rename(model / "away")
    assert f"{index.name} names {second.name}, which is not there" in refusal(model)
    index.write_text("{}")
    assert refusal(model) == f"{index} is damaged: it does not say which files hold the weights."
    index.unlink()
    assert "has neither model.safetensors nor model.safetensors.index.json: model-00001" in refusal(model)


def test_a_weight_in_two_shards(model: Path) -> None:
    sharded(model)
    path = model / "model-00001-of-00002.safetensors"
    save_file(load_file(path) | load_file(model / "model-00002-of-00002.safetensors"), path, {"format": "pt"})
    assert "only one of them can be right" in refusal(model)


LIES: dict[str, tuple[Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]], dict[str, object], str]] = {
    "a layer is missing": (
        lambda weights: {name: weight for name, weight in weights.items() if "layers.1.mlp" not in name},
        {},
        "3 are missing, 'model.layers.1.mlp.down_proj.weight' among them.",
    ),
    "the untied head is absent": (
        lambda weights: {name: weight for name, weight in weights.items() if name != "lm_head.weight"},
        {},
        "1 are missing, 'lm_head.weight' among them.",
    ),
    "the file has more layers": (
        dict,
        {"num_hidden_layers": 1},
        "its model has no 'model.layers.1.input_layernorm.weight' and 8 more, and lists would be made without them.",
    ),
    "a bias that the configuration leaves out": (
        lambda weights: weights | {"model.layers.0.self_attn.q_proj.bias": torch.ones(64)},
        {},
        "its model has no 'model.layers.0.self_attn.q_proj.bias', and lists would be made without them.",
    ),
    "prefixed names": (lambda weights: {f"module.{name}": weight for name, weight in weights.items()}, {}, "21 are missing"),
    "another shape": (dict, {"intermediate_size": 96}, "is of shape"),
}


@pytest.mark.parametrize("lie", LIES)
def test_weights_that_are_not_those_of_the_configuration(tmp_path: Path, lie: str) -> None:
    model = save_random_model(tmp_path / "model", CATALOG, layers=2)
    change, settings, reason = LIES[lie]
    rewrite(model, change, **settings)
    sentence = refusal(model)
    assert sentence.startswith(f"The weights in {model} are not those of its config.json: ")
    assert reason in sentence


@pytest.mark.skipif(find_spec("vllm") is None, reason="vLLM is not installed")
@pytest.mark.parametrize("lie", ["a layer is missing", "the untied head is absent", "the file has more layers"])
def test_the_vllm_host_fills_no_weights(tmp_path: Path, lie: str) -> None:
    model = save_random_model(tmp_path / "model", CATALOG, layers=2)
    change, settings, reason = LIES[lie]
    rewrite(model, change, **settings)
    assert refusal(model, "vllm").endswith(reason)


@pytest.mark.parametrize("host", HOSTS)
def test_a_head_of_its_own_beside_a_tie(model: Path, host: str) -> None:
    rewrite(model, dict, tie_word_embeddings=True)
    assert refusal(model, host) == (
        f"{model / 'config.json'} ties 'lm_head.weight' to 'model.embed_tokens.weight', but {model / 'model.safetensors'} holds another "
        'one of its own: set "tie_word_embeddings" to false if the model was trained with it, or remove it.'
    )


@pytest.mark.parametrize("pickled", [False, True])
def test_a_tied_head_that_is_saved_twice_is_served(model: Path, pickled: bool) -> None:
    rewrite(model, lambda weights: {k: w for k, w in weights.items() if k != "lm_head.weight"}, tie_word_embeddings=True)
    expected = served(model)
    rewrite(model, lambda weights: weights | {"lm_head.weight": weights["model.embed_tokens.weight"].clone()})
    if pickled:
        as_pickle(model, torch.save)
    assert served(model) == pytest.approx(expected, abs=1e-4)


def test_a_tie_without_the_embeddings(model: Path) -> None:
    rewrite(model, lambda weights: {k: w for k, w in weights.items() if k != "model.embed_tokens.weight"}, tie_word_embeddings=True)
    assert refusal(model).startswith(f"The weights in {model} lack 'model.embed_tokens.weight', and not every host takes 'lm_head.weight'")


def test_constants_of_older_releases_are_no_weights(model: Path) -> None:
    expected = served(model)
    rewrite(model, lambda weights: weights | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(16)})
    assert served(model) == pytest.approx(expected, abs=1e-4)


def test_names_are_compared_without_accelerate(model: Path) -> None:
    """The library that transformers asks for, and that an installation for serving does not have."""
    code = (
        "import importlib.util as u, sys; find = u.find_spec; "
        "u.find_spec = lambda name, *rest: None if name.startswith('accelerate') else find(name, *rest); "
        "from pathlib import Path; from verification.hosts.weights import check_names; "
        f"check_names(Path({str(model)!r})); print('accelerate' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "False\n", done.stderr
