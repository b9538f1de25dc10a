"""Tokens are reused only where that gives the tokens of the whole text."""

import numpy as np
import pytest
from tokenizers import AddedToken

from drafting.prompts.tails import TailTokenizer
from drafting.prompts.tokenizer import PromptTokenizer
from tests.prompt_tokenizers import KINDS, first_word_marked

CODES = [f"<{level}_{code}>" for level in "abc" for code in range(9)]
WORDS = ["the ", "an", ", ", " on it", "\n", "  ", "é", "日本", "<", "<a", "1", " "]


def tails(kind: str, most_bytes: int = 2**20, **flags: bool) -> tuple[TailTokenizer, PromptTokenizer]:
    tokenizer = PromptTokenizer.of(KINDS[kind](CODES, **flags))
    found = TailTokenizer(tokenizer, add_special_tokens=True, most_bytes=most_bytes)
    found.try_on(["the " + "".join(CODES) + ", an ", "é <a_1> on", "".join(f"the {code}, " for code in CODES)])
    return found, tokenizer


def random_text(rng: np.random.Generator) -> str:
    parts = [str(rng.choice(CODES if rng.random() < 0.6 else WORDS)) for _ in range(int(rng.integers(0, 40)))]
    return "".join(parts)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("flags", [{}, {"rstrip": True}, {"lstrip": True}, {"normalized": True}], ids=str)
def test_texts_that_begin_like_the_last_one(kind: str, flags: dict[str, bool]) -> None:
    found, tokenizer = tails(kind, **flags)
    rng = np.random.default_rng(0)
    text = ""
    for _ in range(150):
        # Cut in the middle of anything, and go on with something else.
        text = text[: int(rng.integers(0, len(text) + 1)) if rng.random() < 0.7 else len(text)] + random_text(rng)
        text = text[-400:] if rng.random() < 0.1 else text
        expected = tokenizer.encode(text, add_special_tokens=True)
        assert found.encode(text, "ann").tolist() == expected.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_letter_is_no_place_to_cut_at(kind: str) -> None:
    """Its token is an added one, too, but a text that begins with it is read as a beginning."""
    found, tokenizer = tails(kind)
    unknown = "<a_1><b_1>|<ane\u0301e\u0301\n\n|"
    for text in (f"{unknown}<a_2>?an", f"{unknown}?an", f"{unknown}<unk>\u0301<b_2>", f"{unknown}<unk>\u0301, an"):
        assert found.encode(text, "ann").tolist() == tokenizer.encode(text, add_special_tokens=True).tolist()


def test_only_the_tail_is_read_anew() -> None:
    found, tokenizer = tails("first word marked")
    read: list[int] = []
    plain = tokenizer.ids

    def counting(text: str, *, add_special_tokens: bool = False) -> list[int]:
        read.append(len(text))
        return plain(text, add_special_tokens=add_special_tokens)

    object.__setattr__(tokenizer, "ids", counting)
    history = "the " + ", ".join("".join(CODES[item % 9 :: 9]) + " on it" * 3 for item in range(60))
    letters = []
    for text, user in [
        (" then", "ann"),
        (", <a_1><b_1><c_1> then", "ann"),
        (", <a_1><b_1><c_1> then", "ann"),
        (", <a_1><b_1><c_1> then", None),
    ]:
        read.clear()
        found.encode(history + text, user)
        letters.append(sum(read))
    whole, tail, nothing, stranger = letters
    assert whole > 900
    assert tail < 120
    assert not nothing
    assert stranger > whole


def test_a_longer_token_that_begins_at_the_cut_is_seen() -> None:
    tokenizer = PromptTokenizer.of(first_word_marked([*CODES, "<c_8>, the<a_1>"]))
    found = TailTokenizer(tokenizer, add_special_tokens=False)
    found.try_on(["".join(f"the {code}, " for code in CODES)])
    for text in ("an <a_1><b_1><c_8>", "an <a_1><b_1><c_8>, the", "an <a_1><b_1><c_8>, the<a_1>", "an <a_1><b_1><c_8>, the<a_2>"):
        assert found.encode(text, "ann").tolist() == tokenizer.encode(text).tolist()


def test_memory_is_bounded_and_the_least_recently_read_goes_first() -> None:
    found, tokenizer = tails("byte level", most_bytes=15_000)
    text = "the " + "".join(CODES)
    for user in range(100):
        assert found.encode(text, str(user)).tolist() == tokenizer.encode(text, add_special_tokens=True).tolist()
    kept = len(found._known)
    assert 1 < kept < 20
    # The last ones, and no others.
    read = [found._known.get(str(user)) for user in range(100 - kept, 100)]
    assert None not in read
    assert sum(text.bytes for text in read if text is not None) <= 15_000


def test_a_user_who_is_forgotten_leaves_nothing() -> None:
    found, _ = tails("byte level")
    for user in ("ann", "bob"):
        found.encode("the " + "".join(CODES), user)
    found.forget("ann")
    found.forget("nobody")
    assert found._known.get("ann") is None
    assert found._known.get("bob") is not None
    assert len(found._known) == 1


def test_a_tokenizer_that_reads_tails_otherwise_reads_whole_texts() -> None:
    class Odd(PromptTokenizer):
        def ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
            return super().ids(f"an {text}" if text.startswith("<") else text, add_special_tokens=add_special_tokens)

    rust = first_word_marked(CODES).backend_tokenizer
    rust.add_tokens([AddedToken("<z>", normalized=False)])
    odd = Odd(rust)
    found = TailTokenizer(odd, add_special_tokens=False)
    found.try_on(["the " + "".join(CODES)])
    for text in ("the <a_1><b_1><c_1><a_2><b_2>", "the <a_1><b_1><c_1><a_2><b_2><a_1>"):
        assert found.encode(text, "ann").tolist() == odd.encode(text).tolist()
