"""What templates must not do is a sentence within a moment, and what they may do with large numbers is done."""

import time

import pytest

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_tokenizers import byte_level

CATALOG = catalog_of({f"i{item}": [f"<a_{item}>", f"<b_{item}>"] for item in range(4)})
NUMBER = 1_700_000_000


def prompts(template: str) -> PromptBuilder:
    return PromptBuilder(prompt_of({"format": "jinja", "template": template}), PromptTokenizer.of(byte_level(CATALOG.tokens)), CATALOG)


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{{ ([[1]] * 1000000) | sum(start=[]) | length }}", "sum adds numbers"),
        ("{{ ('a' * 100000) | replace('a', 'x' * 100000) }}", "more than 1,000,000 letters or entries"),
        ("{{ ('a' * 100000).replace('a', 'x' * 100000) }}", "more than 1,000,000 letters or entries"),
        ("{{ (['a' * 1000] * 1000000) | join }}", "a text of more than 1,000,000 letters"),
        ("{{ ('x,' * 99999).split(',') | join('y' * 100000) }}", "more than 1,000,000"),
        ("{{ ('\\n' * 100000) | indent(9999) }}", "more than 1,000,000 letters"),
        ("{{ 'a' | indent(10001) }}", "a width above 10,000"),
        ("{{ 'a'.zfill(10001) }}", "a width above 10,000"),
        ("{{ 1 | round(10001, 'ceil') }}", "a width above 10,000"),
        ("{{ [1] | slice(1000000) | list }}", "a width above 10,000"),
        ("{{ [1] | map('center', 99999) | list }}", "a width above 10,000"),
        ("{{ [[1]] | tojson(indent=99999) }}", "a width above 10,000"),
        ("{{ ('\\t' * 9).expandtabs(9) }}", "'expandtabs' is out of reach"),
        ("{{ 'x'.translate({120: 'y'}) }}", "'translate' is out of reach"),
        ("{{ (1).to_bytes(9) }}", "'to_bytes' is out of reach"),
        ("{{ 'http://a' | urlize }}", "No filter named 'urlize'"),
        ("{{ 'a b' | wordwrap(1) }}", "No filter named 'wordwrap'"),
        ("{{ " + "(" * 3000 + "1" + ")" * 3000 + " }}", "nested too deeply"),
        ("{% if 1 %}" * 400 + "{% endif %}" * 400, "nested too deeply"),
        ("{% for i in [1] %}" * 60 + "{% endfor %}" * 60, "nested too deeply"),
        ("{{" * 300, "nested too deeply"),
        ("\ud800 {{ history | join }}", "one half of a surrogate pair"),
        ("{{ '\\ud800' }}{{ history | join }}", "one half of a surrogate pair"),
    ],
)
def test_what_takes_too_much_is_a_sentence(template: str, sentence: str) -> None:
    started = time.process_time()
    with pytest.raises(PromptError) as raised:
        prompts(template).build([0])
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ context.now | int }}", f"{NUMBER}"),
        ("{{ context.now | string | length }}", "10"),
        ("{{ context.then | default(1700000001) }}", f"{NUMBER + 1}"),
        ("{{ context.now | bucket(5000000) < 5000000 }}", "True"),
        ("{% macro hour(now) %}{{ now // 3600 % 24 }}{% endmacro %}{{ hour(context.now) }}", f"{NUMBER // 3600 % 24}"),
        ("{{ history | map(attribute='value') | map('int') | sum }}", f"{2 * NUMBER}"),
        ("{{ history | sum(attribute='index') }} {{ history | join(', ', attribute='index') }}", "3 1, 2"),
        ("{{ context.query | replace('a', 'bb') | upper }}", "BB LONG"),
        ("{{ [context.now, 7] | min }}", "7"),
    ],
)
def test_large_numbers_are_numbers(template: str, text: str) -> None:
    user = UserState([UserEvent(0, value=NUMBER), UserEvent(1, value=NUMBER)], context={"now": NUMBER, "query": "a long"})
    tokenizer = byte_level(CATALOG.tokens)
    assert prompts(template).build(user).tolist() == tokenizer(text)["input_ids"]


def test_a_value_that_is_no_text_is_said() -> None:
    with pytest.raises(PromptError, match="one half of a surrogate pair"):
        prompts("{{ context.query }}{{ history | join }}").build(UserState([UserEvent(0)], context={"query": "\ud800"}))
