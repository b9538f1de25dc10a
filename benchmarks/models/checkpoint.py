"""The question that every cell is asked, and tiny random checkpoints of any family to ask it of.

Invariant: all follows from the variant and fixed seeds, and every weight is drawn anew: some families start with zeros (attention sinks,
gates, biases) that would hide a mistake.
"""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel
from transformers import logging as transformers_logging

from benchmarks.models.variants import Variant
from drafting.alignment.bases import scratch_tokenizer
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate

ITEMS, LEVELS, CODES = 300, 4, 8
# Histories of 1 to 20 items: prompts of 5 to 81 tokens, on both sides of the windows, chunks and boundaries of the variants.
HISTORIES = 20
KS = (10, 1)
PLANS = ("none", "trie")
# Log-probabilities spread as those of a trained model do, so that ties are rare.
HEAD_GAIN, GAIN, EMBEDDING = 2.0, 1.3, 0.5
# Counts up when other checkpoints are made of the same variants, or other lists are asked of them.
RECIPE = 1


@cache
def question() -> tuple[Catalog, list[list[int]]]:
    """The catalog, whose identifiers all differ, and the histories, as catalog indices."""
    rng = np.random.default_rng(0)
    rows = rng.permutation(CODES**LEVELS)[:ITEMS]
    codes = np.stack(np.unravel_index(rows, [CODES] * LEVELS), axis=1)
    identifiers = {f"item-{i}": [f"<{chr(97 + level)}_{code}>" for level, code in enumerate(row)] for i, row in enumerate(codes)}
    return catalog_of(identifiers), [rng.integers(ITEMS, size=1 + length).tolist() for length in range(HISTORIES)]


def make_checkpoint(folder: Path, variant: Variant) -> None:
    """Write a model directory of a variant; whatever a family raises for its settings is passed on."""
    transformers_logging.disable_progress_bar()
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = scratch_tokenizer(tuple(sorted(question()[0].tokens)))
    tokenizer.save_pretrained(folder)
    PromptTemplate().save(folder)
    config = AutoConfig.for_model(variant.family, **{"vocab_size": len(tokenizer), **variant.settings})
    torch.manual_seed(0)
    model = _model(config)
    _draw_weights(model)
    model.save_pretrained(folder)


def _model(config: PretrainedConfig) -> PreTrainedModel:
    try:
        model: PreTrainedModel = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    except ValueError:
        # Some families have no choice of attention.
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model


@torch.no_grad()
def _draw_weights(model: PreTrainedModel) -> None:
    generator = torch.Generator().manual_seed(1)
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter is embeddings.weight:
            parameter.copy_(noise * EMBEDDING)
        elif head is not None and parameter is head.weight:
            parameter.copy_(noise * HEAD_GAIN / parameter.shape[-1] ** 0.5)
        elif parameter.ndim > 1:
            # Experts' weights lie in one tensor, by rows or by columns.
            width = parameter.shape[-1] if parameter.ndim == 2 else max(parameter.shape[-2:])
            parameter.copy_(noise * GAIN / width**0.5)
        else:
            parameter.add_(noise + 1 if "sink" in name else noise * 0.1)
