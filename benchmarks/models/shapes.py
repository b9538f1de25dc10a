"""What the tables of families share: the shape of a tiny model, and fragments of configurations."""

from collections.abc import Mapping
from typing import Any

Settings = Mapping[str, Any]
# Variants by name, of families by transformers' name of their architecture.
Table = Mapping[str, Mapping[str, Settings]]

TOKENS: Settings = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
MULTI_HEAD: Settings = {
    **TOKENS,
    "hidden_size": 128,
    "intermediate_size": 192,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
}
GROUPED: Settings = {**MULTI_HEAD, "num_key_value_heads": 2, "head_dim": 32}

PLAIN: Settings = {}
TIED: Settings = {"tie_word_embeddings": True}
MULTI_QUERY: Settings = {"num_key_value_heads": 1}
EVERY_HEAD: Settings = {"num_key_value_heads": 4}
FULL: Settings = {"layer_types": ["full_attention"] * 3}
# Shorter than most prompts, longer than an identifier.
WINDOW: Settings = {"sliding_window": 32}
# transformers ignores windows of some families unless they are switched on.
SOME_WINDOWS: Settings = {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}
NO_WINDOWS: Settings = {**WINDOW, "use_sliding_window": False, "max_window_layers": 1}
# The same number under all the names that families have for it.
EXPERTS: Settings = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64}
ROUTED: Settings = {**EXPERTS, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1}


def rope(kind: str, **settings: object) -> Settings:
    """A scheme of rotary positions; the factors of those that change at a length are for texts of 32 tokens."""
    return {"rope_parameters": {"rope_type": kind, "rope_theta": 10000.0, **settings}}


LINEAR = rope("linear", factor=4.0)
DYNAMIC = rope("dynamic", factor=4.0, original_max_position_embeddings=32)
YARN = rope("yarn", factor=4.0, original_max_position_embeddings=32)
LLAMA3 = rope("llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=32)
FACTORS = {"short_factor": [1.0 + 0.1 * i for i in range(16)], "long_factor": [1.0 + 0.5 * i for i in range(16)]}
PARTIAL = rope("default", partial_rotary_factor=0.5)
ALL_ROTARY = rope("default", partial_rotary_factor=1.0)
