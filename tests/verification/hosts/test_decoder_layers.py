"""The layers that are written out give what transformers' own modules give, and serve only what is plainly of their families."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from drafting.beam.tree import TokenTree
from verification.hosts.decoder_layers import FAMILIES, DecoderLayers
from verification.hosts.layers import probe_layers
from verification.hosts.self_check import DEPTH, FORWARDS, ask, make_questions
from verification.hosts.transformers import ATTENTION, TransformersHost

VOCABULARY, SLOTS, LONGEST = 60, 400, 120
SHARED: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 256,
}
YARN = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 1e4,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SERVED: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama, all biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "llama, few heads of another size": ("llama", {"head_dim": 6, "rope_parameters": LLAMA3}),
    "mistral, windows": ("mistral", {"sliding_window": 9}),
    "qwen2": ("qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"head_dim": 16, "rope_parameters": YARN}),
}


def made(family: str, dtype: torch.dtype = torch.float32, **settings: Any) -> PreTrainedModel:
    """A model whose numbers are all random, biases and norms among them."""
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **SHARED | settings)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=ATTENTION).eval()
    for name, weight in model.named_parameters():
        if weight.ndim == 1:
            weight.data.uniform_(0.5, 1.5) if "norm" in name else weight.data.normal_()
        else:
            weight.data.mul_(10)
    return model


@torch.inference_mode()
def log_probs(host: TransformersHost) -> torch.Tensor:
    """What a host says of prompts and trees that share forwards."""
    tree = TokenTree(SLOTS, DEPTH, host.device)
    return torch.cat(ask(host, tree, make_questions(host, tree, LONGEST, VOCABULARY), FORWARDS))


@pytest.mark.parametrize("name", SERVED)
def test_written_out_layers_give_what_the_modules_give(name: str) -> None:
    family, settings = SERVED[name]
    host = TransformersHost.from_model(made(family, **settings), SLOTS)
    assert host.decoder is not None
    written_out = log_probs(host)
    host.decoder = None
    torch.testing.assert_close(written_out, log_probs(host), atol=1e-4, rtol=0)
    # The modules' weights, parts of joined ones now, are those that the model was made with.
    for own, expected in zip(host.model.parameters(), made(family, **settings).parameters(), strict=True):
        assert torch.equal(own, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_differs_by_its_rounding(dtype: torch.dtype) -> None:
    host = TransformersHost.from_model(made("qwen3", dtype), SLOTS)
    assert host.decoder is not None
    written_out = log_probs(host)
    host.decoder = None
    expected = log_probs(host)
    exact = TransformersHost.from_model(made("qwen3", dtype).float(), SLOTS)
    exact.decoder = None
    right = log_probs(exact)
    assert (written_out - right).square().mean() < 2 * (expected - right).square().mean()


def test_weights_are_held_once() -> None:
    model = made("llama", attention_bias=True)
    host = TransformersHost.from_model(model, SLOTS)
    assert host.decoder is not None
    layer = model.base_model.layers[0]
    for parts in ((layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj), (layer.mlp.gate_proj, layer.mlp.up_proj)):
        assert len({part.weight.untyped_storage().data_ptr() for part in parts}) == 1


class _Louder(nn.Linear):
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        return 2 * super().forward(rows)


def _of_another_class(model: Any) -> None:
    model.base_model.layers[1].mlp.up_proj.__class__ = _Louder


def _hooked(model: Any) -> None:
    model.base_model.layers[0].register_forward_hook(lambda *_: None)


def _replaced(model: Any) -> None:
    model.base_model.norm.forward = lambda hidden: hidden


def _mixed(model: Any) -> None:
    model.base_model.norm.double()


def _rotated_otherwise(model: Any) -> None:
    model.base_model.rotary_emb.rope_type = "dynamic"


def _with_another_activation(model: Any) -> None:
    model.base_model.layers[1].mlp.act_fn = nn.GELU()


def _with_cut_embeddings(model: Any) -> None:
    model.base_model.embed_tokens.max_norm = 0.1


CHANGES = [_of_another_class, _hooked, _replaced, _mixed, _rotated_otherwise, _with_another_activation, _with_cut_embeddings]


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_not_plain_keeps_its_own_code(change: Callable[[Any], None]) -> None:
    model = made("llama")
    attentions = list(probe_layers(model))
    assert DecoderLayers.of(model, attentions[::-1]) is None
    change(model)
    assert DecoderLayers.of(model, attentions) is None


def test_other_families_keep_their_own_code() -> None:
    host = TransformersHost.from_model(made("olmo2"), SLOTS)
    assert "olmo2" not in FAMILIES
    assert host.decoder is None
