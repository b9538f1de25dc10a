"""Models and catalogs of a given shape with random contents, for measuring cost where no trained model is at hand.

Invariant: everything follows from the shape's name and a seed, so two machines measure the same work. Random weights cost what trained ones
do; what depends on the contents (how often a draft is right) must never be read off such a model.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel

from drafting.alignment.bases import scratch_tokenizer
from drafting.array_types import IntArray
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate
from verification.hosts.checkpoint import DTYPES, auto_class

# The part of a level's prefixes, the first ones, that may have more children than others.
CROWD = 0.05
# Distances that T5 tells apart.
T5_BUCKETS = 32


@dataclass(frozen=True)
class ModelShape:
    """The size of a decoder, or of a T5's encoder and decoder each.

    Attributes:
        words: tokens of the vocabulary besides the catalog's codes.
        family: transformers' name of the architecture.
    """

    hidden: int
    layers: int
    heads: int
    key_value_heads: int
    intermediate: int
    words: int = 3
    head_size: int | None = None
    family: str = "llama"
    dtype: str = "float32"

    def config(self, vocabulary: int, longest: int) -> PretrainedConfig:
        """transformers' configuration for a vocabulary and a longest text, both in tokens; a T5 has so many layers twice."""
        if self.family == "t5":
            return AutoConfig.for_model(
                self.family,
                vocab_size=vocabulary,
                d_model=self.hidden,
                d_ff=self.intermediate,
                d_kv=self.head_size or self.hidden // self.heads,
                num_heads=self.heads,
                num_layers=self.layers,
                decoder_start_token_id=0,
                eos_token_id=None,
                pad_token_id=0,
            )
        return AutoConfig.for_model(
            self.family,
            vocab_size=vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.key_value_heads,
            head_dim=self.head_size or self.hidden // self.heads,
            max_position_embeddings=longest,
            tie_word_embeddings=False,
            bos_token_id=1,
            eos_token_id=None,
            pad_token_id=0,
        )

    def weight_bytes(self, vocabulary: int) -> int:
        """Memory of the weights, the norms' few left out."""
        head_size = self.head_size or self.hidden // self.heads
        attention = 2 * self.hidden * head_size * (self.heads + self.key_value_heads)
        if self.family == "t5":
            # One attention in the encoder, two in the decoder; biases by position; the head is the embeddings.
            layers = self.layers * (3 * attention + 4 * self.hidden * self.intermediate)
            return (vocabulary * self.hidden + layers + 2 * T5_BUCKETS * self.heads) * DTYPES[self.dtype].itemsize
        layer = attention + 3 * self.hidden * self.intermediate
        return (2 * vocabulary * self.hidden + self.layers * layer) * DTYPES[self.dtype].itemsize

    def slot_bytes(self) -> int:
        """Memory of the keys and values of one token."""
        head_size = self.head_size or self.hidden // self.heads
        return 2 * self.layers * self.key_value_heads * head_size * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class CatalogShape:
    """The size of a catalog's trie.

    Attributes:
        level_sizes: the distinct prefixes wanted at each depth; the last is the number of identifiers.
        crowded: for each depth, the share of its nodes that the first twentieth of the prefixes above are given beyond their part. Beams
            lie where items are many, so a catalog needs such places.
    """

    codes_per_level: tuple[int, ...]
    level_sizes: tuple[int, ...]
    crowded: tuple[float, ...]

    @property
    def codes(self) -> int:
        """Tokens that identifiers are made of."""
        return sum(self.codes_per_level)


@dataclass(frozen=True)
class Shape:
    """A target, a draft and the catalog that they recommend from."""

    target: ModelShape
    draft: ModelShape
    catalog: CatalogShape


# The level sizes of the paper's Beauty catalog; in a beam there, a prefix of two codes has about five children.
BEAUTY = CatalogShape((91, 256, 256, 256), (91, 6539, 11172, 12023), (0, 0, 0.22, 0.22))
# Three levels, the first of which holds a beam of 256.
THREE_LEVELS = CatalogShape((256, 256, 256), (256, 11172, 12023), (0, 0, 0.22))

