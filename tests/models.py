"""Small random models, catalogs and interactions for the tests: real checkpoints in every shape that the hosts must serve."""

import json
from pathlib import Path

import numpy as np
import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM, LlamaConfig, Qwen2Config, Qwen3Config

from drafting.alignment.bases import scratch_tokenizer
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate

TINY_CONFIG = {
    "model_type": "llama",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
}
CONFIGS = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}


def random_catalog(items: int = 200, depth: int = 3, codes: int = 8, seed: int = 0) -> Catalog:
    """A catalog of random identifiers, some of them shared by several items."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(codes, size=(items, depth))
    identifiers = {f"item-{i}": [f"<{chr(97 + level)}_{code}>" for level, code in enumerate(row)] for i, row in enumerate(rows)}
    return catalog_of(identifiers, titles={f"item-{i}": f"Title {i}" for i in range(items)})


def save_random_interactions(folder: Path, catalog: Catalog, *, users: int, events: int) -> None:
    """Write interactions of users with so many items each, of which none comes twice."""
    rng = np.random.default_rng(0)
    lines = [
        {"user": user, "item": catalog.item_ids[item], "timestamp": time}
        for user in range(users)
        for time, item in enumerate(rng.permutation(len(catalog))[:events].tolist())
    ]
    (folder / "interactions.jsonl").write_text("\n".join(map(json.dumps, lines)))


def save_tokenizer(catalog: Catalog, folder: Path, *, leave_out: tuple[str, ...] = ()) -> int:
    """Writes a tokenizer that knows the catalog's tokens and nothing else, and returns the size of its vocabulary."""
    tokenizer = scratch_tokenizer(tuple(token for token in sorted(catalog.tokens) if token not in leave_out))
    tokenizer.save_pretrained(folder)
    return len(tokenizer)


def save_random_model(
    folder: Path,
    catalog: Catalog,
    *,
    family: str = "llama",
    hidden: int = 64,
    layers: int = 2,
    heads: int = 2,
    key_value_heads: int = 1,
    tied: bool = False,
    dtype: torch.dtype = torch.float32,
    max_items: int = 20,
    max_positions: int = 256,
    seed: int = 0,
) -> Path:
    """Writes a model directory with random weights that `atspeed serve` takes as it is.

    The output layer is scaled up, so that scores spread as those of a trained model do and ties are rare.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(catalog, folder)
    PromptTemplate(max_items=max_items).save(folder)
    config = CONFIGS[family](
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=2 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=key_value_heads,
        head_dim=hidden // heads,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tied,
        bos_token_id=1,
        eos_token_id=None,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3.0)
    model.to(dtype).save_pretrained(folder)
    return folder


def save_family_model(folder: Path, catalog: Catalog, family: str, **settings: object) -> Path:
    """Writes a model directory of any family of transformers, with random weights, three layers and five items of history.

    Every weight is drawn anew: some families start with zeros, such as attention sinks, that would hide a mistake.
    """
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = save_tokenizer(catalog, folder)
    PromptTemplate(max_items=5).save(folder)
    shape = {
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 128,
    }
    # Some families work such a number out.
    shape = {name: value for name, value in shape.items() if not isinstance(getattr(CONFIG_MAPPING[family], name, None), property)}
    tokens = {"bos_token_id": 1, "eos_token_id": None, "pad_token_id": 0}
    config = AutoConfig.for_model(family, **{**shape, **tokens, "vocab_size": vocabulary, **settings})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").float()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim > 1:
                parameter.copy_(noise * 1.3 / parameter.shape[-1] ** 0.5)
            else:
                parameter.add_(noise + 1 if "sink" in name else noise * 0.1)
        model.get_output_embeddings().weight.mul_(3)
    model.save_pretrained(folder)
    return folder
