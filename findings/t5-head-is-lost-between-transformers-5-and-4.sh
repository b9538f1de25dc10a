#!/usr/bin/env bash
# A T5 with a head of its own (FLAN-T5, T5 1.1) that transformers 5.19.0 has saved loses that head in transformers 4.57.6; CTranslate2
# 4.8.5 scales it beside transformers 5; and transformers 5 makes none where `tie_word_embeddings=False` asks for it.
#
# Guess: `tie_word_embeddings=False` is kept by load and save, and whoever reads the directory gives the same logits.
# Seen: transformers 5 takes False for "do not scale the head's input", calls every T5 tied and writes `"tie_word_embeddings": true` and
#   `"scale_decoder_outputs": false`, though both weights are in the file and it reads them itself. transformers 4 takes true for both: it
#   puts the embeddings in the place of the head and scales, and logits are apart by more than their own size, without a word. CTranslate2,
#   which converts through the installed transformers, keeps the head and scales: right beside transformers 4, with 5 the log-probabilities
#   are those of another temperature (a factor of the width's root), so beams come in another order. Both are right again once
#   `"tie_word_embeddings": false` is written into config.json by hand (CTranslate2 beside transformers 4). A T5 made new by
#   transformers 5 with False has one weight for both, and training moves them together: a TIGER with a separate head is not what one gets.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
pip=("$work/venv/bin/pip" install --quiet --disable-pip-version-check)
"${pip[@]}" transformers==4.57.6 torch==2.13.0 numpy==2.4.6 ctranslate2==4.8.5
cd "$work"
cat > t5.py <<'PY'
import json
import shutil
from pathlib import Path

import ctranslate2
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

WORDS = ["<pad>", "</s>", "<unk>", *(f"word{number}" for number in range(61))]
READ, WRITTEN = [5, 9, 20, 33, 41, 7, 1], [11, 12, 30]


def made() -> T5ForConditionalGeneration:
    """A small FLAN-T5 with random weights."""
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=len(WORDS), d_model=32, d_kv=16, d_ff=64, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu",
        tie_word_embeddings=False, decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).eval()
    for weights in model.parameters():
        weights.data += 0.1 * torch.randn_like(weights)
    return model


def scores(model: T5ForConditionalGeneration) -> torch.Tensor:
    """Log-probabilities of what is written, and of the end, after what is read."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([READ]), decoder_input_ids=torch.tensor([[0, *WRITTEN]])).logits[0]
    return logits.log_softmax(-1)[torch.arange(len(WRITTEN) + 1), [*WRITTEN, 1]]


def read(folder: str) -> tuple[torch.Tensor, bool]:
    """The same of a saved model, and whether its head is its embeddings."""
    model = T5ForConditionalGeneration.from_pretrained(folder).eval()
    return scores(model), torch.equal(model.lm_head.weight, model.shared.weight)


def converted(folder: str) -> torch.Tensor:
    """The same by CTranslate2, converted through the transformers that is installed."""
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    names = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names).save_pretrained(folder)
    ctranslate2.converters.TransformersConverter(folder).convert("converted", force=True)
    translator = ctranslate2.Translator("converted", intra_threads=1)
    found = translator.score_batch([[WORDS[token] for token in READ]], [[WORDS[token] for token in WRITTEN]])
    return torch.tensor(found[0].log_probs)


def with_flag(folder: str) -> str:
    """A copy of a saved model that says that its head is its own."""
    shutil.copytree(folder, "flagged", dirs_exist_ok=True)
    path = Path("flagged/config.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tie_word_embeddings": False}))
    return "flagged"


def apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return round((one - other).abs().max().item(), 3)
PY
cat > save4.py <<'PY'
from t5 import apart, converted, made, scores, torch

model = made()
model.save_pretrained("four")
torch.save(scores(model), "scores.pt")
print(f"by transformers 4: log-probabilities {scores(model).tolist()}, CTranslate2 apart by {apart(converted('four'), scores(model))}")
assert apart(converted("four"), scores(model)) < 0.01
PY
cat > save5.py <<'PY'
from t5 import T5ForConditionalGeneration, apart, converted, made, read, torch, with_flag

saved, fresh = torch.load("scores.pt"), made()
found, same = read("four")
T5ForConditionalGeneration.from_pretrained("four").save_pretrained("five")
flagged, _ = read(with_flag("five"))
print(f"transformers 5 reads it apart by {apart(found, saved)}, with the flag in its own file {apart(flagged, saved)}")
print(f"CTranslate2 beside it apart by {apart(converted('four'), saved)}; a new T5 has one weight for both: {fresh.lm_head.weight is fresh.shared.weight}")
assert not same and apart(found, saved) < 0.01 and apart(flagged, saved) < 0.01 and apart(converted("four"), saved) > 1
assert fresh.lm_head.weight is fresh.shared.weight
PY
cat > read4.py <<'PY'
from t5 import apart, converted, read, torch, with_flag

saved = torch.load("scores.pt")
found, same = read("five")
flagged, _ = read(with_flag("five"))
print(f"transformers 4 reads what 5 saved apart by {apart(found, saved)}, the head is the embeddings: {same}; with the flag {apart(flagged, saved)}")
assert same and apart(found, saved) > 1 and apart(flagged, saved) < 0.01 and apart(converted("flagged"), saved) < 0.01
PY
export OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1
venv/bin/python save4.py 2> errors || { cat errors; exit 1; }
"${pip[@]}" transformers==5.19.0 2> errors || { cat errors; exit 1; }
venv/bin/python save5.py 2> errors || { cat errors; exit 1; }
"${pip[@]}" transformers==4.57.6 2> errors || { cat errors; exit 1; }
venv/bin/python read4.py 2> errors || { cat errors; exit 1; }
