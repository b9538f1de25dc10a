#!/usr/bin/env bash
# transformers 5.19.0: Falcon with ALiBi gives other logits with attn_implementation="eager" than with "sdpa": eager adds the biases twice.
#
# Guess: the two implementations of attention differ by rounding, so "eager" may serve as the reference for "sdpa", as everywhere else.
# Seen: a Falcon with `alibi=True` (the falcon-rw kind), float32: logits differ by 5 and the likeliest next token is another
#   one at 3 of 40 positions of a text. With the rotary kind (`alibi=False`) both agree to 1e-5. The one that is right is sdpa: a text of
#   one token, where biases change nothing, agrees, and halving the slopes of eager gives sdpa's logits.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.14.1
OMP_NUM_THREADS=1 "$work/venv/bin/python" - <<'PY'
import torch
from transformers import FalconConfig, FalconForCausalLM
from transformers.models.falcon import modeling_falcon

TOKENS = torch.arange(40).reshape(1, -1) * 7 % 97


def logits(alibi: bool, attention: str, tokens: torch.Tensor = TOKENS) -> torch.Tensor:
    """The logits `[tokens, vocabulary]` of one and the same random model."""
    torch.manual_seed(0)
    config = FalconConfig(
        vocab_size=97, hidden_size=64, num_hidden_layers=2, num_attention_heads=8, alibi=alibi, initializer_range=0.5,
        multi_query=False, new_decoder_architecture=False, parallel_attn=False, attn_implementation=attention,
    )
    with torch.no_grad():
        return FalconForCausalLM(config).eval()(tokens, use_cache=False).logits[0]


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return (one - other).abs().max().item()


with_alibi = apart(logits(True, "eager"), logits(True, "sdpa"))
with_rotary = apart(logits(False, "eager"), logits(False, "sdpa"))
first = apart(logits(True, "eager", TOKENS[:, :1]), logits(True, "sdpa", TOKENS[:, :1]))
other_tokens = (logits(True, "eager").argmax(-1) != logits(True, "sdpa").argmax(-1)).sum().item()
whole = modeling_falcon.build_alibi_tensor
modeling_falcon.build_alibi_tensor = lambda *given, **named: whole(*given, **named) / 2
halved = logits(True, "eager")
modeling_falcon.build_alibi_tensor = whole
mended = apart(halved, logits(True, "sdpa"))
print(f"ALiBi: apart by {with_alibi:.3g}, {other_tokens} of 40 next tokens differ; rotary: {with_rotary:.1g}; one token: {first:.1g}")
print(f"eager with half the biases against sdpa: {mended:.2g}")
assert with_alibi > 0.1 and other_tokens > 0 and with_rotary < 1e-4 and first < 1e-4 and mended < with_alibi / 10
PY
