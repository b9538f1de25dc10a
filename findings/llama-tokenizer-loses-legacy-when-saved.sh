#!/usr/bin/env bash
# transformers 5.19.0: a LlamaTokenizer made with legacy=True comes back from save_pretrained as legacy=False: other ids, without a word.
#
# Guess: save_pretrained and from_pretrained give the same tokenizer back, the more so as the whole of it is written to tokenizer.json.
# Seen: `legacy` is not written to tokenizer_config.json, and the pre-tokenizer of tokenizer.json is made anew from the class, whose default
#   is legacy=False. "▁," behind an added code becomes ",", so a prompt of item codes has other ids than the model was trained with. The
#   same file read with PreTrainedTokenizerFast gives the ids of before, and so does AutoTokenizer once `"legacy": true` is added to
#   tokenizer_config.json by hand; reading and saving that directory loses it again.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check transformers==5.19.0 tokenizers==0.23.3
cd "$work"
HF_HUB_OFFLINE=1 "$work/venv/bin/python" - <<'PY'
import json
from pathlib import Path

from transformers import AutoTokenizer, LlamaTokenizer, PreTrainedTokenizerFast

TEXT = "<a_1>, <a_1>"
pieces = ["<unk>", "<s>", "</s>", "▁", ",", "▁,", *(f"<0x{byte:02X}>" for byte in range(256))]
made = LlamaTokenizer(vocab={piece: number for number, piece in enumerate(pieces)}, merges=[("▁", ",")], legacy=True)
made.add_tokens(["<a_1>"])
made.save_pretrained("saved")


def ids(tokenizer: PreTrainedTokenizerFast) -> list[str]:
    return tokenizer.convert_ids_to_tokens(tokenizer(TEXT, add_special_tokens=False)["input_ids"])


config = Path("saved/tokenizer_config.json")
names_legacy = "legacy" in json.loads(config.read_text())
before, again = ids(made), ids(AutoTokenizer.from_pretrained("saved"))
plain = ids(PreTrainedTokenizerFast.from_pretrained("saved"))
config.write_text(json.dumps(json.loads(config.read_text()) | {"legacy": True}))
mended = AutoTokenizer.from_pretrained("saved")
by_hand = ids(mended)
mended.save_pretrained("again")
lost = ids(AutoTokenizer.from_pretrained("again"))
print("made:", before, "\nread again:", again, "\nread as PreTrainedTokenizerFast:", plain)
print("with legacy added by hand:", by_hand, "\nthat, saved and read again:", lost)
assert not names_legacy and before != again and before == plain == by_hand and lost == again
PY
