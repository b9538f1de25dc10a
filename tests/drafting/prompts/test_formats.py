"""Prompts of published formats are, to the last id, what a tokenizer built like theirs makes of the text that plain Jinja writes."""

from dataclasses import replace
from functools import partial

import pytest

from drafting.catalog.catalog import Catalog
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserState
from tests.format_tokenizers import llama_2, llama_3, qwen, t5
from tests.prompt_formats import EXAMPLE, FORMATS, TAGS, Format, oracle_ids, oracle_text, some_users

START = 0
TOKENIZERS = {
    "Llama 2, legacy": partial(llama_2, legacy=True),
    "Llama 2": partial(llama_2, legacy=False),
    "Llama 3": llama_3,
    "Qwen": partial(qwen, special=TAGS),
    "T5": t5,
}


def assert_as_the_oracle(prompt: Format, catalog: Catalog, tokenizer, users: list[UserState]) -> None:
    """The tokenizer as the engine has it, and as the API process reads it from its text; each user's prompt follows another of theirs."""
    engines = PromptTokenizer.of(tokenizer)
    read = PromptTokenizer.of_text(engines.rust.to_str(), engines.bos_token_id, engines.chat_template, engines.special_tokens)
    form, start = prompt_of(prompt.contents), START if prompt.has_encoder else None
    for builder in (PromptBuilder(form, engines, catalog, start), PromptBuilder(form, read, catalog, start)):
        for user in users:
            before = replace(user, events=user.events[:-1] or user.events, user_id="ann")
            for state in (user, before, replace(user, user_id="ann")):
                expected = oracle_ids(prompt.contents, catalog, state, tokenizer) + [START] * prompt.has_encoder
                built = builder.build(state).tolist()
                assert built == expected
                assert built[: len(builder.shared_tokens)] == builder.shared_tokens.tolist()
                assert len(built) <= builder.max_tokens


@pytest.mark.parametrize("name", FORMATS)
def test_the_page_shows_the_text_that_the_prompt_has(name: str) -> None:
    prompt = FORMATS[name]
    catalog = prompt.catalog
    tokenizer = prompt.tokenizer(catalog.tokens)
    assert oracle_text(prompt.contents, catalog, EXAMPLE, tokenizer) == prompt.text
    assert_as_the_oracle(prompt, catalog, tokenizer, [EXAMPLE])


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", FORMATS)
def test_ids_are_those_of_the_whole_text(name: str, tokenizer: str) -> None:
    """Every format with every tokenizer that can write it; chats need a chat template."""
    prompt = FORMATS[name]
    catalog = prompt.catalog
    made = TOKENIZERS[tokenizer](catalog.tokens)
    made.chat_template = qwen([]).chat_template
    assert_as_the_oracle(prompt, catalog, made, some_users(len(catalog), 4))
