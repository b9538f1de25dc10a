"""The head of a saved T5 that is not its embeddings, under the name of transformers 4."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, MT5Config, PreTrainedConfig, PreTrainedModel, T5Config, UMT5Config

from drafting.alignment.own_head import name_own_head

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
