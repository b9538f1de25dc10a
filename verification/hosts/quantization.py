"""Quantized checkpoints: which of them a host computes as they were made, decided by the configuration before weights are read.

Invariant: a method that is not listed here is refused. So is a method with scales for a whole forward, because a list would then depend on
the requests beside it. What passes is still compared by the self-check.
"""

import re
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from verification.hosts.checkpoint import HostError, quantization_method

# The packages that transformers needs for a method.
PACKAGES: dict[str, tuple[str, ...]] = {
    "awq": ("gptqmodel",),
    "bitsandbytes": ("bitsandbytes",),
    "compressed-tensors": ("compressed_tensors",),
    "fp8": (),
    "gptq": ("optimum", "gptqmodel"),
    "mxfp4": (),
    "torchao": ("torchao",),
}
# Methods that vLLM needs no package for, and those that it computes with the packages of transformers.
OF_VLLM = ("awq", "fp8", "gptq")
WITH_VLLM = ("bitsandbytes", "compressed-tensors", "torchao")
# What torchao calls configurations that leave activations as they are, or hold others for each layer; older releases wrote words.
OF_WEIGHTS = re.compile(r"WeightOnlyConfig$|^(Module)?FqnToConfig$|weight_only")
# Where releases of ModelOpt say what config.json does not.
MODELOPT_FILE = "hf_quant_config.json"


def check_quantization(config: PretrainedConfig, model_dir: Path) -> None:
    """Refuse a quantized checkpoint that the transformers host can't compute as it was made.

    Raises:
        HostError: it can't; the sentence names the method, and the package that is missing.
    """
    method = _checked_method(config, model_dir)
    if method is not None:
        _check_packages(model_dir, method, PACKAGES[method])


def check_quantization_of_vllm(config: PretrainedConfig, model_dir: Path, precision: torch.dtype, *, on_cpu: bool) -> None:
    """The same for the vLLM host, which serves in a precision.

    Raises:
        HostError: as `check_quantization`.
    """
    method = _checked_method(config, model_dir)
    if method is None:
        return
    where = f"The model in {model_dir} is quantized ({method}), which"
    if method not in OF_VLLM + WITH_VLLM:
        raise HostError(f"{where} the vLLM host can't serve: use --engine transformers.")
    if method in WITH_VLLM:
        _check_packages(model_dir, method, PACKAGES[method])
    if on_cpu:
        raise HostError(f"{where} vLLM computes otherwise on a CPU than on a GPU: serve it on a GPU, or with --engine transformers.")
    if precision == torch.float32:
        raise HostError(
            f"{where} vLLM computes in half precision: serve it with --dtype bfloat16 or float16, or with --engine transformers."
        )


def _checked_method(config: PretrainedConfig, model_dir: Path) -> str | None:
    """The method, one of `PACKAGES`; None if the weights are as they are."""
    method = quantization_method(config, model_dir)
    if method is None:
        if (model_dir / MODELOPT_FILE).exists():
            raise HostError(
                f"It is not clear how the model in {model_dir} is quantized: {MODELOPT_FILE} says something that config.json does not, and "
                "only vLLM would read it. Move it to another directory, or have the model saved with a quantization_config."
            )
        return None
    where = f"The model in {model_dir} is quantized ({method}), which"
    if method not in PACKAGES:
        raise HostError(
            f"{where} is not known to be computed right here: serve it in full precision, or quantized by {', '.join(PACKAGES)}."
        )
    if (reason := _wrong(method, config.to_dict()["quantization_config"])) is not None:
        raise HostError(f"{where} can't be served: {reason}.")
    return method


def _wrong(method: str, settings: Mapping[str, Any]) -> str | None:
    """Why lists of a checkpoint would be wrong, as the end of a sentence; None if they would not."""
    if method == "bitsandbytes" and settings.get("load_in_8bit"):
        return "in 8 bits its outliers are found among all requests of a forward, so a list would depend on the others"
    if method == "fp8" and not settings.get("weight_block_size"):
        return "its quantization_config says no weight_block_size, and hosts take different ones for granted"
    if method == "compressed-tensors" and settings.get("kv_cache_scheme"):
        return "it quantizes keys and values (kv_cache_scheme), which tree attention does not"
    if method == "torchao" and (others := [name for name in _torchao_names(settings.get("quant_type")) if not OF_WEIGHTS.search(name)]):
        return f"of torchao only what quantizes weights alone is known to make a list of its request alone, and this is {others[0]}"
    if any(scheme.get("dynamic") and scheme.get("strategy") in (None, "tensor") for scheme in _activations(settings)):
        return "its activations are scaled by the whole forward (strategy tensor), so a list would depend on the other requests"
    return None


def _torchao_names(scheme: Any) -> Iterator[str]:
    """The configurations of torchao that a checkpoint's scheme names, for the whole model or for each of its layers."""
    if isinstance(scheme, str):
        yield scheme
    elif isinstance(scheme, Mapping):
        name = scheme.get("_type")
        if isinstance(name, str) and name.endswith("Config"):
            yield name
        for part in scheme.values():
            if isinstance(part, Mapping):
                yield from _torchao_names(part)


def _activations(settings: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """How compressed-tensors quantizes what goes into layers and what comes out."""
    groups = settings.get("config_groups")
    for group in groups.values() if isinstance(groups, Mapping) else ():
        for side in ("input_activations", "output_activations"):
            if isinstance(group, Mapping) and isinstance(scheme := group.get(side), Mapping):
                yield scheme


def _check_packages(model_dir: Path, method: str, packages: tuple[str, ...]) -> None:
    missing = [package.replace("_", "-") for package in packages if find_spec(package) is None]
    if missing:
        install = f"pip install {' '.join(missing)}"
        raise HostError(f"The model in {model_dir} is quantized ({method}), which needs a package that is not installed: {install}")
