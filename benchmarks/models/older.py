"""Families with as many key/value heads as heads: GPT-2's generation, and encoders that serve as decoders."""

from benchmarks.models.shapes import ALL_ROTARY, EVERY_HEAD, PLAIN, TIED, Table, rope

DECODER = {"is_decoder": True}
ROBERTA = {**DECODER, "max_position_embeddings": 300}

OLDER: Table = {
    "bert": {"decoder": DECODER, "tied": {**DECODER, **TIED}, "encoder": PLAIN},
    "bert-generation": {"decoder": DECODER},
    "biogpt": {"plain": PLAIN},
    "bloom": {"plain": {"n_head": 4, "n_layer": 3}, "tied": {**TIED, "n_head": 4, "n_layer": 3}},
    "camembert": {"decoder": ROBERTA},
    "codegen": {"plain": {"rotary_dim": 16, "n_positions": 256}},
    "data2vec-text": {"decoder": ROBERTA},
    "electra": {"decoder": {**DECODER, "embedding_size": 128}},
    "ernie": {"decoder": DECODER},
    "falcon": {
        "multi-query": {"multi_query": True, "new_decoder_architecture": False},
        "grouped": {"multi_query": False, "new_decoder_architecture": True, "num_kv_heads": 2},
        "ALiBi": {"alibi": True, "multi_query": True},
        "tied ALiBi": {**TIED, "alibi": True, "multi_query": False},
        "sequential": {"multi_query": False, "parallel_attn": False, "bias": True},
    },
    "gpt-sw3": {"plain": {"n_positions": 256}},
    "gpt2": {
        "plain": {"n_positions": 256},
        "tied": {**TIED, "n_positions": 256},
        "scaled by layer": {"n_positions": 256, "scale_attn_by_inverse_layer_idx": True},
        "unscaled": {"n_positions": 256, "scale_attn_weights": False},
    },
    "gpt_bigcode": {"multi-query": {"n_positions": 256}, "multi-head": {"n_positions": 256, "multi_query": False}},
    "gpt_neo": {"local": {"num_layers": 4, "num_hidden_layers": 4, "attention_types": [[["global", "local"], 2]], "window_size": 32}},
    "gpt_neox": {
        "plain": PLAIN,
        "tied": TIED,
        "sequential": {"use_parallel_residual": False},
        "no biases": {"attention_bias": False},
        "all rotary": ALL_ROTARY,
        "linear rope": rope("linear", factor=4.0, partial_rotary_factor=0.25),
    },
    "gpt_neox_japanese": {"plain": PLAIN},
    "gptj": {"plain": {"rotary_dim": 16, "n_positions": 256}},
    "megatron-bert": {"decoder": DECODER},
    "modernbert-decoder": {"full": {"layer_types": ["full_attention"] * 3}, "windows": {"local_attention": 64}},
    "moshi": {"plain": PLAIN},
    "openai-gpt": {"plain": {"n_positions": 256}},
    "opt": {
        "plain": {"ffn_dim": 192, "word_embed_proj_dim": 128},
        "tied": {**TIED, "ffn_dim": 192, "word_embed_proj_dim": 128},
        "projected": {"ffn_dim": 192, "word_embed_proj_dim": 64, "do_layer_norm_before": False},
        "no biases": {"ffn_dim": 192, "word_embed_proj_dim": 128, "enable_bias": False},
    },
    "persimmon": {"plain": PLAIN, "no norms": {"qk_layernorm": False}},
    "phi": {"plain": PLAIN, "grouped": {"num_key_value_heads": 2}, "query-key norm": {"qk_layernorm": True}, "all rotary": ALL_ROTARY},
    "recurrent_gemma": {"plain": {"lru_width": 128, "attention_window_size": 32}},
    "rembert": {"decoder": DECODER},
    "roberta": {"decoder": ROBERTA, "tied": {**ROBERTA, **TIED}, "encoder": {"max_position_embeddings": 300}},
    "roberta-prelayernorm": {"decoder": ROBERTA},
    "roc_bert": {"decoder": DECODER},
    "roformer": {"decoder": DECODER},
    "stablelm": {
        "plain": EVERY_HEAD,
        "grouped": {"num_key_value_heads": 2},
        "parallel": {**EVERY_HEAD, "use_parallel_residual": True},
        "query-key norm": {**EVERY_HEAD, "qk_layernorm": True},
        "biases": {**EVERY_HEAD, "use_qkv_bias": True},
    },
    "xlm-roberta": {"decoder": ROBERTA},
    "xlm-roberta-xl": {"decoder": ROBERTA},
    "xmod": {"decoder": {**ROBERTA, "languages": ["en_XX"], "default_language": "en_XX"}},
    "zamba2": {"plain": {"num_hidden_layers": 4, "layer_types": ["linear_attention", "hybrid"] * 2}},
}
