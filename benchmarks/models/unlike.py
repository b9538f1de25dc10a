"""Families whose configurations have other names for the shape of a model."""

from benchmarks.models.shapes import Table

BART = {
    "d_model": 128,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 192,
    "decoder_ffn_dim": 192,
    "decoder_start_token_id": 1,
}
MPT = {"d_model": 128, "n_heads": 4, "n_layers": 3, "expansion_ratio": 2, "max_seq_len": 256}
MAMBA = {"hidden_size": 128, "num_hidden_layers": 3, "state_size": 8}
MAMBA2 = {"hidden_size": 128, "num_hidden_layers": 3, "num_heads": 8, "head_dim": 32, "state_size": 16, "n_groups": 1}

UNLIKE: Table = {
    "bart": {"plain": BART},
    "ctrl": {"plain": {"n_positions": 256, "n_embd": 128, "dff": 192, "n_layer": 3, "n_head": 4, "tie_word_embeddings": False}},
    "dbrx": {
        "plain": {
            "d_model": 128,
            "n_heads": 4,
            "n_layers": 3,
            "max_seq_len": 256,
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 64, "moe_num_experts": 4, "moe_top_k": 2, "hidden_size": 128},
            "tie_word_embeddings": False,
        }
    },
    "jetmoe": {
        "plain": {
            "hidden_size": 128,
            "intermediate_size": 192,
            "num_hidden_layers": 3,
            "num_key_value_heads": 2,
            "kv_channels": 32,
            "num_local_experts": 4,
            "num_experts_per_tok": 2,
            "max_position_embeddings": 256,
        }
    },
    "mamba": {"plain": MAMBA},
    "mamba2": {"plain": MAMBA2},
    "falcon_mamba": {"plain": MAMBA},
    "mpt": {"plain": MPT, "with a length": {**MPT, "max_position_embeddings": 256}},
    "rwkv": {"plain": {"hidden_size": 128, "num_hidden_layers": 3, "context_length": 256}},
    "trocr": {"plain": {"d_model": 128, "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 192}},
    "xglm": {"plain": {"d_model": 128, "num_layers": 3, "attention_heads": 4, "ffn_dim": 192}},
}
