"""The field `think` of prompt.json: what it may be, and the tokens that it becomes."""

import json
from pathlib import Path

import pytest
from tokenizers import AddedToken
from transformers import PreTrainedTokenizerFast

from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import MOST_TOKENS, ThinkTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from tests.models import random_catalog, save_tokenizer

END = "</think>"


def tokenizer_with(folder: Path, *tokens: str) -> PreTrainedTokenizerFast:
    save_tokenizer(random_catalog(), folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in tokens])
    return tokenizer


def test_the_end_and_what_follows_are_the_tokens_of_the_whole_text(tmp_path: Path) -> None:
    tokenizer = tokenizer_with(tmp_path, END, "\n", "<|item_begin|>")
    template = PromptTemplate(think=ThinkTemplate(END, 20, "\n<|item_begin|>"))
    thinking = PromptBuilder(template, PromptTokenizer.of(tokenizer), random_catalog()).thinking
    assert thinking is not None
    assert tokenizer.convert_ids_to_tokens([*thinking.end, *thinking.after]) == [END, "\n", "<|item_begin|>"]
    assert (len(thinking.end), thinking.most_tokens) == (1, 23)
    assert PromptBuilder(PromptTemplate(), PromptTokenizer.of(tokenizer), random_catalog()).thinking is None


def test_an_end_that_melts_into_what_follows_is_refused(tmp_path: Path) -> None:
    tokenizer = PromptTokenizer.of(tokenizer_with(tmp_path, END, f"{END}<a"))
    with pytest.raises(PromptError, match=r"writes think\.end, '</think>', otherwise with '<a_0>' behind it"):
        ThinkTemplate(END, 20, "<a_0>").tokens(tokenizer.encode)


@pytest.mark.parametrize(
    "think",
    [
        *("", 5, [], {}, {"max_tokens": 5}, {"end": ""}, {"end": 5}, {"end": END, "begin": "<think>"}, {"end": END, "after": None}),
        *({"end": END, "max_tokens": most} for most in (0, -1, 2.5, True, "5", MOST_TOKENS + 1)),
    ],
)
def test_anything_else_is_a_sentence(think: object, tmp_path: Path) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps({"think": think}))
    with pytest.raises(PromptError, match=r"prompt\.json is not a prompt template: A prompt's think (is an object|has a text end)"):
        load_prompt(tmp_path)


def test_it_is_saved_and_read_back_and_left_out_where_there_is_none(tmp_path: Path) -> None:
    for template in (PromptTemplate(think=ThinkTemplate(END, 20, "\n")), PromptTemplate(max_items=3)):
        template.save(tmp_path)
        assert load_prompt(tmp_path) == template
    assert "think" not in json.loads((tmp_path / "prompt.json").read_text())
