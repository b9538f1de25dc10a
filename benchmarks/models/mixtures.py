"""Families with a mixture of experts, and with layers of unlike kinds."""

from benchmarks.models.shapes import EXPERTS, FULL, ROUTED, SOME_WINDOWS, TIED, WINDOW, YARN, Table, rope

LLAMA4 = {
    "num_local_experts": 4,
    "num_experts_per_tok": 1,
    "intermediate_size_mlp": 192,
    "num_hidden_layers": 4,
    "attn_temperature_tuning": False,
}
FIRST_DENSE = {**ROUTED, "first_k_dense_replace": 1}
QWEN2_MOE = {**EXPERTS, "shared_expert_intermediate_size": 64}
GRANITE = {**EXPERTS, "logits_scaling": 2.0, "attention_multiplier": 0.1}
HYBRID = {**GRANITE, "shared_intermediate_size": 64, "mamba_n_heads": 8, "mamba_d_head": 32, "mamba_d_state": 16}
MIMO = {**ROUTED, "v_head_dim": 32, "swa_head_dim": 32, "swa_v_head_dim": 32}
YARN_OF_GPT_OSS = rope("yarn", factor=4.0, original_max_position_embeddings=32, beta_fast=32.0, beta_slow=1.0, truncate=False)

MIXTURES: Table = {
    "afmoe": {"full": {**EXPERTS, **FULL, "num_shared_experts": 1, "num_dense_layers": 1}, "windows": {**EXPERTS, **WINDOW}},
    "aria_text": {"plain": {"moe_num_experts": 4, "moe_topk": 2, "moe_num_shared_experts": 1}},
    "cohere2_moe": {"full": {**EXPERTS, **FULL}, "windows": {**EXPERTS, **WINDOW}},
    "dots1": {"plain": FIRST_DENSE, "windows": {**FIRST_DENSE, **WINDOW, "max_window_layers": 1}},
    "ernie4_5_moe": {
        "plain": {**EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
        "tied": {**TIED, **EXPERTS, "moe_num_experts": 4, "moe_k": 2, "moe_num_shared_experts": 1},
    },
    "exaone_moe": {"full": {**FIRST_DENSE, **FULL, "num_shared_experts": 1}, "windows": {**FIRST_DENSE, **WINDOW, "num_shared_experts": 1}},
    "flex_olmo": {"plain": EXPERTS},
    "glm4_moe": {
        "plain": FIRST_DENSE,
        "query-key norm": {**FIRST_DENSE, "use_qk_norm": True},
        "biases": {**FIRST_DENSE, "attention_bias": True},
    },
    "gpt_oss": {
        "windows": {**EXPERTS, **WINDOW},
        "full": {**EXPERTS, **FULL},
        "yarn": {**EXPERTS, **WINDOW, **YARN_OF_GPT_OSS},
        "default rope": {**EXPERTS, **FULL, **rope("default")},
    },
    "granitemoe": {"plain": GRANITE, "tied": {**GRANITE, **TIED}},
    "granitemoe_swa": {"full": {**GRANITE, **FULL}, "windows": {**GRANITE, **WINDOW}},
    "granitemoehybrid": {
        "full": {**HYBRID, **FULL},
        "recurrent": {**HYBRID, "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    },
    "granitemoeshared": {"plain": {**GRANITE, "shared_intermediate_size": 64}},
    "hunyuan_v1_moe": {"plain": {"num_experts": 4, "moe_topk": 2}},
    "hy_v3": {"plain": {**EXPERTS, "first_k_dense_replace": 1}},
    "hy_v4": {"plain": {**EXPERTS, "first_k_dense_replace": 1}},
    "jamba": {
        "plain": {
            **EXPERTS,
            "num_hidden_layers": 4,
            "mamba_d_state": 8,
            "mamba_dt_rank": 8,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "use_mamba_kernels": False,
        }
    },
    "laguna": {"plain": EXPERTS},
    "lfm2": {
        "full": FULL,
        "convolutions": {"layer_types": ["conv", "full_attention", "conv"]},
    },
    "lfm2_moe": {
        "full": {**EXPERTS, **FULL, "num_dense_layers": 1},
        "convolutions": {**EXPERTS, "num_dense_layers": 1, "layer_types": ["conv", "full_attention", "conv"]},
    },
    "llama4_text": {
        "chunks": {**LLAMA4, "attention_chunk_size": 32},
        "full": {**LLAMA4, "layer_types": ["full_attention"] * 4},
        "no norms": {**LLAMA4, "attention_chunk_size": 32, "use_qk_norm": False},
        "dense": {**LLAMA4, "attention_chunk_size": 32, "moe_layers": []},
        "temperature": {**LLAMA4, "attention_chunk_size": 32, "attn_temperature_tuning": True, "floor_scale": 16},
    },
    "mellum": {"plain": EXPERTS},
    "mimo_v2_flash": {
        "full": {**MIMO, **FULL},
        "windows": {**MIMO, **WINDOW},
        "two head sizes": {**MIMO, **FULL, "v_head_dim": 16},
    },
    "minimax": {"full": {**EXPERTS, **FULL}, "lightning": EXPERTS},
    "minimax_m2": {"plain": EXPERTS, "partial rotary": {**EXPERTS, **rope("default", partial_rotary_factor=0.5)}},
    "minimax_m3_vl_text": {"plain": EXPERTS},
    "mixtral": {"plain": EXPERTS, "windows": {**EXPERTS, **WINDOW}, "one expert": {**EXPERTS, "num_experts_per_tok": 1}},
    "olmoe": {"plain": EXPERTS, "clipped": {**EXPERTS, "clip_qkv": 0.8}},
    "phimoe": {"plain": {**EXPERTS, "sliding_window": None}, "biases": {**EXPERTS, "attention_bias": True, "lm_head_bias": True}},
    "qwen2_moe": {"plain": QWEN2_MOE, "windows": {**QWEN2_MOE, **SOME_WINDOWS}, "yarn": {**QWEN2_MOE, **YARN}},
    "qwen3_moe": {"plain": EXPERTS, "windows": {**EXPERTS, **SOME_WINDOWS}, "normed weights": {**EXPERTS, "norm_topk_prob": True}},
    "qwen3_next": {"plain": {**QWEN2_MOE, "num_hidden_layers": 4}},
    "qwen3_5_text": {"plain": {"num_hidden_layers": 4}},
    "solar_open": {"plain": ROUTED},
    "zaya": {"plain": {**EXPERTS, "num_experts_per_tok": 1}},
    "kimi_linear": {"plain": EXPERTS},
}
