#!/usr/bin/env bash
# tokenizers 0.23.3: an added token with an accent is found in a text and comes back as other characters; a grammar of xgrammar 0.2.8 or
# llguidance 1.7.6 masks it out. "Björk" breaks, "Sigur Rós" doesn't.
#
# Guess: with the byte-level tokenizer of Qwen, Llama 3 or GPT-2, names added as tokens (one per item, artist or brand) are read, written and
#   allowed by a grammar alike, whatever letters they have: the text that an added token stands for is known.
# Seen: the decoder takes each character of an added token for one of the 256 signs that byte-level tokens are spelled with, where all of them
#   are such signs, as most letters of French, German, Spanish or Swedish are. "Björk" is decoded as "Bj", a broken byte, "rk", and "Čapek" as
#   a form feed and "apek", which is valid text. One other sign in the token, such as a space or a Chinese one, and it is right. Both grammar
#   libraries read the vocabulary in the same way, so of the titles that a grammar lists they allow such a token nowhere: what is left is to spell
#   it byte by byte, which a model that was trained on the token never does, so the item is not recommended. Nothing is said.
#   `convert_ids_to_tokens` gives the right names.
# Fails if that changes. (Installs PyTorch: some minutes and 6 GB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tokenizers==0.23.3 transformers==5.19.0 xgrammar==0.2.8 llguidance==1.7.6 \
  torch==2.13.0 numpy==2.4.6
cat > "$work/accents.py" <<'PY'
import llguidance
import llguidance.hf
import llguidance.torch
import torch
import xgrammar
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

BROKEN = {"Björk": "Bj\ufffdrk", "Beyoncé": "Beyonc\ufffd", "Motörhead": "Mot\ufffdrhead", "<Mylène>": "<Myl\ufffdne>", "Čapek": "\x0capek"}
RIGHT = ["Sigur Rós", "Édith Piaf", "東京事変", "Adele", "<a_17>"]
TITLES = [*BROKEN, *RIGHT]

rust = Tokenizer(models.BPE())
rust.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
rust.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
rust.train_from_iterator(["listen to some of it"], trainers.BpeTrainer(vocab_size=280, initial_alphabet=alphabet, special_tokens=["<eos>"]))
rust.add_tokens([AddedToken(title, normalized=False) for title in TITLES])
tokenizer = PreTrainedTokenizerFast(tokenizer_object=rust, eos_token="<eos>")
ids = {title: rust.token_to_id(title) for title in TITLES}

for title, number in ids.items():
    text = f"listen to {title} of it"
    read = tokenizer(text)["input_ids"]
    written = tokenizer.decode(read)
    print(f"{title!r}: one token of {len(read)}, decoded alone {tokenizer.decode([number])!r}, in a sentence {written!r}")
    assert read.count(number) == 1 and tokenizer.convert_ids_to_tokens(number) == title
    assert tokenizer.decode([number]) == rust.decode([number]) == BROKEN.get(title, title)
    assert (written == text) == (title in RIGHT)
    ordinary = f"listen to {title.replace(title[0], title[0] + ' ')} of it"
    assert tokenizer.decode(tokenizer(ordinary)["input_ids"]) == ordinary  # the same letters outside an added token

allowed: dict[str, list[str]] = {}
size = len(tokenizer)
compiler = xgrammar.GrammarCompiler(xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=size))
matcher = xgrammar.GrammarMatcher(compiler.compile_grammar("root ::= " + " | ".join(f'"{title}"' for title in TITLES)))
mask = xgrammar.allocate_token_bitmask(1, size)
matcher.fill_next_token_bitmask(mask)
allowed["xgrammar"] = [title for title, number in ids.items() if mask[0, number // 32].item() >> (number % 32) & 1]

other = llguidance.LLMatcher(llguidance.hf.from_tokenizer(tokenizer), llguidance.LLMatcher.grammar_from_regex("|".join(TITLES)))
mask = llguidance.torch.allocate_token_bitmask(1, size)
llguidance.torch.fill_next_token_bitmask(other, mask)
allowed["llguidance"] = [title for title, number in ids.items() if mask[0, number // 32].item() >> (number % 32) & 1]

for library, titles in allowed.items():
    print(f"{library}: of {TITLES} a grammar that lists them all allows the tokens {titles}")
    assert titles == [title for title in RIGHT if library == "xgrammar" or not title.startswith("<")], library
PY
cd "$work"
OMP_NUM_THREADS=1 HF_HUB_OFFLINE=1 venv/bin/python accents.py 2> errors || { cat errors; exit 1; }
