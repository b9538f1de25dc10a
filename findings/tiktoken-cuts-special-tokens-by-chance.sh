#!/usr/bin/env bash
# tiktoken 0.14.0: of special tokens that begin alike half are cut apart, as the order of a hash table has it: "C10" becomes "C1" and "0".
#
# Guess: a special token that is allowed and stands in the text is found whole, the longest first, as in tokenizers 0.23.3, and what else
#   is in the vocabulary changes nothing about it.
# Seen: all special tokens become the branches of one regular expression in the order of a hash table, and the first that fits wins. Of codes
#   "C0" to "C255" 128 are encoded as a shorter code and digits, so as other codes than meant and more tokens; decoding gives the text back,
#   so a round trip finds nothing. With 1,000 codes others of these 256 are cut than with 256: a text has other ids once items are added,
#   though no id has changed. Codes that close ("<a_10>") are whole, as none begins another one. tokenizers finds all.
# Fails if that changes. (Installs 20 MB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check tiktoken==0.14.0 tokenizers==0.23.3
"$work/venv/bin/python" - <<'PY'
import tiktoken
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

FEW, MANY = 256, 1_000


def cut(form: str, count: int) -> dict[str, list[int]]:
    """Those of the first 256 codes that are not encoded as themselves in a vocabulary of so many, and as what."""
    special = {form.format(code): 256 + code for code in range(count)}
    encoding = tiktoken.Encoding("codes", pat_str=r"\w+|\W+", mergeable_ranks={bytes([byte]): byte for byte in range(256)}, special_tokens=special)
    found = {}
    for code, token in list(special.items())[:FEW]:
        tokens = encoding.encode(code, allowed_special="all")
        assert encoding.decode(tokens) == code and encoding.encode_single_token(code) == token
        if tokens != [token]:
            found[code] = tokens
    return found


def cut_by_tokenizers(form: str, count: int) -> list[str]:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    codes = [form.format(code) for code in range(count)]
    tokenizer.add_special_tokens([AddedToken(code, special=True, normalized=False) for code in codes])
    return [code for code in codes if tokenizer.encode(code).ids != [tokenizer.token_to_id(code)]]


for form in ("C{}", "item_{}", "<a_{}>"):
    few, many = cut(form, FEW), cut(form, MANY)
    moved = sum(few.get(code) != many.get(code) for code in {*few, *many})
    example = next(iter(few.items()), "none")
    print(f"{form}: {len(few)} of {FEW} cut, such as {example}; of the same in a vocabulary of {MANY}: {len(many)}, {moved} with other ids than before")
    assert not cut_by_tokenizers(form, FEW)
    if form.endswith(">"):
        assert not few and not many
    else:
        assert len(few) > FEW / 4 and len(many) > FEW / 4 and moved > FEW / 10
        assert all(tokens[0] >= 256 and all(token in b"0123456789" for token in tokens[1:]) for tokens in few.values())
PY
