"""Quantized checkpoints: served with the lists that transformers makes of them, or refused before weights are read."""

import json
from collections.abc import Mapping
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM

from tests.models import random_catalog, save_random_model
from tests.oracles import generate_lists
from tests.verification.engine.test_beam_search import as_pairs, assert_same
from verification.evaluation.generate import PrefixTable
from verification.hosts.checkpoint import HostError, load_tokenizer
from verification.hosts.quantization import PACKAGES, check_quantization, check_quantization_of_vllm
from verification.recommender import Recommender
from verification.result import Precision

CATALOG = random_catalog(items=60, depth=3, codes=6)
HISTORIES = [[1, 2, 3], [7], [5, 9, 11, 30, 31], [40, 2]]
FLOAT8 = {"num_bits": 8, "type": "float", "symmetric": True, "strategy": "channel", "dynamic": False}
TOKENS = FLOAT8 | {"strategy": "token", "dynamic": True}
WHOLE = FLOAT8 | {"strategy": "tensor", "dynamic": True}
BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}
BITSANDBYTES = {"quant_method": "bitsandbytes"}


def torchao(**types: str) -> dict[str, Any]:
    """The settings of a checkpoint that torchao writes, with a configuration of this type for each layer of this name."""
    layers = {name: {"_type": kind, "_version": 2, "_data": {"granularity": [{"_type": "PerTensor"}]}} for name, kind in types.items()}
    scheme = {"_type": "ModuleFqnToConfig", "_version": 1, "_data": {"module_fqn_to_config": layers}}
    return {"quant_method": "torchao", "quant_type": {"default": scheme if len(types) > 1 else next(iter(layers.values()))}}


def compressed(activations: Mapping[str, Any] | None = None, **more: object) -> dict[str, Any]:
    """The settings of a checkpoint that llm-compressor writes, with weights of 8-bit floats."""
    group = {"targets": ["Linear"], "weights": FLOAT8, "input_activations": activations, "output_activations": None}
    settings = {
        "quant_method": "compressed-tensors",
        "format": "float-quantized",
        "quantization_status": "compressed",
        "ignore": ["lm_head"],
    }
    return settings | {"config_groups": {"group_0": group}} | more


def configure(folder: Path, settings: Mapping[str, Any]) -> Path:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"quantization_config": settings}))
    return folder


def save_quantized(folder: Path, settings: Mapping[str, Any], dtype: torch.dtype = torch.float32) -> Path:
    """A random model whose layers have 8-bit weights with a scale for each output, or for each block of a `BLOCKS` checkpoint."""
    save_random_model(folder, CATALOG, hidden=128, dtype=dtype)
    weights = load_file(folder / "model.safetensors")
    for name in [name for name in weights if name.endswith("_proj.weight")]:
        weight = weights[name].float()
        blocks = settings["quant_method"] == "fp8"
        part = weight.unflatten(0, (-1, min(128, len(weight)))).unflatten(2, (-1, 128)) if blocks else weight
        scale = part.abs().amax((1, 3), keepdim=True) / 448 if blocks else part.abs().amax(1, keepdim=True) / 448
        weights[name] = (part / scale).reshape(weight.shape).to(torch.float8_e4m3fn)
        weights[f"{name}_scale_inv" if blocks else f"{name}_scale"] = (
            scale.squeeze().reshape(part.shape[0], -1).to(dtype if not blocks else torch.float32)
        )
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return configure(folder, settings)


