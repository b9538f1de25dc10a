#!/usr/bin/env bash
# llguidance 1.7.6 takes every added token that looks like <...> for a special token, so a grammar over semantic ids masks the codes out.
#
# Guess: where "<a_1>" and "<a_2>" are ordinary added tokens (special=False), the regex "<a_1>|<a_2>" allows these two tokens first.
# Seen: only the token "<" is allowed, then "a", then "_": the identifier can be written letter by letter alone, in tokens that no
#   recommender was trained to write there. Codes without angle brackets ("C1|C2") are allowed, and so is "<a_1>" where the grammar leaves
#   one single text. So with this backend, which is one of those of vLLM's structured outputs, identifiers of the kind of LC-Rec and
#   OpenOneRec are forced into other tokens than the model knows, without a word.
# Fails if that changes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check llguidance==1.7.6 tokenizers==0.23.3 numpy==2.2.6
"$work/venv/bin/python" - <<'PY'
from llguidance import LLMatcher, LLTokenizer
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers


def next_tokens(codes: list[str], expression: str, written: str) -> list[str]:
    """The tokens that a regex allows after letters that were written one by one, where the codes are ordinary added tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator([], trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet, special_tokens=["<eos>"]))
    tokenizer.add_tokens([AddedToken(code, special=False, normalized=False) for code in codes])
    ours = LLTokenizer(tokenizer.to_str(), eos_token=tokenizer.token_to_id("<eos>"))
    matcher = LLMatcher(ours, LLMatcher.grammar_from_regex(expression))
    assert all(matcher.consume_token(tokenizer.token_to_id(letter)) for letter in written)
    mask = allocate_token_bitmask(1, ours.vocab_size)
    fill_next_token_bitmask(matcher, mask, 0)
    return [tokenizer.id_to_token(i) for i in range(tokenizer.get_vocab_size()) if int(mask[0, i // 32]) >> (i % 32) & 1]


seen = {(text, written): next_tokens(codes, text, written) for codes, text, written in [
    (["<a_1>", "<a_2>"], "<a_1>|<a_2>", ""),
    (["<a_1>", "<a_2>"], "<a_1>|<a_2>", "<"),
    (["<a_1>", "<a_2>"], "<a_1>|<a_2>", "<a"),
    (["<a_1>", "<b_1>"], "<a_1>|<b_1>", ""),
    (["<a_1>", "<a_2>"], "<a_1>", ""),
    (["C1", "C2"], "C1|C2", ""),
]}
for (text, written), tokens in seen.items():
    print(f"{text} after {written!r}: {tokens}")
assert seen == {
    ("<a_1>|<a_2>", ""): ["<"], ("<a_1>|<a_2>", "<"): ["a"], ("<a_1>|<a_2>", "<a"): ["_"], ("<a_1>|<b_1>", ""): ["<"],
    ("<a_1>", ""): ["<a_1>"], ("C1|C2", ""): ["C", "C1", "C2"],
}
PY
