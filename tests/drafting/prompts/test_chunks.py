"""The tokens of a text are those of its chunks, wherever chunks may begin."""

import numpy as np
import pytest
from tokenizers import AddedToken

from drafting.errors import PromptError
from drafting.prompts.chunks import ChunkTokenizer
from drafting.prompts.tokenizer import PromptTokenizer
from tests.prompt_tokenizers import KINDS, byte_level, first_word_marked

CODES = [f"<{level}_{code}>" for level in "abc" for code in range(3)]
WORDS = [*"<>_é1 ", "the ", "an", ", ", " on it", "\n", "  ", "日本", "<a", "<a_", "<a_1", "a_1>", "<<", "<unk>", "<s>", "</s>", "\u0301"]
# What else may be added: longer and shorter than codes, within them, across them, taking spaces, and words of their own.
OTHERS = {
    "none": [],
    "longer": [AddedToken("<a_1>, the", normalized=False), AddedToken("<a_1", normalized=False)],
    "the letter alone": [AddedToken("<", normalized=False)],
    "across": [AddedToken("an<a", normalized=False), AddedToken("1><b", normalized=False)],
    "within": [AddedToken("a_1>", normalized=False), AddedToken("n i", normalized=False)],
    "taking spaces": [AddedToken("<b>", normalized=False, lstrip=True), AddedToken("the", normalized=False, rstrip=True)],
    "a word": [AddedToken("an", normalized=False, single_word=True)],
    "normalized": [AddedToken("<a_1>, ", normalized=True), AddedToken("n<", normalized=True)],
    "a space": [AddedToken(f" {word}", normalized=False) for word in ("<x>", "x", "y", *map(str, range(20)))],
}


def chunks(kind: str, others: str, **flags: bool) -> tuple[ChunkTokenizer, PromptTokenizer]:
    tokenizer = PromptTokenizer.of(KINDS[kind](CODES, **flags))
    tokenizer.rust.add_tokens(OTHERS[others])
    return ChunkTokenizer(tokenizer), tokenizer


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("others", OTHERS)
@pytest.mark.parametrize("flags", [{}, {"rstrip": True}, {"lstrip": True}, {"normalized": True}], ids=str)
def test_ids_are_those_of_the_whole_text(kind: str, others: str, flags: dict[str, bool]) -> None:
    found, tokenizer = chunks(kind, others, **flags)
    rng = np.random.default_rng(0)
    pieces = [*CODES, *WORDS, *(token.content for token in OTHERS[others])]
    texts = ["".join(rng.choice(pieces, size=rng.integers(0, 30))) for _ in range(60)]
    for number, text in enumerate(texts):
        assert found.encode(text).tolist() == tokenizer.encode(text).tolist() == tokenizer.encoding(text).ids
        if number == 20:
            found.learn(texts[:15])


def test_where_chunks_begin() -> None:
    def letter(*tokens: AddedToken) -> str:
        rust = byte_level([]).backend_tokenizer
        rust.add_tokens(list(tokens))
        return ChunkTokenizer(PromptTokenizer(rust)).letter

    def raw(*texts: str, **flags: bool) -> list[AddedToken]:
        return [AddedToken(text, normalized=False, **flags) for text in texts]

    assert letter() == letter(*raw("<a_1>", "[x]")) == "<"
    assert letter(*raw("[a1]", "[a2]", "[a3]", "[a4]", "[a5]")) == "["
    assert letter(*raw("[a1]", "[a2]", "[a3]", "[a4]", "[a[5]")) == "<"
    assert letter(*raw("[a1]", "x<")) == "["
    assert letter(*raw("<|<")) == ""
    assert letter(*raw(*(f" {number}" for number in range(9)))) == "<"
    assert letter(*raw("the", single_word=True)) == ""


def test_codes_are_not_tokenised_again_nor_what_was_learned() -> None:
    tokenizer = PromptTokenizer.of(first_word_marked(CODES))
    found = ChunkTokenizer(tokenizer)
    read: list[str] = []
    plain = tokenizer.ids
    object.__setattr__(tokenizer, "ids", lambda text: read.append(text) or plain(text))
    found.encode("the " + "".join(CODES))
    found.learn([f"the {CODES[0]}, {CODES[1]} on it, and on, and on{CODES[0]}"])
    read.clear()
    found.encode(f"an {CODES[0]}, {CODES[1]}, {CODES[0]}, {CODES[1]} on it, and on, and on")
    assert read == [f"an {CODES[1]}, {CODES[1]} on it, and on, and on"]


def test_half_of_a_letter_is_no_text() -> None:
    for letter in ("<", "é"):
        found = ChunkTokenizer(PromptTokenizer.of(byte_level([f"{letter}1"])))
        with pytest.raises(PromptError, match="surrogate"):
            found.encode("an \ud800<s>")
