"""Checks of a model directory before a host loads it, which takes seconds.

Invariant: mistakes in a checkpoint are found here, before any weights are read, and reported in one sentence, so both hosts accept and
refuse the same directories.
"""

import json
from pathlib import Path
from typing import Any

import torch
import transformers.utils
from safetensors import SafetensorError, safe_open

# transformers imports scikit-learn and SciPy, which takes seconds, for assisted generation and object detection, which no host does.
transformers.utils.is_sklearn_available = lambda: False
transformers.utils.is_scipy_available = lambda: False

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedTokenizerBase

from drafting.errors import SetupError, first_line

WEIGHTS = ("*.safetensors", "pytorch_model*.bin")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json")
TRAINING_FILE = "training.json"
PLAIN_ATTENTION = "full_attention"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HostError(SetupError):
    """A model cannot be hosted; the message is a sentence."""


def load_config(model_dir: Path) -> PretrainedConfig:
    """Check a model directory and return its configuration.

    Raises:
        HostError: the directory, the configuration or the weights are missing or damaged, or tree attention does not support the model.
    """
    if not model_dir.is_dir():
        raise HostError(f"The model directory {model_dir} does not exist.")
    if not (model_dir / "config.json").exists():
        raise HostError(f"{model_dir} is not a model directory: it has no config.json.")
    _check_weights(model_dir)
    try:
        config = AutoConfig.from_pretrained(model_dir)
    except (ValueError, OSError, KeyError) as error:
        raise HostError(f"{model_dir / 'config.json'} is not a model configuration: {first_line(error)}") from error
    _check_attention(config, model_dir)
    if not hasattr(config, "max_position_embeddings"):
        raise HostError(f"{model_dir / 'config.json'} does not say how many tokens the model reads: it has no max_position_embeddings.")
    return config


def trained_catalog(model_dir: Path) -> str | None:
    """The version of the catalog that `atspeed train` used for a model; None if its directory does not have it."""
    path = model_dir / TRAINING_FILE
    try:
        version = json.loads(path.read_bytes())["catalog"]["version"] if path.exists() else None
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"{path} is damaged: it does not name the catalog that the model was trained for.") from error
    return None if version is None else str(version)


def load_tokenizer(model_dir: Path) -> PreTrainedTokenizerBase:
    """Load the tokenizer of a model directory.

    Raises:
        HostError: the tokenizer is missing or cannot be read.
    """
    if not any((model_dir / name).exists() for name in TOKENIZER_FILES):
        raise HostError(f"The model directory {model_dir} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is in it.")
    try:
        return AutoTokenizer.from_pretrained(model_dir)
    except (ValueError, OSError, KeyError) as error:
        raise HostError(f"The tokenizer of {model_dir} cannot be read: {first_line(error)}") from error


def resolve_dtype(config: PretrainedConfig, name: str) -> torch.dtype:
    """The dtype of a name; for "auto" that of the checkpoint.

    All hosts use this function, because their own defaults differ: vLLM would convert a float32 checkpoint to bfloat16.

    Raises:
        HostError: there is no such dtype.
    """
    if name == "auto":
        return config.dtype or torch.float32
    if name not in DTYPES:
        raise HostError(f"There is no precision {name!r}: choose auto, {', '.join(DTYPES)}.")
    return DTYPES[name]


def _check_weights(model_dir: Path) -> None:
    files = [path for pattern in WEIGHTS for path in model_dir.glob(pattern)]
    if not files:
        raise HostError(f"The model directory {model_dir} has no weights: no .safetensors and no pytorch_model.bin file is in it.")
    for path in files:
        if path.suffix == ".safetensors":
            try:
                safe_open(path, framework="pt")
            except SafetensorError as error:
                raise HostError(f"The weights in {path} cannot be loaded: the file is damaged or cut off ({error}).") from error


def _check_attention(config: PretrainedConfig, model_dir: Path) -> None:
    settings: dict[str, Any] = config.to_dict()
    if settings.get("is_encoder_decoder"):
        raise HostError(f"{model_dir} is an encoder-decoder model: only causal language models can be served.")
    plain = hasattr(config, "num_attention_heads") and not settings.get("kv_lora_rank")
    if not plain:
        raise HostError(f"The model in {model_dir} ({config.model_type}) has no plain attention layers, the only kind that can be served.")
    kinds = set(settings.get("layer_types") or [PLAIN_ATTENTION])
    windowed = settings.get("sliding_window") is not None and settings.get("use_sliding_window", True) and "layer_types" not in settings
    if kinds != {PLAIN_ATTENTION} or windowed:
        raise HostError(
            f"The model in {model_dir} ({config.model_type}) uses sliding-window or other special attention; "
            "only models whose layers all use plain attention can be served."
        )