@pytest.mark.parametrize("settings", [compressed(), compressed(TOKENS), BLOCKS], ids=["weights", "activations", "blocks"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_lists_are_those_of_transformers(tmp_path: Path, settings: dict[str, Any], dtype: str) -> None:
    """In half precision, too: there the self-check can make no copy in float32 of a quantized model."""
    if settings["quant_method"] == "compressed-tensors":
        pytest.importorskip("compressed_tensors")
    folder = save_quantized(tmp_path / "model", settings, getattr(torch, dtype))
    recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.01)
    assert recommender.precision == Precision(dtype, is_exact=False)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    identifiers = CATALOG.token_ids(load_tokenizer(folder).get_vocab())
    for history in HISTORIES:
        (result,) = recommender.recommend([history], 6, 6)
        (theirs,) = generate_lists(model, [recommender.prompts.build(history)], PrefixTable(identifiers), 6, CATALOG.identifier_length)
        if dtype == "float32":
            assert_same(as_pairs(result, identifiers), theirs)
        else:
            assert max(abs(ours[1] - score[1]) for ours, score in zip(as_pairs(result, identifiers), theirs, strict=True)) < 0.3
    recommender.close()


@pytest.fixture(scope="module")
def unreadable(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose weights can't be read: whoever tries says so."""
    folder = save_random_model(tmp_path_factory.mktemp("unreadable") / "model", CATALOG, layers=1)
    (folder / "model.safetensors").write_bytes(b"no weights")
    return folder


UNSERVED: dict[str, tuple[dict[str, Any], str]] = {
    "hqq": ({"quant_method": "hqq"}, "is quantized (hqq), which is not known to be computed right here: serve it in full precision, or"),
    "8 bits": (BITSANDBYTES | {"load_in_8bit": True}, "(bitsandbytes), which can't be served: in 8 bits its outliers are found among all"),
    "no blocks": (
        {"quant_method": "fp8", "activation_scheme": "static"},
        "(fp8), which can't be served: its quantization_config says no weight",
    ),
    "keys": (
        compressed(kv_cache_scheme=FLOAT8),
        "(compressed-tensors), which can't be served: it quantizes keys and values (kv_cache_scheme)",
    ),
    "whole": (compressed(WHOLE), "(compressed-tensors), which can't be served: its activations are scaled by the whole forward"),
    "torchao": (
        torchao(all="Float8DynamicActivationFloat8WeightConfig"),
        "(torchao), which can't be served: of torchao only what quantizes",
    ),
    "a layer of torchao": (
        torchao(first="Int4WeightOnlyConfig", second="Int8DynamicActivationInt8WeightConfig"),
        "and this is Int8DynamicActivationInt8WeightConfig.",
    ),
    "torchao in words": ({"quant_method": "torchao", "quant_type": "float8dq"}, "and this is float8dq."),
    "unsaid": (compressed(WHOLE | {"strategy": None}), "its activations are scaled by the whole forward"),
}


@pytest.mark.parametrize("host", ["transformers", "vllm"])
@pytest.mark.parametrize("case", UNSERVED)
def test_what_no_host_serves_is_refused_before_weights_are_read(unreadable: Path, host: str, case: str) -> None:
    settings, sentence = UNSERVED[case]
    assert sentence in refusal(configure(unreadable, settings), host)


def refusal(folder: Path, host: str = "transformers", *, precision: torch.dtype = torch.bfloat16, on_cpu: bool = True) -> str:
    config = AutoConfig.from_pretrained(folder)
    of_vllm = partial(check_quantization_of_vllm, precision=precision, on_cpu=on_cpu)
    with pytest.raises(HostError) as refused:
        (check_quantization if host == "transformers" else of_vllm)(config, folder)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.skipif(find_spec("torchao") is not None, reason="torchao is installed")
def test_weights_of_torchao_are_let_through(unreadable: Path) -> None:
    for settings in (torchao(all="Int4WeightOnlyConfig"), torchao(first="Int4WeightOnlyConfig", second="Float8WeightOnlyConfig")):
        assert refusal(configure(unreadable, settings)).endswith("needs a package that is not installed: pip install torchao")


@pytest.mark.parametrize("method", [method for method, packages in PACKAGES.items() if not all(map(find_spec, packages))])
def test_a_package_that_is_missing_is_named(unreadable: Path, method: str) -> None:
    missing = " ".join(package.replace("_", "-") for package in PACKAGES[method] if find_spec(package) is None)
    sentence = f"The model in {unreadable} is quantized ({method}), which needs a package that is not installed: pip install {missing}"
    assert refusal(configure(unreadable, {"quant_method": method})) == sentence
    with pytest.raises(HostError) as refused:
        Recommender.load(unreadable, CATALOG, kv_memory_gib=0.01)
    assert str(refused.value) == sentence


@pytest.mark.parametrize(
    "settings", [{"quant_method": "gptq"}, {"quant_method": "awq"}, BLOCKS, compressed()], ids=lambda each: each["quant_method"]
)
def test_vllm_serves_them_on_a_gpu_in_half_precision_alone(unreadable: Path, settings: dict[str, Any]) -> None:
    if settings["quant_method"] == "compressed-tensors":
        pytest.importorskip("compressed_tensors")
    configure(unreadable, settings)
    where = f"The model in {unreadable} is quantized ({settings['quant_method']}), which vLLM computes "
    assert refusal(unreadable, "vllm") == f"{where}otherwise on a CPU than on a GPU: serve it on a GPU, or with --engine transformers."
    assert refusal(unreadable, "vllm", precision=torch.float32, on_cpu=False).startswith(f"{where}in half precision: serve it with --dtype")
    check_quantization_of_vllm(AutoConfig.from_pretrained(unreadable), unreadable, torch.bfloat16, on_cpu=False)


def test_what_vllm_does_not_know(unreadable: Path) -> None:
    assert refusal(configure(unreadable, {"quant_method": "mxfp4"}), "vllm", on_cpu=False).endswith(
        "can't serve: use --engine transformers."
    )


def test_a_file_that_only_vllm_would_read(tmp_path: Path) -> None:
    folder = save_random_model(tmp_path / "model", CATALOG, layers=1)
    (folder / "hf_quant_config.json").write_text('{"quantization": {"quant_algo": "FP8"}}')
    for host in ("transformers", "vllm"):
        assert refusal(folder, host).startswith(
            f"It is not clear how the model in {folder} is quantized: hf_quant_config.json says something"
        )
