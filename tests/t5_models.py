"""Small random encoder-decoder models of the T5 family for the tests."""

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM

from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate
from tests.models import save_tokenizer

START = 0


def save_t5_model(folder: Path, catalog: Catalog, family: str = "t5", *, max_items: int = 20, seed: int = 0, **settings: Any) -> Path:
    """Writes a model directory with random weights, whose biases by position are as large as its scores.

    Distances fall into buckets of their own only at first, so that a path of a few nodes meets both kinds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(catalog, folder)
    PromptTemplate(max_items=max_items, add_bos=False).save(folder)
    shape = {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_heads": 4,
        "num_layers": 2,
        "num_decoder_layers": 2,
        "relative_attention_num_buckets": 6,
        "relative_attention_max_distance": 9,
        "decoder_start_token_id": START,
        "eos_token_id": None,
    }
    config = AutoConfig.for_model(family, **{**shape, "vocab_size": vocabulary, **settings})
    model = AutoModelForSeq2SeqLM.from_config(config).float()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim > 1:
                scale = 2.0 if "relative_attention_bias" in name or "shared" in name else 1.3 / parameter.shape[-1] ** 0.5
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)
    model.save_pretrained(folder)
    return folder