LLAMA_68M = ModelShape(768, 2, 12, 12, 3072, words=32000, dtype="bfloat16")
QWEN3 = ModelShape(1024, 28, 16, 8, 3072, words=151936, head_size=128, family="qwen3")
QWEN3_DRAFT = ModelShape(256, 1, 4, 4, 512, words=151936, family="qwen3")
SHAPES = {
    "tiny": Shape(
        ModelShape(64, 2, 2, 2, 128), ModelShape(32, 1, 2, 2, 64), CatalogShape((16, 16, 16, 16), (16, 120, 300, 320), (0, 0, 0, 0))
    ),
    # 3.7 million parameters, and a draft of 0.1 million.
    "small": Shape(ModelShape(256, 4, 4, 4, 688), ModelShape(64, 1, 2, 2, 128), BEAUTY),
    # TIGER's encoder and decoder, and a T5 of one layer each.
    "tiger": Shape(
        ModelShape(128, 4, 6, 6, 1024, head_size=64, family="t5"), ModelShape(64, 1, 2, 2, 128, head_size=32, family="t5"), BEAUTY
    ),
    # Qwen3-0.6B's layers and vocabulary, four of them and all.
    "qwen3-0.6b-4l": Shape(replace(QWEN3, layers=4), QWEN3_DRAFT, BEAUTY),
    "qwen3-0.6b": Shape(QWEN3, QWEN3_DRAFT, BEAUTY),
    # What the paper serves.
    "llama-7b": Shape(ModelShape(4096, 32, 32, 32, 11008, words=32000, dtype="bfloat16"), LLAMA_68M, BEAUTY),
    "qwen3-1.7b": Shape(
        ModelShape(2048, 28, 16, 8, 6144, words=151936, head_size=128, family="qwen3", dtype="bfloat16"),
        ModelShape(512, 2, 8, 8, 1536, words=151936, family="qwen3", dtype="bfloat16"),
        BEAUTY,
    ),
}


def make_identifiers(shape: CatalogShape, seed: int = 0) -> IntArray:
    """Codes `[items, depth]`, counted from 0 at each level, whose trie has the shape's level sizes."""
    rng = np.random.default_rng(seed)
    prefixes = np.arange(shape.level_sizes[0])[:, None] % shape.codes_per_level[0]
    for codes, size, crowded in zip(shape.codes_per_level[1:], shape.level_sizes[1:], shape.crowded[1:], strict=True):
        prefixes = _grow(prefixes, codes, size, crowded, rng)
    return prefixes


def _grow(prefixes: IntArray, codes: int, size: int, crowded: float, rng: np.random.Generator) -> IntArray:
    """Give every prefix one child, and random prefixes another until there are `size` distinct ones."""
    keys = np.unique(np.arange(len(prefixes)) * codes + rng.integers(codes, size=len(prefixes)))
    while len(keys) < size:
        missing = size - len(keys)
        reach = np.where(rng.random(missing) < crowded, CROWD, 1.0)
        parents = (len(prefixes) * reach * rng.random(missing)).astype(np.int64)
        more = parents * codes + rng.integers(codes, size=len(parents))
        keys = np.union1d(keys, more)
    return np.concatenate([prefixes[keys // codes], (keys % codes)[:, None]], axis=1)


def make_catalog(shape: Shape, seed: int = 0) -> Catalog:
    """A catalog whose trie has the shape's level sizes."""
    rows = [[f"<{chr(97 + level)}_{code}>" for level, code in enumerate(row)] for row in make_identifiers(shape.catalog, seed).tolist()]
    return catalog_of({f"item-{number}": row for number, row in enumerate(rows)})


def make_model(shape: ModelShape, vocabulary: int, longest: int, device: torch.device, seed: int = 0, **settings: Any) -> PreTrainedModel:
    """A model with random weights, made where it is to run: billions of weights would take minutes to write and to read back.

    `settings` go to transformers' `from_config`.
    """
    torch.manual_seed(seed)
    with device:
        config = shape.config(vocabulary, longest)
        model: PreTrainedModel = auto_class(config).from_config(config, dtype=DTYPES[shape.dtype], **settings)
    return model


def make_checkpoint(folder: Path, shape: ModelShape, catalog: Catalog, seed: int = 0) -> None:
    """Write a model directory with random weights, and a tokenizer of the catalog's tokens; the model's further words have no text."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = scratch_tokenizer(catalog.tokens)
    tokenizer.save_pretrained(folder)
    PromptTemplate(add_bos=False).save(folder)
    longest, vocabulary = 512, max(len(tokenizer), shape.words + len(catalog.tokens))
    make_model(shape, vocabulary, longest, torch.device("cpu"), seed).save_pretrained(folder)
