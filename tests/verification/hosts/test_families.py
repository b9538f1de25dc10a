"""Families whose layers ask for more than plain attention: equal to transformers' own constrained `generate`, or refused in a sentence."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from tests.models import random_catalog, save_family_model
from tests.oracles import generate_lists
from tests.verification.engine.test_beam_search import as_pairs, assert_same
from verification.evaluation.generate import PrefixTable
from verification.hosts.attention import Reach
from verification.hosts.checkpoint import HostError, load_config, most_tokens
from verification.hosts.layers import MaskRule, check_options
from verification.recommender import Recommender

CATALOG = random_catalog(items=120, depth=4, codes=6)
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
FULL = ["full_attention"] * 3
WINDOW = {"sliding_window": 7}
# Windows and chunks are shorter than a prompt and longer than an identifier, so that each depth of the tree sees another part of it.
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "soft cap": ("gemma2", {"layer_types": FULL, "attn_logit_softcapping": 2.0}),
    "soft cap and windows": ("gemma2", {**WINDOW, "attn_logit_softcapping": 2.0}),
    "sinks": ("gpt_oss", {**EXPERTS, "layer_types": FULL}),
    "sinks and windows": ("gpt_oss", {**EXPERTS, **WINDOW}),
    "windows in all layers": ("mistral", WINDOW),
    "a window as wide as the path": ("mistral", {"sliding_window": 2}),
    "windows in the last layers": ("qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}),
    "chunks": ("llama4_text", {**EXPERTS, "intermediate_size_mlp": 96, "attention_chunk_size": 6, "attn_temperature_tuning": True}),
    "layers that are told nothing": ("nemotron", {}),
    "heads of two sizes": ("gemma4_text", {"global_head_dim": 32, "layer_types": ["sliding_attention", "full_attention"] * 2, **WINDOW}),
}
LONGROPE = {
    **{"rope_type": "longrope", "rope_theta": 1e4},
    **{"short_factor": [1.0] * 48, "long_factor": [2.0] * 48},
}
REFUSED = [
    ("bert", {}, "attention in both directions"),
    ("qwen3_moe", {"is_causal": False}, r"attention in both directions \(is_causal\)"),
    ("gemma3_text", {"use_bidirectional_attention": True}, r"attention in both directions \(use_bidirectional_attention\)"),
    ("falcon", {}, "attention of its own"),
    ("diffllama", {}, "differential attention"),
    ("doge", {}, "masks of its own"),
    ("mamba", {}, "has no plain attention layers"),
    ("jamba", {}, "recurrent layers"),
    ("recurrent_gemma", {}, "recurrent layers"),
    ("deepseek_v2", {"kv_lora_rank": 8}, "latent attention"),
    ("gemma3", {}, r"only its text model \(gemma3_text\) can be served, saved alone"),
    ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": 16}, "longrope"),
    ("llama4_text", {"attn_temperature_tuning": True, "floor_scale": 16}, "temperature of attention by the length"),
]


@pytest.mark.parametrize("feature", SERVED)
def test_lists_equal_generate(feature: str, tmp_path: Path) -> None:
    family, settings = SERVED[feature]
    if family == "gemma4_text":
        settings = {"num_hidden_layers": 4, "num_kv_shared_layers": 0, "vocab_size_per_layer_input": 64, **settings}
    folder = save_family_model(tmp_path / "model", CATALOG, family, **settings)
    recommender = Recommender.load(folder, CATALOG, kv_memory_gib=0.05, dtype="float32", plan="trie")
    identifiers = recommender.catalog.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab())
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    histories = [np.random.default_rng(length).integers(len(CATALOG), size=length).tolist() for length in (1, 2, 3, 4, 5)]
    results = [*recommender.recommend(histories, 8, 8), *recommender.recommend(histories[-1:], 8, 8)]
    prompts = [recommender.prompts.build(history) for history in [*histories, histories[-1]]]
    recommender.close()
    for result, prompt in zip(results, prompts, strict=True):
        (expected,) = generate_lists(reference, [prompt], PrefixTable(identifiers), 8, CATALOG.identifier_length)
        assert_same(as_pairs(result, identifiers), expected)


def test_a_refusal_names_the_family_and_the_feature_before_weights_are_read(tmp_path: Path) -> None:
    """The weights are those of another model: reading them would be another error."""
    donor = save_family_model(tmp_path / "model", CATALOG, "llama")
    for family, settings, feature in REFUSED:
        config = AutoConfig.for_model(family, **{"max_position_embeddings": 128, "vocab_size": 99, **settings})
        config.save_pretrained(donor)
        with pytest.raises(HostError, match=feature) as refused:
            Recommender.load(donor, CATALOG, kv_memory_gib=0.05)
        assert family in str(refused.value)
        assert "\n" not in str(refused.value)


def test_a_temperature_that_begins_with_long_texts_bounds_them(tmp_path: Path) -> None:
    """transformers would count the tokens of all requests in a forward."""
    config = AutoConfig.for_model("llama4_text", attn_temperature_tuning=True, floor_scale=8192, max_position_embeddings=20_000)
    config.save_pretrained(tmp_path)
    served = load_config(tmp_path)
    assert most_tokens(served) == 8191
    assert not served.attn_temperature_tuning
    config.rope_parameters = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    config.save_pretrained(tmp_path)
    with pytest.raises(HostError, match="temperature of attention by the length"):
        load_config(tmp_path)


@pytest.mark.parametrize(
    ("options", "feature"),
    [
        ({"position_bias": torch.zeros(1)}, "biases by position"),
        ({"is_causal": False}, "attention in both directions"),
        ({"dropout": 0.1}, "dropout"),
        ({"block_indices": torch.zeros(1)}, "'block_indices'"),
        ({"softcap": torch.ones(1)}, "not a number"),
        ({"softcap": -1.0}, "not positive"),
        ({"scaling": torch.ones(4)}, "not a number"),
        ({"s_aux": torch.zeros(3)}, "not one for each head"),
    ],
)
def test_what_is_not_computed_is_refused(options: dict[str, Any], feature: str) -> None:
    query = torch.zeros(1, 4, 3, 8)
    check_options({"scaling": 0.5, "softcap": None, "s_aux": torch.zeros(4), "dropout": 0.0, "is_causal": True, "sliding_window": 9}, query)
    with pytest.raises(HostError, match=feature):
        check_options(options, query)


@pytest.mark.parametrize(
    ("rule", "size", "reach"),
    [
        (lambda q, k: k <= q, None, None),
        (lambda q, k: k <= q, 7, None),
        (lambda q, k: (k <= q) & (k > q - 7), 7, Reach(7)),
        (lambda q, k: (k <= q) & (k // 7 == q // 7), 7, Reach(7, chunked=True)),
        (lambda q, k: k < 99, None, "refused"),
        (lambda q, k: (k <= q) & (k > q - 8), 7, "refused"),
        (lambda q, k: (k <= q) & (k % 2 == 0), None, "refused"),
    ],
)
def test_reach_of_a_mask(rule: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], size: int | None, reach: Reach | str | None) -> None:
    mask = MaskRule(lambda batch, head, query, key: rule(query, key), size)
    if reach == "refused":
        with pytest.raises(HostError, match="neither causal, nor a window, nor chunks"):
            mask.reach(100, torch.device("cpu"))
    else:
        assert mask.reach(100, torch.device("cpu")) == reach
