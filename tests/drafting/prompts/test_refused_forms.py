"""Prompts that can be built for no user are refused when they are loaded, and those that can be for some are not."""

import pytest

from drafting.catalog.builder import CatalogBuilder
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.source import TemplateFault
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_tokenizers import byte_level

BUILDER = CatalogBuilder()
BUILDER.add(
    [f"i{number}" for number in range(16)],
    [[f"<a_{number // 4}>", f"<b_{number % 4}>"] for number in range(16)],
    {"title": ["a very long title, " * 20, *["short"] * 15]},
)
CATALOG = BUILDER.catalog()
NO_SYSTEM = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{{ message.content }}{% endfor %}"
)


def template(source: str, max_tokens: int) -> PromptBuilder:
    form = prompt_of({"format": "jinja", "template": source, "max_tokens": max_tokens})
    return PromptBuilder(form, PromptTokenizer.of(byte_level(CATALOG.tokens)), CATALOG)


def chat(chat_template: str, content: str) -> PromptBuilder:
    tokenizer = byte_level(CATALOG.tokens)
    tokenizer.chat_template = chat_template
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": content}]
    return PromptBuilder(prompt_of({"chat": True, "messages": messages}), PromptTokenizer.of(tokenizer), CATALOG)


@pytest.mark.parametrize("refuses", [NO_SYSTEM, "{{ messages[0].content[0]['text'].strip() }}"])
def test_a_chat_template_that_refuses_every_chat_is_refused(refuses: str) -> None:
    with pytest.raises(TemplateFault, match=r"^The tokenizer's chat template, line 1: "):
        chat(refuses, "{{ history | join }}")


def test_a_chat_template_that_refuses_some_users_alone_is_not(caplog: pytest.LogCaptureFixture) -> None:
    built = chat("{% if '1' in messages[1].content %}{{ raise_exception('no ones') }}{% endif %}", "{{ user.age | default('none') }}")
    assert "could not be tried on a sample user" in caplog.text
    assert built.build([1]).tolist() == []
    with pytest.raises(PromptError, match="no ones"):
        built.build(UserState([UserEvent(1)], profile={"age": 31}))


@pytest.mark.parametrize(("source", "most"), [("<a_1>" * 40 + "{{ history | join }}", 30), ("{{ history | join }}", 2)])
def test_a_prompt_that_is_too_long_for_everyone_is_refused(source: str, most: int) -> None:
    with pytest.raises(TemplateFault, match=rf"tokens with few items, more than the {most} of max_tokens in prompt\.json\.$"):
        template(source, most)


@pytest.mark.parametrize("source", ["{{ history[-1].title }}", "{% if user.age %}{{ 'long ' * 40 }}{% endif %}{{ history | join }}"])
def test_a_prompt_that_is_too_long_for_some_is_not(source: str) -> None:
    built = template(source, 30)
    assert len(built.build([7])) <= 30
    with pytest.raises(PromptError, match="more than the 30 of max_tokens"):
        built.build(UserState([UserEvent(0)], profile={"age": 31}))
