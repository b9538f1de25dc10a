"""Adapters on T5, whose encoder, decoder and head read one tensor: lists equal to those of peft's own model, which is not merged."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.models import save_tokenizer
from tests.t5_models import save_t5_model
from tests.verification.hosts.test_adapter import CATALOG, SMALLER, assert_lists_of, load, save_adapter
from verification.hosts.checkpoint import load_tokenizer

pytest.importorskip("peft")

KINDS: dict[str, dict[str, Any]] = {
    "layers": {},
    "embeddings": {"target_modules": ["q", "embed_tokens"]},
    "embeddings and head": {"target_modules": ["q", "embed_tokens", "lm_head"]},
    "the encoder's embeddings": {"target_modules": ["q", "encoder.embed_tokens"]},
    "single tokens": {"trainable_token_indices": {"embed_tokens": [3, 17, 20]}},
    "single tokens in the head, too": {"trainable_token_indices": {"embed_tokens": [3, 17], "lm_head": [3, 17]}},
    "modules to save": {"modules_to_save": ["encoder.embed_tokens"]},
}


def save_t5_adapter(base: Path, folder: Path, **settings: Any) -> Any:
    """As `save_adapter`; the model is the T5 with peft's modules in it, whose `generate` takes prompts as all models do."""
    return save_adapter(base, folder, **({"target_modules": ["q", "v"], "task_type": "SEQ_2_SEQ_LM"} | settings)).get_base_model()


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lists_are_those_of_peft(tmp_path: Path, kind: str, tied: bool) -> None:
    base = save_t5_model(tmp_path / "base", CATALOG, num_layers=1, num_decoder_layers=1, tie_word_embeddings=tied)
    model = save_t5_adapter(base, tmp_path / "adapter", **KINDS[kind])
    recommender = load(tmp_path / "adapter")
    assert_lists_of(model, recommender, base)
    recommender.close()


@pytest.mark.parametrize("kind", ["layers", "single tokens"])
def test_a_base_that_was_resized(tmp_path: Path, kind: str) -> None:
    """After resizing, encoder and decoder have one module, and the adapter has all its rows."""
    base = save_t5_model(tmp_path / "base", SMALLER, num_layers=1, num_decoder_layers=1)
    save_tokenizer(CATALOG, tmp_path / "adapter")
    tokens = len(load_tokenizer(tmp_path / "adapter"))
    model = save_t5_adapter(base, tmp_path / "adapter", tokens=tokens, **KINDS[kind])
    recommender = load(tmp_path / "adapter")
    assert_lists_of(model, recommender, tmp_path / "adapter")
    recommender.close()


def test_a_head_of_its_own_stays_one_where_the_base_was_resized(tmp_path: Path) -> None:
    """FLAN-T5 as transformers 4 resizes it for training; transformers 5 puts the embeddings in the place of its head."""
    base = save_t5_model(tmp_path / "base", SMALLER, num_layers=1, num_decoder_layers=1, tie_word_embeddings=False)
    weights = load_file(base / "model.safetensors")
    torch.manual_seed(7)
    save_file(weights | {"lm_head.weight": torch.randn_like(weights["shared.weight"])}, base / "model.safetensors", {"format": "pt"})
    save_tokenizer(CATALOG, tmp_path / "adapter")
    tokens = len(load_tokenizer(tmp_path / "adapter"))
    model = save_t5_adapter(base, tmp_path / "adapter", tokens=tokens, own_head=True)
    recommender = load(tmp_path / "adapter")
    assert_lists_of(model, recommender, tmp_path / "adapter")
    recommender.close()
