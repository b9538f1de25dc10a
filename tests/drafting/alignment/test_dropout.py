"""Dropout while training, of models that have none and of those that have their own."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, PreTrainedModel

from drafting.alignment.bases import TIGER
from drafting.alignment.dropout import add_dropout
from tests.models import TINY_CONFIG

TOKENS = torch.tensor([[1, 2, 3, 4]])
FAMILIES = ("llama", "qwen3", "gemma2", "gpt2", "t5")


def model_of(family: str) -> PreTrainedModel:
    torch.manual_seed(0)
    if family == "t5":
        return AutoModelForSeq2SeqLM.from_config(AutoConfig.for_model(**TIGER, vocab_size=20, decoder_start_token_id=0)).eval()
    small = {"n_embd": 32, "n_layer": 1, "n_head": 2} if family == "gpt2" else {**TINY_CONFIG, "head_dim": 16}
    return AutoModelForCausalLM.from_config(AutoConfig.for_model(**small | {"model_type": family, "vocab_size": 20})).eval()


def logits(model: PreTrainedModel) -> torch.Tensor:
    more = {"decoder_input_ids": TOKENS} if model.config.is_encoder_decoder else {}
    with torch.no_grad():
        return model(input_ids=TOKENS, **more).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_drops_while_it_trains_and_is_saved_without(family: str, tmp_path: Path) -> None:
    model = model_of(family)
    before, weights = logits(model), {name: part.clone() for name, part in model.state_dict().items()}
    add_dropout(model, 0.5)
    assert torch.equal(logits(model), before)
    model.train()
    assert not torch.allclose(logits(model), logits(model), atol=1e-3)
    model.save_pretrained(tmp_path)
    assert all(torch.equal(part, weights[name]) for name, part in load_file(tmp_path / "model.safetensors").items())
    kind = AutoModelForSeq2SeqLM if family == "t5" else AutoModelForCausalLM
    assert torch.allclose(logits(kind.from_pretrained(tmp_path).eval()), before, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_without_a_share_nothing_is_dropped(family: str) -> None:
    model = model_of(family)
    before = logits(model)
    add_dropout(model, 0.0)
    assert torch.allclose(logits(model.train()), before, atol=1e-6)


def test_so_much_is_dropped_as_was_said_and_the_mean_stays() -> None:
    model = model_of("llama").train()
    add_dropout(model, 0.25)
    embedding = model.get_input_embeddings()
    with torch.no_grad():
        embedding.weight.fill_(1.0)
        found = embedding(torch.zeros(200, 100, dtype=torch.int64))
    assert float((found == 0).float().mean()) == pytest.approx(0.25, abs=0.005)
    assert float(found.mean()) == pytest.approx(1.0, abs=0.01)
