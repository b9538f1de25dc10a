#!/usr/bin/env bash
# peft 0.21.2 on transformers 5.19.0: a T5 whose new tokens were trained is another model once its adapter is merged.
#
# Guess: `trainable_token_indices={"embed_tokens": ...}` trains one vector for each new token, such as a code of semantic ids, and
#   `merge_and_unload` writes these vectors into the embedding: the same logits, up to rounding.
# Seen: encoder and decoder of a T5 read one tensor, and peft trains a vector of each token for either. Merging writes both into that tensor,
#   so one of them is lost: after 60 steps that brought the loss from 4.2 to 0.9, that of the merged model is 1.7, logits differ by up to 4,
#   and nothing is said. LoRA of `embed_tokens` adds both deltas (0.7 becomes 4.6); there peft warns that tied weights can lead to
#   complications. Who evaluates the adapter and serves the merged model serves another one.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check peft==0.21.2 transformers==5.19.0 torch==2.13.0 numpy==2.4.6
cd "$work"
cat > merge.py <<'PY'
import warnings

import peft
import torch
from transformers import T5Config, T5ForConditionalGeneration

NEW = list(range(20, 30))
KINDS = {
    "new tokens": {"target_modules": ["q", "v"], "trainable_token_indices": {"embed_tokens": NEW}},
    "LoRA": {"target_modules": ["q", "v", "embed_tokens"]},
}
torch.set_num_threads(1)


def losses(kind: str) -> tuple[list[float], float, list[str]]:
    """Before training, after it, and merged; how far the last two's logits are apart; what peft warned of."""
    torch.manual_seed(0)
    shape = {"vocab_size": 30, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 2}
    config = T5Config(**shape, decoder_start_token_id=0, pad_token_id=0, dropout_rate=0.0)
    T5ForConditionalGeneration(config).save_pretrained("base")
    base = T5ForConditionalGeneration.from_pretrained("base")
    texts = torch.randint(10, 30, (16, 9))
    samples = {"input_ids": texts, "labels": texts[:, :4].contiguous()}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        model = peft.get_peft_model(base, peft.LoraConfig(r=4, task_type="SEQ_2_SEQ_LM", **KINDS[kind]))
        optimizer = torch.optim.Adam([each for each in model.parameters() if each.requires_grad], 0.02)
        first = model(**samples).loss.item()
        for _ in range(60):
            optimizer.zero_grad()
            model(**samples).loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            trained = model(**samples)
            merged = model.merge_and_unload()(**samples)
    apart = (trained.logits - merged.logits).abs().max().item()
    return [first, trained.loss.item(), merged.loss.item()], apart, [str(each.message) for each in told if each.category is UserWarning]


for kind in KINDS:
    (first, trained, merged), apart, told = losses(kind)
    print(f"{kind}: loss {first:.1f}, trained {trained:.2f}, merged {merged:.2f}; logits {apart:.1f} apart; {len(told)} warnings")
    assert trained < first - 1 and merged > trained + 0.4 and apart > 1
    assert bool(told) == (kind == "LoRA"), told
PY
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python merge.py 2> errors || { cat errors; exit 1; }
