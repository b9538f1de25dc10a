"""Families that vLLM's own code computes otherwise than transformers, with which settings, and what vLLM is told in place of settings.

Invariant: it is decided by the configuration, before weights are read, because the self-check, which found these in small models, leaves
out large ones. A family of this list runs in transformers' code with vLLM's layers, or is refused where that is not right either.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from transformers import PretrainedConfig

from verification.hosts.checkpoint import HostError, model_class, rotary_schemes

Settings = Mapping[str, Any]


def _always(settings: Settings) -> bool:
    return True


def _own_head(settings: Settings) -> bool:
    """vLLM leaves a head out, and takes the embeddings in its place."""
    return not settings.get("tie_word_embeddings", True)


def _no_rotation(settings: Settings) -> bool:
    """Without layers of windows, vLLM rotates positions in all layers, and transformers in none if there is a size of a window."""
    return settings.get("sliding_window") is not None and "sliding_attention" not in (settings.get("layer_types") or ())


def _differs(settings: Settings, written: Settings) -> bool:
    return any(settings.get(name, value) != value for name, value in written.items())


# Settings of gpt-oss that are written into vLLM's own code, whatever the configuration says.
GPT_OSS: Settings = {"attention_bias": True, "rms_norm_eps": 1e-5}
# Those of its experts are written into what vLLM puts in their place in transformers' code, too.
GPT_OSS_EXPERTS: Settings = {"swiglu_alpha": 1.702, "swiglu_limit": 7.0}
# Families that neither code of vLLM is known to compute right, what the sentence says of their settings, and with which they are wrong.
WRONG: dict[str, tuple[str, Callable[[Settings], bool]]] = {
    **dict.fromkeys(("cohere_compass_text", "jetmoe", "lfm2_moe"), ("", _always)),
    "cohere2_moe": (" with a head of its own", _own_head),
    "gpt2": (" without scale_attn_weights", lambda settings: not settings.get("scale_attn_weights", True)),
    "gpt_oss": (" with another swiglu_alpha or swiglu_limit", lambda settings: _differs(settings, GPT_OSS_EXPERTS)),
    "olmoe": (" with clip_qkv", lambda settings: settings.get("clip_qkv") is not None),
    "qwen2_moe": (" without qkv_bias", lambda settings: not settings.get("qkv_bias", True)),
}
# Families that vLLM's own code computes otherwise, but not transformers' code with vLLM's layers.
UNLIKE: dict[str, Callable[[Settings], bool]] = {
    **dict.fromkeys(("apertus", "ernie4_5_moe"), _always),
    **dict.fromkeys(("cohere", "cohere2"), _own_head),
    **dict.fromkeys(("exaone4", "exaone_moe"), _no_rotation),
    "ernie4_5": lambda settings: bool(settings.get("use_bias")),
    "gpt_oss": lambda settings: _differs(settings, GPT_OSS),
    "olmoe": lambda settings: bool(settings.get("norm_topk_prob")) or settings.get("rms_norm_eps", 1e-5) != 1e-5,
}
# Families that have the biases of `attention_bias` in vLLM's own code, too; others leave some of them out in silence.
HAVE_BIASES = {"arcee", "gemma2", "glm", "glm4", "glm4_moe", "gpt_neox", "gpt_oss", "granite", "jais2", "llama", "nemotron", "seed_oss"}


def _lacks_biases(config: PretrainedConfig, settings: Settings) -> bool:
    return bool(settings.get("attention_bias")) and config.model_type not in HAVE_BIASES


def _scales_logits(settings: Settings) -> bool:
    """Behind transformers' code, vLLM's head leaves this factor out: it knows `logit_scale` alone."""
    return bool(settings.get("logits_scaling", 1) != 1)


def check_family(config: PretrainedConfig) -> None:
    """Refuse a model that vLLM computes otherwise than transformers, whatever code it runs.

    Raises:
        HostError: it does; the sentence names the type and the setting.
    """
    settings = config.to_dict()
    with_setting, is_wrong = WRONG.get(config.model_type, ("", lambda settings: False))
    if _lacks_biases(config, settings) and _scales_logits(settings):
        with_setting, is_wrong = " with attention_bias and logits_scaling", _always
    if is_wrong(settings):
        raise HostError(
            f"vLLM computes models of type {config.model_type}{with_setting} otherwise than transformers: use --engine transformers."
        )


def _lacks_temperature(settings: Settings, longest: int) -> bool:
    """vLLM's own code knows a temperature of attention that grows by position, 1 up to some number of tokens, by another name."""
    rotary = settings.get("rope_parameters") or {}
    return bool(rotary.get("llama_4_scaling_beta")) and longest > (rotary.get("original_max_position_embeddings") or 0)


def _lacks_positions(config: PretrainedConfig, longest: int) -> bool:
    """vLLM's own code has a table of YaRN's positions, which ends at a multiple of the original length, and reads on behind it."""
    tables = [
        (scheme.get("factor") or math.inf) * (scheme.get("original_max_position_embeddings") or math.inf)
        for scheme in rotary_schemes(config, "yarn")
    ]
    return bool(longest > min(tables, default=math.inf))


def _turns_otherwise(config: PretrainedConfig) -> bool:
    """vLLM's own code scales longrope's positions by the ratio of lengths or `short_mscale`, and leaves unread what transformers reads."""
    return any(
        scheme.get("attention_factor") is not None
        or scheme.get("short_mscale") is not None
        or scheme.get("factor") not in (None, config.max_position_embeddings / scheme["original_max_position_embeddings"])
        for scheme in rotary_schemes(config, "longrope")
    )


def implementations(config: PretrainedConfig, longest: int) -> tuple[str, ...]:
    """The values of vLLM's `model_impl` to try in turn: vLLM's own code ("auto"), then its layers in transformers' code.

    Args:
        longest: maximum number of tokens of a sequence.

    Raises:
        HostError: only transformers' code computes positions of texts of this length, and only vLLM's own the model's logits.
    """
    kind, settings = config.model_type, config.to_dict()
    is_misplaced = _lacks_temperature(settings, longest) or _lacks_positions(config, longest) or _turns_otherwise(config)
    if is_misplaced and _scales_logits(settings):
        raise HostError(
            f"vLLM computes models of type {kind} with logits_scaling otherwise than transformers where texts have up to {longest} tokens: "
            "use --engine transformers."
        )
    if is_misplaced or _lacks_biases(config, settings) or (kind in UNLIKE and UNLIKE[kind](settings)):
        return ("transformers",)
    return ("auto",) if _scales_logits(settings) else ("auto", "transformers")


def overrides(config: PretrainedConfig) -> dict[str, Any]:
    """Settings that vLLM is to take in place of those in `config.json`."""
    told: dict[str, Any] = {}
    if (family := model_class(config)) is not None:
        # vLLM goes by the class that the file names, transformers by the model's type. Another class leaves out biases in silence.
        told["architectures"] = [family.__name__]
    if hasattr(config, "max_window_layers"):
        # With windows in other layers than all, some families of vLLM don't start.
        told["max_window_layers"] = config.num_hidden_layers
    return told
