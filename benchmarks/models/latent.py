"""Families with latent attention (MLA), whose heads have sizes of their own."""

from benchmarks.models.shapes import ROUTED, Table

LATENT = {
    **ROUTED,
    "num_key_value_heads": 4,
    "first_k_dense_replace": 1,
    "kv_lora_rank": 32,
    "q_lora_rank": 64,
    "qk_rope_head_dim": 16,
    "qk_nope_head_dim": 16,
    "v_head_dim": 32,
}

LATENTS: Table = {
    "deepseek_v2": {"plain": LATENT, "no compressed queries": {**LATENT, "q_lora_rank": None}},
    "axk1": {"plain": LATENT},
    "axk2": {"plain": LATENT},
    "deepseek_v3": {"plain": LATENT},
    "deepseek_v32": {"plain": LATENT},
    "glm4_moe_lite": {"plain": LATENT},
    "glm_moe_dsa": {"plain": LATENT},
    "longcat_flash": {"plain": LATENT},
    "minicpm3": {"plain": LATENT},
    "youtu": {"plain": LATENT},
}
