#!/usr/bin/env bash
# transformers 5.19.0: a model that is saved in shards where one lay in a single file can't be read back: the one before comes, without a word.
#
# Guess: what `save_pretrained` has written to a directory is what `from_pretrained` reads from it, as its documentation says, whatever lay
#   there before; weights of an earlier save are replaced.
# Seen: shards of an earlier save are taken away, but `model.safetensors` is left beside the new shards, and `from_pretrained` looks for that file
#   before it looks for `model.safetensors.index.json`. So a model that is trained anew and saved with `max_shard_size`, over one saved without
#   (50GB is the default), is never evaluated or served: here it has learned 16 items of 16, and what is read back hits none, being the one
#   before to the last bit. Who reads the index first, as huggingface_hub 2.4.0 does, gets the new model from the same directory. Fewer shards
#   over more, and one file over shards, are read back right.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 torch==2.13.0 numpy==2.4.6 huggingface-hub==2.4.0
cd "$work"
cat > save.py <<'PY'
import inspect
from pathlib import Path

import torch
from huggingface_hub import load_torch_model
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.utils.logging import disable_progress_bar

ONE, SHARDS, FEWER = "1GB", "20KB", "60KB"
torch.set_num_threads(1)
disable_progress_bar()
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    max_position_embeddings=64, pad_token_id=0, bos_token_id=1, eos_token_id=2,
)
history = torch.randint(4, 64, (16, 12))
# The item that follows a history: its last code and one.
samples = {"input_ids": torch.cat([history, (history[:, -1:] - 3) % 60 + 4], 1)}


@torch.no_grad()
def hits(model: LlamaForCausalLM) -> int:
    """How many of the sixteen next codes are the likeliest."""
    best = model.eval()(history).logits[:, -1].argmax(-1)
    return int((best == samples["input_ids"][:, -1]).sum())


def trained(steps: int) -> LlamaForCausalLM:
    torch.manual_seed(1)
    model = LlamaForCausalLM(config)
    optimizer = torch.optim.AdamW(model.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        model(**samples, labels=samples["input_ids"]).loss.backward()
        optimizer.step()
    return model


def same(one: LlamaForCausalLM, other: LlamaForCausalLM) -> bool:
    return all(torch.equal(weights, other.state_dict()[name]) for name, weights in one.state_dict().items())


def files(folder: str) -> str:
    names = sorted(path.name for path in Path(folder).iterdir() if path.name.startswith("model"))
    return ", ".join(names[:2] + (["..."] if len(names) > 4 else []) + names[2:][-2:])


before, after = trained(0), trained(80)
for first, second in ((ONE, SHARDS), (SHARDS, FEWER), (SHARDS, ONE)):
    folder = f"{first}-{second}"
    before.save_pretrained(folder, max_shard_size=first)
    after.save_pretrained(folder, max_shard_size=second)
    read = LlamaForCausalLM.from_pretrained(folder)
    which = "the model before" if same(read, before) else "the model saved last" if same(read, after) else "neither"
    print(f"{folder}: {files(folder)}: transformers reads {which}, {hits(read)} of 16 hits; saved last: {hits(after)}; before: {hits(before)}")
    assert which == ("the model before" if (first, second) == (ONE, SHARDS) else "the model saved last")
other = LlamaForCausalLM(config)
load_torch_model(other, f"{ONE}-{SHARDS}")
print("huggingface_hub reads the model saved last:", same(other, after))
assert same(other, after) and hits(after) > 14 and hits(before) < 4
assert inspect.signature(LlamaForCausalLM.save_pretrained).parameters["max_shard_size"].default == "50GB"
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python save.py 2> errors || { cat errors; exit 1; }
if grep -iE "safetensors|shard|index|stale" errors; then echo "something is said now"; exit 1; fi
