#!/usr/bin/env bash
# transformers 5.19.0: a tokenizer that was saved as it is comes back as another one where the config.json beside it is that of a Qwen2.
#
# Guess: `AutoTokenizer.from_pretrained` makes the class that tokenizer_config.json names, with the tokenizer.json that lies there: the same ids
#   whatever model the directory holds.
# Seen: a tokenizer of words, saved by `save_pretrained`, comes back with the same ids alone and beside a Llama's config.json. Beside a Qwen2's
#   it becomes a `Qwen2Tokenizer`, whose own splitting takes the place of the saved one: it has one token more, and of a text around codes
#   (`<a_1><b_2> likes => <a_3>`) other ids come, without a word; so does naming PreTrainedTokenizerFast as its class. A model that was trained
#   with the first is served with the second. `PreTrainedTokenizerFast.from_pretrained` of the same directory gives the saved one.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 tokenizers==0.23.3
cd "$work"
cat > read.py <<'PY'
import json
from pathlib import Path

from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import AutoTokenizer, LlamaConfig, PreTrainedTokenizerFast, Qwen2Config

TEXT = "<a_1><b_2> likes => <a_3>"
CODES = [f"<{letter}_{number}>" for letter in "ab" for number in range(4)]
WORDS = ["<pad>", "<unk>", "likes", "=", ">", "=>", *CODES]
tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
tokenizer.pre_tokenizer = Whitespace()
tokenizer.add_tokens([AddedToken(code, normalized=False) for code in CODES])
saved = PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<pad>")
expected = saved(TEXT).input_ids


def read(folder: str) -> PreTrainedTokenizerFast:
    found = AutoTokenizer.from_pretrained(folder)
    print(f"{folder}: {type(found).__name__} of {len(found)} tokens, {found(TEXT).input_ids}; saved: {len(saved)} tokens, {expected}")
    return found


for folder, config in (("alone", None), ("llama", LlamaConfig()), ("qwen2", Qwen2Config())):
    saved.save_pretrained(folder)
    if config is not None:
        config.save_pretrained(folder)
    found = read(folder)
    assert (found(TEXT).input_ids == expected) == (folder != "qwen2") == (len(found) == len(saved))
settings = Path("qwen2/tokenizer_config.json")
settings.write_text(json.dumps(json.loads(settings.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
assert read("qwen2")(TEXT).input_ids != expected
assert PreTrainedTokenizerFast.from_pretrained("qwen2")(TEXT).input_ids == expected
PY
HF_HUB_OFFLINE=1 venv/bin/python read.py 2> errors || { cat errors; exit 1; }
