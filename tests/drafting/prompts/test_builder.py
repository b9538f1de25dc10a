"""Prompts are what the tokenizer makes of their whole texts, for every kind of tokenizer."""

from collections.abc import Callable

import numpy as np
import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.identifiers import covering_items
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState
from tests.prompt_tokenizers import KINDS, byte_level, every_part_marked, first_word_marked, words

RNG = np.random.default_rng(0)
CATALOG = catalog_of({f"i{item}": [f"<a_{a}>", f"<b_{b}>", f"<c_{c}>"] for item, (a, b, c) in enumerate(RNG.integers(9, size=(60, 3)))})
TEMPLATES = {
    "bare": PromptTemplate(max_items=8),
    "paper": PromptTemplate("Below is the history.\n\n### Instruction:\nThe user liked {history} in this order.\n\n### Response:", ", ", 8),
    "tight": PromptTemplate("the{history}, then", "an", 8),
    "spaces": PromptTemplate("  the  {history}  ", "  ,  ", 8),
    "lines": PromptTemplate("{history}\n", "\n", 8),
    "letters": PromptTemplate("日本 é {history} 🎬", " ß ", 8),
}
WAYS: dict[str, dict[str, bool]] = {
    "plain": {},
    "lstrip": {"lstrip": True},
    "rstrip": {"rstrip": True},
    "both": {"lstrip": True, "rstrip": True},
    "special": {"special": True},
}


def prompts(template: PromptTemplate, tokenizer: PreTrainedTokenizerFast) -> PromptBuilder:
    return PromptBuilder(template, PromptTokenizer.of(tokenizer), CATALOG)


def whole(template: PromptTemplate, history: list[int]) -> str:
    items = ["".join(CATALOG.identifier(item)) for item in history]
    return template.template.replace("{history}", template.separator.join(items))


def some_histories() -> list[list[int]]:
    rng = np.random.default_rng(3)
    return [rng.integers(len(CATALOG), size=length).tolist() for length in (1, 1, 2, 3, 5, 7, 8, 8)]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_a_prompt_is_its_whole_text_tokenised(kind: str, template: str) -> None:
    for flags in WAYS.values() if kind != "words" else [{}]:
        tokenizer = KINDS[kind](CATALOG.tokens, **flags)
        builder = prompts(TEMPLATES[template], tokenizer)
        for history in some_histories():
            expected = tokenizer(whole(TEMPLATES[template], history))["input_ids"]
            assert builder.build(history).tolist() == expected
            assert builder.build(UserState.of_items(history)).tolist() == expected
            assert len(expected) <= builder.max_tokens
            assert [token for part in builder.parts(history) for token in part.tokens.tolist()] == expected
            assert [part.item for part in builder.parts(history) if part.kind == "item"] == history
            assert expected[: len(builder.shared_tokens)] == builder.shared_tokens.tolist()


def test_the_longest_prompt_is_known() -> None:
    for template in TEMPLATES.values():
        builder = prompts(template, first_word_marked(CATALOG.tokens))
        assert builder.max_tokens == len(builder.build(list(range(8))))


def test_codes_that_treat_their_neighbours_unlike_are_read_in_the_whole_text() -> None:
    tokenizer = first_word_marked([token for token in CATALOG.tokens if token[1] == "a"])
    tokenizer.add_tokens([AddedToken(token, lstrip=True, rstrip=True, normalized=False) for token in CATALOG.tokens if token[1] != "a"])
    for template in TEMPLATES.values():
        builder = prompts(template, tokenizer)
        for history in some_histories():
            assert builder.build(history).tolist() == tokenizer(whole(template, history))["input_ids"]


