"""Models and catalogs of a given shape with random contents, for measuring cost where no trained model is at hand.

Invariant: everything follows from the shape's name and a seed, so two machines measure the same work. Random weights cost what trained ones
do; what depends on the contents (how often a draft is right) must never be read off such a model.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from drafting.alignment.bases import scratch_tokenizer
from drafting.catalog import Catalog
from drafting.prompt import PromptTemplate


@dataclass(frozen=True)
class Shape:
    """The size of a Llama model, and of the catalog that it recommends from.

    `level_sizes` are the distinct prefixes wanted at each depth; the last is the number of identifiers.
    """

    hidden: int
    layers: int
    heads: int
    intermediate: int
    codes_per_level: tuple[int, ...]
    level_sizes: tuple[int, ...]
    dtype: str = "float32"


SHAPES = {
    # 3.7 million parameters over a trie with the level sizes of the paper's Beauty catalog.
    "small": Shape(256, 4, 4, 688, (91, 256, 256, 256), (91, 6539, 11172, 12023)),
    "tiny": Shape(64, 2, 2, 128, (16, 16, 16), (16, 120, 300)),
}


def make_catalog(shape: Shape, seed: int = 0) -> Catalog:
    """A catalog whose trie has the shape's level sizes."""
    rng = np.random.default_rng(seed)
    prefixes = np.arange(shape.level_sizes[0])[:, None] % shape.codes_per_level[0]
    for codes, size in zip(shape.codes_per_level[1:], shape.level_sizes[1:], strict=True):
        prefixes = _grow(prefixes, codes, size, rng)
    rows = [[f"<{chr(97 + level)}_{code}>" for level, code in enumerate(row)] for row in prefixes.tolist()]
    return Catalog.from_identifiers({f"item-{number}": row for number, row in enumerate(rows)})


def _grow(prefixes: np.ndarray, codes: int, size: int, rng: np.random.Generator) -> np.ndarray:
    """Gives every prefix one child, and random prefixes another until there are `size` distinct ones."""
    keys = np.unique(np.arange(len(prefixes)) * codes + rng.integers(codes, size=len(prefixes)))
    while len(keys) < size:
        more = rng.integers(len(prefixes) * codes, size=size - len(keys))
        keys = np.union1d(keys, more)
    return np.concatenate([prefixes[keys // codes], (keys % codes)[:, None]], axis=1)


def make_checkpoint(folder: Path, shape: Shape, catalog: Catalog, seed: int = 0) -> None:
    """Writes a model directory with random weights and a tokenizer that knows the catalog's tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = scratch_tokenizer(catalog.tokens)
    tokenizer.save_pretrained(folder)
    PromptTemplate(add_bos=False).save(folder)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.heads,
        max_position_embeddings=512,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config, dtype=shape.dtype)
    model.save_pretrained(folder)
