#!/usr/bin/env bash
# transformers 5.19.0: a 4-D boolean attention mask is obeyed by "sdpa"; "eager", which gpt-oss takes as it has no sdpa, adds it as 0 and 1.
#
# Guess: a mask of the shape [batch, 1, queries, keys] with True for what may be attended to (needed for trees of tokens, which no 2-D mask
#   describes) means the same whichever implementation of attention a model is loaded with; or else it is refused.
# Seen: the causal mask, given as such a boolean mask, changes no logit of a Llama under sdpa. Under eager the same Llama's logits move
#   by 22, and those of a gpt-oss by 20: every token sees all later ones, without a warning. The mask with 0 and the least float in place of
#   True and False changes nothing in any of them.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.14.1
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM, GptOssConfig, GptOssForCausalLM

LENGTH = 24
TOKENS = torch.arange(LENGTH).reshape(1, -1) * 7 % 97
CAUSAL = torch.ones(LENGTH, LENGTH, dtype=torch.bool).tril()[None, None]
SHAPE = dict(
    vocab_size=97, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, initializer_range=0.5
)


def model(family: str, attention: str) -> torch.nn.Module:
    torch.manual_seed(0)
    if family == "llama":
        return LlamaForCausalLM(LlamaConfig(**SHAPE, attn_implementation=attention)).eval()
    config = GptOssConfig(**SHAPE, head_dim=16, num_local_experts=2, num_experts_per_tok=1, layer_types=["full_attention"] * 2, pad_token_id=0)
    return GptOssForCausalLM(config).eval()


@torch.no_grad()
def apart(family: str, attention: str, mask: torch.Tensor) -> float:
    """How far logits with the causal mask that is given are from those without any, which are causal as well."""
    built = model(family, attention)
    return (built(TOKENS, attention_mask=mask, use_cache=False).logits - built(TOKENS, use_cache=False).logits).abs().max().item()


ADDED = torch.zeros(1, 1, LENGTH, LENGTH).masked_fill(~CAUSAL, torch.finfo(torch.float32).min)
found = {
    (family, attention, kind): apart(family, attention, mask)
    for family, attention in (("llama", "sdpa"), ("llama", "eager"), ("gpt_oss", "eager"))
    for kind, mask in (("boolean", CAUSAL), ("added", ADDED))
}
for (family, attention, kind), difference in found.items():
    print(f"{family}, {attention}, a mask that is {kind}: {difference:.2g}")
assert all(difference > 1 for (_, attention, kind), difference in found.items() if (attention, kind) == ("eager", "boolean"))
assert all(difference < 1e-4 for (_, attention, kind), difference in found.items() if (attention, kind) != ("eager", "boolean"))
PY
