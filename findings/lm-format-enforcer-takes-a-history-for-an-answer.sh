#!/usr/bin/env bash
# lm-format-enforcer 0.11.3: once a beam search has passed over an item, a prompt that ends with that item is taken for a finished answer: its
# list is empty.
#
# Guess: what is allowed depends on what was generated after the prompt, so an enforcer that is made once serves one prompt after another
#   (as a function that is handed to a pipeline together with many prompts must); batches and beam search are supported, as its
#   documentation says.
# Seen: where a prompt ends and an answer begins is told by what was asked before: a sequence that is one token longer than one of before is
#   its continuation. Where prompts are the codes of a history and nothing else, a user who takes the first of ten items has a history that
#   was a beam of the search before: all that is allowed is the end token. So it is with any item that shares its first two codes with a
#   beam, of whichever user had the shorter history: of 500 users with one item and then two, 70 get no item the second time, though items
#   are drawn at random of 512 here. With an enforcer for each prompt all get ten. Nothing is said.
# Fails if that changes. (Installs 30 MB.)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check lm-format-enforcer==0.11.3 interegular==0.3.3
"$work/venv/bin/python" - <<'PY'
import logging
import random

from lmformatenforcer import RegexParser, TokenEnforcer
from lmformatenforcer.tokenenforcer import TokenEnforcerTokenizerData

CODES, WIDTH, USERS = 8, 10, 500
VOCABULARY = ["<pad>", "</s>", *(f"<{level}_{code}>" for level in "abc" for code in range(CODES))]
END = VOCABULARY.index("</s>")
said: list[logging.LogRecord] = []
handler = logging.Handler()
handler.emit = said.append
logging.getLogger().addHandler(handler)
data = TokenEnforcerTokenizerData(
    [(token, text, False) for token, text in enumerate(VOCABULARY) if token > END], lambda tokens: "".join(VOCABULARY[each] for each in tokens),
    END, False, len(VOCABULARY),
)


def enforcer() -> TokenEnforcer:
    last = CODES - 1
    return TokenEnforcer(data, RegexParser(f"<a_[0-{last}]><b_[0-{last}]><c_[0-{last}]>"))


def score(tokens: tuple[int, ...]) -> float:
    """A log-probability that only the sequence decides."""
    return -random.Random(str(tokens)).expovariate(1)


def recommended(prompt: tuple[int, ...], enforcer: TokenEnforcer) -> list[tuple[int, ...]]:
    """The items that a beam search over what is allowed finds after a prompt: three codes and the end."""
    beams = [(0.0, prompt)]
    for _ in range(3):
        grown = [
            (total + score((*tokens, token)), (*tokens, token))
            for total, tokens in beams for token in enforcer.get_allowed_tokens(list(tokens)).allowed_tokens if token != END
        ]
        beams = sorted(grown, reverse=True)[:WIDTH]
    for _, tokens in beams:
        assert enforcer.get_allowed_tokens(list(tokens)).allowed_tokens == [END]
    return [tokens[len(prompt):] for _, tokens in beams]


def item(chance: random.Random) -> tuple[int, ...]:
    return tuple(2 + level * CODES + chance.randrange(CODES) for level in range(3))


def names(tokens: list[int]) -> str:
    return " ".join(VOCABULARY[token] for token in sorted(tokens))


chance = random.Random(0)
history = item(chance)
shared = enforcer()
first = recommended(history, shared)
taken = (*history, *first[0])
print("history:", names(history), "| items found:", len(first), "| the first is taken:", names(first[0]))
print("allowed after it:", names(shared.get_allowed_tokens(list(taken)).allowed_tokens))
print("allowed by an enforcer of its own:", names(enforcer().get_allowed_tokens(list(taken)).allowed_tokens))
assert len(first) == WIDTH and shared.get_allowed_tokens(list(taken)).allowed_tokens == [END]
assert len(enforcer().get_allowed_tokens(list(taken)).allowed_tokens) == CODES

histories = [(item(chance), item(chance)) for _ in range(USERS)]
shared = enforcer()
assert all(len(recommended(one, shared)) == WIDTH for one, _ in histories)
served = [len(recommended((*one, *two), shared)) for one, two in histories]
alone = [len(recommended((*one, *two), enforcer())) for one, two in histories[:50]]
print(f"second requests of {USERS} users without an item: {served.count(0)}; with an enforcer for each of {len(alone)}: {alone.count(0)}; logged: {len(said)}")
assert served.count(0) > USERS / 10 and set(served) <= {0, WIDTH} and set(alone) == {WIDTH} and not said
PY
