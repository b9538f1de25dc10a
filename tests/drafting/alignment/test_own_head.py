"""The head of a T5 that is not its embeddings: kept where tokens are added, and saved under the name of transformers 4."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, MT5Config, PreTrainedConfig, PreTrainedModel, T5Config, UMT5Config

from drafting.alignment.bases import load_base
from drafting.alignment.own_head import name_own_head, resize_embeddings
from drafting.prompts.template import PromptTemplate
from tests.models import random_catalog
from tests.t5_models import save_t5_model

SIZES: dict[str, Any] = {
    "vocab_size": 40, "d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2, "decoder_start_token_id": 0
}  # fmt: skip


def made(config: PreTrainedConfig, own: bool) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForSeq2SeqLM.from_config(config).eval()
    if own:
        model.get_output_embeddings().weight = nn.Parameter(torch.randn(SIZES["vocab_size"], SIZES["d_model"]))
    return model


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=torch.tensor([[5, 9, 1]]), decoder_input_ids=torch.tensor([[0, 7]])).logits
    return found


@pytest.mark.parametrize("shards", ["1GB", "4KB"], ids=["one file", "shards"])
@pytest.mark.parametrize("config", [T5Config(tie_word_embeddings=False, **SIZES), MT5Config(**SIZES)], ids=["t5", "mt5"])
def test_a_head_of_its_own_is_named(tmp_path: Path, config: PreTrainedConfig, shards: str) -> None:
    model = made(config, own=True)
    model.save_pretrained(tmp_path, max_shard_size=shards)
    assert (tmp_path / "model.safetensors.index.json").exists() is (shards == "4KB")
    name_own_head(tmp_path)
    assert json.loads((tmp_path / "config.json").read_bytes())["tie_word_embeddings"] is False
    assert torch.equal(logits(AutoModelForSeq2SeqLM.from_pretrained(tmp_path).eval()), logits(model))


@pytest.mark.parametrize(
    ("config", "own"),
    [(T5Config(**SIZES), True), (T5Config(tie_word_embeddings=False, **SIZES), False), (UMT5Config(**SIZES), True)],
    ids=["scaled", "the embeddings", "umt5"],
)
def test_what_transformers_4_can_not_have_is_left_alone(tmp_path: Path, config: PreTrainedConfig, own: bool) -> None:
    made(config, own).save_pretrained(tmp_path)
    before = (tmp_path / "config.json").read_bytes()
    name_own_head(tmp_path)
    assert (tmp_path / "config.json").read_bytes() == before


@pytest.mark.parametrize("own", [True, False])
def test_what_was_tied_stays_so_where_tokens_are_added_and_what_was_not_does_not_become_so(own: bool) -> None:
    model = made(T5Config(tie_word_embeddings=False, **SIZES), own)
    before, tokens = [layer.weight.detach().clone() for layer in layers(model)], SIZES["vocab_size"]
    resize_embeddings(model, tokens + 5)
    embeddings, head = (layer.weight for layer in layers(model))
    assert len(embeddings) == len(head) == model.config.vocab_size == tokens + 5
    assert [torch.equal(now[:tokens], then) for now, then in zip((embeddings, head), before, strict=True)] == [True, True]
    assert (head is embeddings) is not own
    assert model.encoder.embed_tokens.weight is model.decoder.embed_tokens.weight is embeddings
    assert model.config.tie_word_embeddings


def test_a_base_keeps_its_own_head_where_it_gets_the_tokens_of_a_catalog(tmp_path: Path) -> None:
    """As a FLAN-T5 that is fine-tuned; transformers 5 puts the embeddings in the place of its head."""
    folder = save_t5_model(tmp_path / "base", random_catalog(items=30, depth=2, codes=3), tie_word_embeddings=False)
    weights = load_file(folder / "model.safetensors")
    torch.manual_seed(7)
    own = torch.randn_like(weights["shared.weight"])
    save_file(weights | {"lm_head.weight": own}, folder / "model.safetensors", {"format": "pt"})
    base = load_base(str(folder), random_catalog(items=30, depth=2, codes=5), PromptTemplate(add_bos=False))
    embeddings, head = (layer.weight for layer in layers(base.model))
    assert len(head) == len(base.tokenizer) > len(own)
    assert torch.equal(head[: len(own)], own)
    assert torch.equal(embeddings[: len(own)], weights["shared.weight"])


def layers(model: PreTrainedModel) -> tuple[nn.Module, nn.Module]:
    """Embeddings and head."""
    return model.get_input_embeddings(), model.get_output_embeddings()