@pytest.mark.parametrize("kind", ["first word marked", "every part marked", "byte level", "unigram"])
@pytest.mark.parametrize("template", [PromptTemplate(separator=" ", max_items=20), TEMPLATES["paper"], TEMPLATES["spaces"]])
def test_no_item_of_a_window_is_left_out_whichever_codes_meet(kind: str, template: PromptTemplate) -> None:
    """The separators of one history may all take tokens that those of another are spared."""
    tokenizer = KINDS[kind](())
    for number, code in enumerate(CATALOG.tokens):
        strips = {"lstrip": code[1] == "a" and number % 3 == 0, "rstrip": code[1] == "c" and number % 2 == 0}
        tokenizer.add_tokens([AddedToken(code, normalized=False, **strips)])
    builder = prompts(template, tokenizer)
    lengths = set()
    for item in range(len(CATALOG)):
        for history in ([item] * template.max_items, [item, item - 1] * (template.max_items // 2)):
            expected = tokenizer(whole(template, [each % len(CATALOG) for each in history]))["input_ids"]
            assert builder.build([each % len(CATALOG) for each in history]).tolist() == expected
            lengths.add(len(expected))
    assert min(lengths) < max(lengths) <= builder.max_tokens <= max(lengths) + 4


def test_a_prompt_longer_than_any_that_was_foreseen_is_refused() -> None:
    """Codes that are words: a longer word takes the beginning of one of them, but only behind one other item."""
    items = {f"{number}": [f"<a_{number % 7}>", f"<b_{number // 7}>"] for number in range(49)}
    catalog = catalog_of(items)
    tokenizer = words(catalog.tokens)
    builder = PromptBuilder(PromptTemplate(max_items=3), PromptTokenizer.of(tokenizer), catalog)
    assert len(builder.build([10, 10, 10])) == builder.max_tokens == 7
    tokenizer.add_tokens([AddedToken("_1><b_1><a", normalized=False)])
    with pytest.raises(PromptError, match=r"takes \d+ tokens, and at most 7 were foreseen"):
        builder.build([8, 8, 8])


def test_codes_that_another_token_begins_with_are_read_in_the_whole_text() -> None:
    """Behind some codes the text begins with other tokens than behind all that were tried."""
    template = PromptTemplate("the {history}, then", ", ", 8)
    covering = covering_items(CATALOG)
    tried = {CATALOG.identifier(int(item))[2] for item in (covering[0], covering[7], covering[-1])}
    last = next(item for item in range(len(CATALOG)) if CATALOG.identifier(item)[2] not in tried)
    tokenizer = first_word_marked([*CATALOG.tokens, f"{CATALOG.identifier(last)[2]}, th"])
    built = prompts(template, tokenizer).build([0, last]).tolist()
    assert built == tokenizer(whole(template, [0, last]))["input_ids"]
    assert tokenizer.convert_ids_to_tokens(built[-3]) == f"{CATALOG.identifier(last)[2]}, th"


@pytest.mark.parametrize("tokenizer", [first_word_marked, byte_level, words])
def test_appending_an_item_keeps_every_earlier_token(tokenizer: Callable[..., PreTrainedTokenizerFast]) -> None:
    builder = prompts(PromptTemplate("the {history}", ", "), tokenizer(CATALOG.tokens))
    shorter, longer = builder.build([4, 5]).tolist(), builder.build([4, 5, 6]).tolist()
    assert longer[: len(shorter)] == shorter


def test_a_code_that_the_tokenizer_cuts_up_is_named() -> None:
    """As `add_tokens(["<a_1>"])` does on a Llama-2 tokenizer.json: the normaliser is applied to the codes too."""
    with pytest.raises(PromptError, match=r"cuts the code '<[abc]_\d>' up") as raised:
        prompts(TEMPLATES["paper"], every_part_marked(CATALOG.tokens, normalized=True))
    assert "AddedToken(code, normalized=False)" in str(raised.value)


def test_codes_cut_up_nowhere_but_in_one_item_are_found() -> None:
    """The code is a word of the vocabulary, which other letters before it may take to pieces."""
    items = {f"{number}": [f"<a_{number}>", f"<b_{number}>"] for number in range(50)} | {"last": ["t", "h"]}
    catalog = catalog_of(items)
    tokenizer = first_word_marked([code for code in catalog.tokens if code.startswith("<")])
    with pytest.raises(PromptError, match=r"cuts the code '[th]' up"):
        PromptBuilder(TEMPLATES["bare"], PromptTokenizer.of(tokenizer), catalog)


def test_a_separator_that_no_prompt_has_is_not_tried() -> None:
    tokenizer = first_word_marked(CATALOG.tokens, single_word=True)
    with pytest.raises(PromptError, match="cuts the code"):
        prompts(PromptTemplate(separator="the", max_items=2), tokenizer)
    assert len(prompts(PromptTemplate(separator="the", max_items=1), tokenizer).build([1, 2])) == 4


def test_few_items_have_every_code() -> None:
    covering = covering_items(CATALOG)
    assert len(covering) <= 27
    for level in range(3):
        assert set(CATALOG.codes[covering, level]) == set(CATALOG.codes[:, level])


def test_empty_history() -> None:
    with pytest.raises(PromptError, match="history is empty"):
        prompts(PromptTemplate(), byte_level(CATALOG.tokens)).build([])


def test_tokenizer_without_a_beginning_token() -> None:
    tokenizer = byte_level(CATALOG.tokens)
    tokenizer.bos_token = None
    with pytest.raises(PromptError, match="add_bos"):
        prompts(PromptTemplate(), tokenizer)
    assert prompts(PromptTemplate(add_bos=False), tokenizer).build([0]).tolist() == CATALOG.token_ids(tokenizer.get_vocab())[0].tolist()


def test_a_decoders_start_ends_every_prompt() -> None:
    tokenizer = byte_level(CATALOG.tokens)
    identifiers = CATALOG.token_ids(tokenizer.get_vocab())
    builder = PromptBuilder(PromptTemplate(add_bos=False), PromptTokenizer.of(tokenizer), CATALOG, start_token=0)
    assert builder.build([7]).tolist() == [*identifiers[7].tolist(), 0]
    assert builder.parts([7])[-1].kind == "after"


class Slow:
    """A tokenizer of transformers that is written in Python."""

    bos_token_id = 1


def test_a_tokenizer_without_a_file_of_its_own_kind_is_refused() -> None:
    with pytest.raises(PromptError, match="a Slow, which is not of the tokenizers library"):
        PromptTokenizer.of(Slow())  # type: ignore[arg-type]
