"""Dense families with grouped-query heads."""

from benchmarks.models.shapes import (
    DYNAMIC,
    EVERY_HEAD,
    FACTORS,
    FULL,
    LINEAR,
    LLAMA3,
    MULTI_QUERY,
    NO_WINDOWS,
    PARTIAL,
    PLAIN,
    SOME_WINDOWS,
    TIED,
    WINDOW,
    YARN,
    Table,
    rope,
)

GEMMA3N = {
    "num_hidden_layers": 4,
    "vocab_size_per_layer_input": 35,
    "hidden_size_per_layer_input": 16,
    "laurel_rank": 8,
    "altup_num_inputs": 2,
    "activation_sparsity_pattern": [0.0] * 4,
    "layer_types": ["full_attention"] * 4,
    "num_kv_shared_layers": 0,
}
GEMMA4 = {
    "num_hidden_layers": 4,
    "layer_types": ["sliding_attention", "full_attention"] * 2,
    "global_head_dim": 32,
    "hidden_size_per_layer_input": 0,
    "num_kv_shared_layers": 0,
    **WINDOW,
}
GRANITE = {"logits_scaling": 4.0, "attention_multiplier": 0.1, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}

# Parts of a multimodal model that texts do not meet.
SMALL_SENSES = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}

DENSE: Table = {
    "apertus": {"plain": PLAIN, "llama3 rope": LLAMA3},
    "arcee": {"plain": PLAIN, "yarn": YARN},
    "bitnet": {"plain": PLAIN, "tied": TIED},
    "cohere": {
        "plain": {"logit_scale": 0.25},
        "tied": {**TIED, "logit_scale": 0.25},
        "query-key norm": {**TIED, "logit_scale": 0.25, "use_qk_norm": True},
        "biases": {**TIED, "attention_bias": True},
    },
    "cohere2": {"windows": WINDOW, "tied windows": {**TIED, **WINDOW}, "full": FULL, "tied": {**FULL, **TIED}},
    "cohere_compass_text": {
        "windows": {
            **WINDOW,
            "rope_parameters": {
                kind: rope("default", mrope_section=[6, 5, 5])["rope_parameters"] for kind in ("sliding_attention", "full_attention")
            },
        }
    },
    "cwm": {"windows": WINDOW, "full": FULL},
    "diffllama": {"plain": PLAIN},
    "doge": {"plain": PLAIN, "short windows": {"keep_window_size": 16}},
    "ernie4_5": {"plain": PLAIN, "tied": TIED, "biases": {"use_bias": True}},
    "exaone4": {"windows": WINDOW, "full": {**FULL, "sliding_window": None}},
    "gemma": {"plain": PLAIN, "tied": TIED, "multi-query": {**TIED, **MULTI_QUERY}},
    "gemma2": {
        "soft caps": {**WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
        "tied soft caps": {**TIED, **WINDOW, "attn_logit_softcapping": 2.0},
        "no caps": {**WINDOW, "attn_logit_softcapping": None, "final_logit_softcapping": None},
        "full": {**FULL, "attn_logit_softcapping": 2.0},
    },
    "gemma3_text": {
        "windows": WINDOW,
        "tied windows": {**TIED, **WINDOW},
        "full": FULL,
        "soft caps": {**WINDOW, "final_logit_softcapping": 5.0},
    },
    "gemma3n_text": {
        "full": GEMMA3N,
        "windows": {**GEMMA3N, **WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
        "shared keys": {**GEMMA3N, "num_kv_shared_layers": 2},
        "sparse": {**GEMMA3N, "activation_sparsity_pattern": [0.5, 0.5, 0.0, 0.0]},
    },
    "gemma4_text": {
        "windows": GEMMA4,
        "two head sizes": {**GEMMA4, "global_head_dim": 64},
        "shared keys": {**GEMMA4, "num_kv_shared_layers": 2},
        "layer inputs": {**GEMMA4, "hidden_size_per_layer_input": 16, "vocab_size_per_layer_input": 35},
    },
    "glm": {"plain": PLAIN, "biases": {"attention_bias": True}, "partial rotary": PARTIAL},
    "glm4": {"plain": PLAIN, "biases": {"attention_bias": True}},
    "granite": {"multipliers": GRANITE, "tied": {**GRANITE, **TIED}, "biases": {**GRANITE, "attention_bias": True, "mlp_bias": True}},
    "granite_swa": {"windows": WINDOW, "full": FULL},
    "helium": {"plain": PLAIN},
    "hrm_text": {"plain": PLAIN},
    "hunyuan_v1_dense": {"plain": PLAIN, "tied": TIED},
    "hyperclovax": {"plain": PLAIN},
    "jais2": {"plain": PLAIN},
    "llama": {
        "plain": PLAIN,
        "every head": EVERY_HEAD,
        "multi-query": MULTI_QUERY,
        "tied": TIED,
        "biases": {**TIED, "attention_bias": True, "mlp_bias": True},
        "wide heads": {"head_dim": 64},
        "llama3 rope": LLAMA3,
        "linear rope": LINEAR,
        "dynamic rope": DYNAMIC,
        "yarn": YARN,
        "longrope": rope("longrope", factor=4.0, original_max_position_embeddings=32, **FACTORS),
    },
    "ministral": {"windows": WINDOW},
    "ministral3": {"plain": PLAIN},
    "mistral": {"plain": {"sliding_window": None}, "windows": WINDOW, "tied": {**TIED, "sliding_window": None}},
    "nanochat": {"plain": PLAIN},
    "nemotron": {"plain": PLAIN, "biases": {"attention_bias": True, "mlp_bias": True}, "partial rotary": PARTIAL},
    "olmo": {"plain": PLAIN, "clipped": {"clip_qkv": 0.8}},
    "olmo2": {"plain": PLAIN},
    "olmo3": {"windows": WINDOW, "full": FULL, "yarn": {**YARN, **WINDOW}},
    "olmo_hybrid": {"plain": PLAIN},
    "phi3": {
        "plain": PLAIN,
        "windows": WINDOW,
        "partial rotary": PARTIAL,
        "longrope": {"original_max_position_embeddings": 32, **rope("longrope", **FACTORS)},
        "short longrope": {"original_max_position_embeddings": 128, **rope("longrope", **FACTORS)},
    },
    "phi4_multimodal": {"plain": {"vision_config": SMALL_SENSES, "audio_config": SMALL_SENSES}},
    "qwen2": {"plain": PLAIN, "tied": TIED, "yarn": YARN, "windows": SOME_WINDOWS, "windows off": NO_WINDOWS},
    "qwen3": {"plain": PLAIN, "tied": TIED, "biases": {"attention_bias": True}, "yarn": YARN, "windows": SOME_WINDOWS},
    "seed_oss": {"plain": PLAIN, "biases": {"attention_bias": True, "attention_out_bias": True, "mlp_bias": True}},
    "smollm3": {
        "plain": {"num_hidden_layers": 4},
        "windows": {**WINDOW, "num_hidden_layers": 4, "use_sliding_window": True},
        "all rotary": {"num_hidden_layers": 4, "no_rope_layers": [1, 1, 1, 1]},
    },
    "starcoder2": {"plain": {"sliding_window": None}, "windows": WINDOW, "tied": {**TIED, "sliding_window": None}},
    "vaultgemma": {
        "soft caps": {**WINDOW, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 5.0},
        "full": {**FULL, "attn_logit_softcapping": 2.0},
    },
}
