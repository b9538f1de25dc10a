"""Checks of a model's configuration and tokenizer before a host loads it, which takes seconds.

Invariant: mistakes are found here, before any weights are read (those of the weights' files in `weights.py`), and reported in one sentence,
so both hosts accept and refuse the same directories.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from drafting.errors import SetupError
from drafting.model_files import ENCODER_DECODERS, GENERATION_FILE, TOKENIZER_FILES
from drafting.pretrained import LOADING_ERRORS, UnreadableError, read_config, read_tokenizer
from drafting.prompts.tokenizer_files import warn_if_read_otherwise

TRAINING_FILE = "training.json"
PLAIN_ATTENTION = "full_attention"
WINDOWED_ATTENTION = {"sliding_attention", "chunked_attention"}
BIDIRECTIONAL = "use_bidirectional_attention"
# Families for masked words, which transformers also loads with a causal head.
ENCODERS = {
    *("bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert", "roberta"),
    *("roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod"),
}
RECURRENT = "recurrent layers, whose state belongs to one text and not to a tree"
LATENT = "latent attention (MLA)"
# What a family has that tree attention can't compute.
UNSERVED = {
    **dict.fromkeys(("bamba", "falcon_h1", "falcon_mamba", "jamba", "mamba", "mamba2", "nemotron_h", "recurrent_gemma"), RECURRENT),
    **dict.fromkeys(("rwkv", "xlstm", "zamba", "zamba2", "qwen3_next", "qwen3_5_text", "qwen3_5_moe_text", "kimi_linear"), RECURRENT),
    **dict.fromkeys(("deepseek_v2", "deepseek_v3", "deepseek_v4", "minicpm3", "glm4_moe_lite", "youtu", "axk1"), LATENT),
    "diffllama": "differential attention",
    "doge": "masks of its own",
}
# Shorter texts than this would leave no room for histories.
LEAST_TEMPERED = 8192
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HostError(SetupError):
    """A model cannot be hosted; the message is a sentence."""


def load_config(model_dir: Path) -> PretrainedConfig:
    """Check a model directory and return its configuration.

    Raises:
        HostError: the directory or the configuration is missing or damaged, or tree attention does not support the model.
    """
    if not model_dir.is_dir():
        raise HostError(f"The model directory {model_dir} does not exist.")
    if not (model_dir / "config.json").exists():
        raise HostError(f"{model_dir} is not a model directory: it has no config.json.")
    try:
        config = read_config(model_dir)
    except UnreadableError as error:
        raise HostError(f"{model_dir / 'config.json'} is not a model configuration: {error}") from error
    _check_attention(config, model_dir)
    quantization_method(config, model_dir)
    if not has_encoder(config) and not hasattr(config, "max_position_embeddings"):
        raise HostError(f"{model_dir / 'config.json'} does not say how many tokens the model reads: it has no max_position_embeddings.")
    if _is_tempered(config):
        # Up to there the temperature is 1. transformers takes the place of a token in the whole forward for its position.
        config.attn_temperature_tuning = False
        config.max_position_embeddings = min(config.max_position_embeddings, config.floor_scale - 1)
    return config


def has_encoder(config: PretrainedConfig) -> bool:
    """True for an encoder-decoder model."""
    return bool(config.to_dict().get("is_encoder_decoder"))


def start_token(config: PretrainedConfig) -> int | None:
    """The token with which the decoder of an encoder-decoder model begins; None for other models."""
    return int(config.decoder_start_token_id) if has_encoder(config) else None


def stop_tokens(config: PretrainedConfig, weights: Path) -> frozenset[int]:
    """The tokens that end a text, as `generate` has it."""
    stops = config.eos_token_id if (said := _generation(weights).eos_token_id) is None else said
    return frozenset([] if stops is None else [stops] if isinstance(stops, int) else stops)


def _generation(weights: Path) -> GenerationConfig:
    try:
        return GenerationConfig.from_pretrained(weights)
    except LOADING_ERRORS:
        # Whatever else is missing or damaged there is told where it decides something.
        return GenerationConfig()


def most_tokens(config: PretrainedConfig) -> int | None:
    """The most tokens of a text; None where positions are relative, which have no end."""
    return None if has_encoder(config) else int(config.max_position_embeddings)


def model_class(config: PretrainedConfig) -> type[PreTrainedModel] | None:
    """transformers' class of a model with a head for tokens; None if there is none for its family."""
    mapping = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if has_encoder(config) else MODEL_FOR_CAUSAL_LM_MAPPING
    family: type[PreTrainedModel] | None = mapping.get(type(config), None)
    return family


