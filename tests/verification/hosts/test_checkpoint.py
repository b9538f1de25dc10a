"""Model directories that can't be served: one sentence on both hosts, whatever is in them, and no code of theirs is run."""

import json
import pickle
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.models import random_catalog, save_random_model
from tests.verification.engine.test_beam_search import HOSTS
from verification.hosts.checkpoint import HostError, load_config
from verification.recommender import Recommender

CATALOG = random_catalog(items=30, depth=2, codes=5)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_random_model(tmp_path / "model", CATALOG, layers=1)


class Code:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.path,)


def as_pickle(model: Path, write: Callable[[dict[str, torch.Tensor], Path], object], name: str = "pytorch_model.bin") -> None:
    """Replace the weights by what `write` makes of them."""
    write(load_file(model / "model.safetensors"), model / name)
    (model / "model.safetensors").unlink()


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
    as_pickle(model, torch.save)
    recommender = Recommender.load(model, CATALOG, host=host, dtype="float32", kv_memory_gib=0.01)
    (result,) = recommender.recommend([[1, 2]], 3)
    recommender.close()
    assert len(result.items) >= 3


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


def test_a_pickle_beside_safetensors_is_not_looked_at(model: Path) -> None:
    (model / "pytorch_model.bin").write_bytes(b"cut off")
    assert load_config(model).model_type == "llama"


@pytest.mark.parametrize("name", ["consolidated.00.pth", "model.bin", "model.gguf"])
def test_weights_under_another_name_are_named(model: Path, name: str) -> None:
    as_pickle(model, torch.save, name)
    assert refusal(model).endswith(f": {name} is of another kind; write the model with transformers' save_pretrained.")


@pytest.mark.parametrize("with_config", [True, False])
@pytest.mark.parametrize("with_model", [True, False])
def test_an_adapter(model: Path, with_config: bool, with_model: bool) -> None:
    """Also beside a model: transformers would load the adapter's base instead of it."""
    weights = (model / "model.safetensors").read_bytes()
    (model / "adapter_model.safetensors").write_bytes(weights)
    (model / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "base"}')
    if not with_model:
        (model / "model.safetensors").unlink()
    if not with_config:
        (model / "config.json").unlink()
    assert refusal(model) == (
        "An adapter such as LoRA's is no model that can be served: merge it into its base model (peft's merge_and_unload) and serve the "
        f"merged one; {model} has an adapter_config.json."
    )
