#!/usr/bin/env bash
# transformers 5.19.0: `generate_batch` (continuous batching) answers a beam search of ten with ten copies of the greedy sequence.
#
# Guess: `generate_batch` takes the GenerationConfig of `generate` and gives the same sequences, or raises for what it lacks; of settings that
#   it can't do it does tell: a repetition penalty is dropped with a warning.
# Seen: with `num_beams=10, num_return_sequences=10` thirty results come back for three prompts, under thirty ids, and those of a prompt are
#   one sequence ten times: that of greedy search, which is not even the best of the ten that `generate` gives. Nothing is raised or logged
#   about beams. A recommender that lists item codes this way shows one item ten times, or, after equal items are dropped, lists of one.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.13.0 accelerate==1.15.0
cd "$work"
cat > batch.py <<'PY'
import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

WIDTH, LENGTH = 10, 21
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=256, initializer_range=0.3, bos_token_id=1, eos_token_id=None, pad_token_id=0,
)
model = LlamaForCausalLM(config).eval()
prompts = [[1, *(4 + (number * 31 + step * 17) % 60 for step in range(LENGTH - 1))] for number in range(3)]
# A token that ends sequences must be named; 63 is in none of those below.
settings = {"max_new_tokens": 4, "do_sample": False, "eos_token_id": 63, "pad_token_id": 0}
beams = GenerationConfig(num_beams=WIDTH, num_return_sequences=WIDTH, **settings)
batched = model.generate_batch(
    prompts, generation_config=beams, progress_bar=False,
    continuous_batching_config=ContinuousBatchingConfig(max_batch_tokens=128, num_blocks=64, page_size=32),
)
assert len(batched) == WIDTH * len(prompts) and all(result.error is None for result in batched.values())
for prompt in prompts:
    found = [tuple(result.generated_tokens) for result in batched.values() if result.prompt_ids == prompt]
    rows = model.generate(torch.tensor([prompt]), generation_config=beams)[:, LENGTH:].tolist()
    greedy = model.generate(torch.tensor([prompt]), generation_config=GenerationConfig(**settings))[0, LENGTH:].tolist()
    print(f"generate_batch: {len(found)} sequences, {len(set(found))} of them different: {found[0]}; greedy {greedy}")
    print(f"generate: {len(rows)} sequences, {len(set(map(tuple, rows)))} different, the best {rows[0]}")
    assert len(found) == WIDTH and set(found) == {tuple(greedy)} and len(set(map(tuple, rows))) == WIDTH
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python batch.py 2> errors || { cat errors; exit 1; }
if grep -i beam errors; then echo "beams are spoken of now"; exit 1; fi