def auto_class(config: PretrainedConfig) -> Any:
    """transformers' class that loads models of this kind."""
    return AutoModelForSeq2SeqLM if has_encoder(config) else AutoModelForCausalLM


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
        raise HostError(
            f"The model directory {model_dir} has no tokenizer: none of {', '.join(TOKENIZER_FILES)} is in it. Save the one that the model "
            "was trained with beside it; for a model that was trained on numbers alone, docs/formats/tiger.md says how to make one."
        )
    try:
        tokenizer = read_tokenizer(model_dir)
    except UnreadableError as error:
        raise HostError(f"The tokenizer of {model_dir} cannot be read: {error}") from error
    warn_if_read_otherwise(tokenizer, model_dir)
    return tokenizer


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


def slot_count(slot_bytes: int, gib: float, fewest: int = 1) -> int:
    """Key/value slots of so many bytes that fit into so much memory.

    Raises:
        HostError: it holds not even `fewest`, or is no amount of memory.
    """
    if not 0 < gib < math.inf:
        raise HostError(f"The memory for keys and values is a positive number of GiB, got {gib}.")
    if (slots := int(gib * 2**30) // slot_bytes) < fewest:
        raise HostError(
            f"{gib} GiB hold no key/value slot of this model: it needs at least {fewest * slot_bytes} bytes; raise --kv-memory-gib."
        )
    return slots


def slot_bytes(config: PretrainedConfig, dtype: torch.dtype) -> int:
    """Bytes of a key/value slot, if all layers have the same heads."""
    settings = config.to_dict()
    heads = settings.get("num_key_value_heads") or config.num_attention_heads
    head_size = settings.get("head_dim") or config.hidden_size // config.num_attention_heads
    return int(config.num_hidden_layers * heads * 2 * head_size * dtype.itemsize)


def rotary_schemes(config: PretrainedConfig, kind: str) -> list[dict[str, Any]]:
    """The settings of rotary positions of a kind: one for all layers, or one for each kind of layer."""
    settings = config.to_dict().get("rope_parameters") or {}
    schemes = [settings, *(scheme for scheme in settings.values() if isinstance(scheme, dict))]
    return [scheme for scheme in schemes if scheme.get("rope_type") == kind]


def rotary_boundary(config: PretrainedConfig) -> int | None:
    """The most tokens of a text whose rotary positions do not depend on its length; None if they never do."""
    boundaries = [scheme.get("original_max_position_embeddings") for scheme in rotary_schemes(config, "longrope")]
    return min((int(boundary) for boundary in boundaries if boundary is not None), default=None)


def refusal(error: Exception, reason: str, config: PretrainedConfig, model_dir: Path) -> HostError:
    """The error of a model that a library can't load, made of its error and the reason that this gives."""
    method = quantization_method(config, model_dir)
    if method is not None and isinstance(error, ImportError):
        return HostError(f"The model in {model_dir} is quantized ({method}), which needs a package that is not installed: {reason}")
    quantized = "" if method is None else f", which is quantized ({method}),"
    return HostError(f"The model in {model_dir}{quantized} cannot be loaded: {reason}")


def lacks_memory(error: Exception) -> bool:
    """True if there was too little memory. On the host, torch's allocator raises what has no class of its own."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def quantization_method(config: PretrainedConfig, model_dir: Path) -> str | None:
    """How the weights are quantized; None if they are not.

    Raises:
        HostError: the configuration does not say it.
    """
    settings = config.to_dict().get("quantization_config")
    if settings is None:
        return None
    if not isinstance(settings, dict) or not isinstance(settings.get("quant_method"), str):
        raise HostError(
            f"{model_dir / 'config.json'} does not say how the model is quantized: its quantization_config has no quant_method."
        )
    return str(settings["quant_method"])


def _check_attention(config: PretrainedConfig, model_dir: Path) -> None:
    """Refuse what is known to need more than tree attention; what a model's layers ask for is found when it is loaded."""
    settings, kind = config.to_dict(), config.model_type
    if settings.get("is_encoder_decoder"):
        if kind not in ENCODER_DECODERS:
            raise HostError(f"The model in {model_dir} ({kind}) is an encoder-decoder model, of which T5, mT5 and umT5 can be served.")
        if (start := settings.get("decoder_start_token_id")) is None:
            raise HostError(f"{model_dir / 'config.json'} does not say how the decoder's text begins: it has no decoder_start_token_id.")
        if (generated := _generation(model_dir).decoder_start_token_id) not in (None, start):
            raise HostError(
                f"The T5 in {model_dir} begins with {start} by its config.json, and with {generated} by {GENERATION_FILE}: make them alike."
            )
        return
    if not hasattr(config, "num_attention_heads"):
        if (text := config.get_text_config()) is not config:
            raise HostError(
                f"The model in {model_dir} ({kind}) reads more than text: only its text model ({text.model_type}) can be served, saved "
                "alone with transformers' save_pretrained."
            )
        raise HostError(f"The model in {model_dir} ({kind}) has no plain attention layers, the only kind that can be served.")
    kinds = set(settings.get("layer_types") or [PLAIN_ATTENTION]) - WINDOWED_ATTENTION - {PLAIN_ATTENTION}
    feature = UNSERVED.get(kind)
    if settings.get("kv_lora_rank"):
        feature = LATENT
    elif kind in ENCODERS and not settings.get("is_decoder"):
        feature = "attention in both directions, for its config.json does not say is_decoder"
    elif (setting := _looking_ahead(config)) is not None:
        feature = f"attention in both directions ({setting})"
    elif _is_tempered(config) and (config.floor_scale < LEAST_TEMPERED or _depends_on_length(config)):
        feature = "a temperature of attention by the length of the text (attn_temperature_tuning)"
    elif kinds:
        feature = f"layers of a kind that is not known here ({min(kinds)})"
    if feature is not None:
        raise HostError(f"The model in {model_dir} ({kind}) has {feature}, which can't be served.")


def _looking_ahead(config: PretrainedConfig) -> str | None:
    """The setting by which tokens attend to later ones, too, as in models that embed texts; None if they do not."""
    settings = config.to_dict()
    # Other families than Gemma's leave it unread.
    if hasattr(type(config), BIDIRECTIONAL) and settings.get(BIDIRECTIONAL) in (True, "all"):
        return BIDIRECTIONAL
    return None if settings.get("is_causal", True) else "is_causal"


def _is_tempered(config: PretrainedConfig) -> bool:
    """True for a Llama 4 whose attention has a temperature that grows at every multiple of `floor_scale` tokens."""
    return config.model_type == "llama4_text" and bool(config.attn_temperature_tuning)


def _depends_on_length(config: PretrainedConfig) -> bool:
    """True if rotary positions are worked out from the most tokens that a model reads."""
    return (config.to_dict().get("rope_parameters") or {}).get("rope_type", "default") not in {"default", "llama3"}


def check_no_encoder(config: PretrainedConfig, model_dir: Path) -> None:
    """Refuse encoders, for hosts that have none.

    Raises:
        HostError: the model has one.
    """
    if has_encoder(config):
        raise HostError(
            f"The model in {model_dir} ({config.model_type}) has an encoder, which needs the transformers host: serve it with "
            "--engine transformers."
        )
