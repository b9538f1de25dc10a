"""What templates see has no text by accident, and no sentence about a template has a value of a person in it."""

import logging
from typing import Any

import pytest

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_tokenizers import byte_level, every_part_marked

CATALOG = catalog_of({f"i{item}": [f"<a_{item}>", f"<b_{item}>"] for item in range(4)})
TOKENIZER = byte_level(CATALOG.tokens)
NAME = 'Jo\'hn "Doe"\t1970'


def prompts(template: str, **more: Any) -> PromptBuilder:
    return PromptBuilder(prompt_of({"format": "jinja", "template": template, **more}), PromptTokenizer.of(TOKENIZER), CATALOG)


@pytest.mark.parametrize(
    ("written", "sentence"),
    [
        ("{{ history }}", "a list of items is no text: join it, as in history | join(', ')"),
        ("{{ history[:2] ~ '.' }}", "a list of items is no text"),
        ("{{ [history] | string }}", "a list of items is no text"),
        ("{{ history | upper }}", "a list of items is no text"),
        ("{{ '%s' % [history] }}", "a list of items is no text"),
        ("{{ '{}'.format(behaviours.buy) }}", "a list of items is no text"),
        ("{% set text %}{{ behaviours.buy }}{% endset %}{{ text }}", "a list of items is no text"),
        ("{{ user }}", "user is no text, number or list: name one of its fields, as in user.NAME"),
        ("{{ context }}", "context is no text, number or list"),
        ("{{ behaviours }}", "behaviours is no text, number or list"),
        ("{{ history[0].event }}", "event is no text, number or list"),
        ("{{ history[0].attributes | string }}", "attributes is no text, number or list"),
        ("{{ history | join(', ', attribute='event') }}", "event is no text, number or list"),
        ("{{ user | tojson }}", "JSON can't hold user: name its fields"),
        ("{{ history | tojson }}", "JSON can't hold an item: name its fields"),
        ("{{ user.get('age') }}", "it calls a value as if it were a function: a field is read as user.NAME, or user['NAME']"),
        ("{{ behaviours | length }}", "behaviours is no text, number or list"),
        ("{{ history[0] | length }}", "an item is no text, number or list: name one of its fields, as in item.NAME"),
        ("{{ history | sort | join }}", "an item is no text, number or list"),
        ("{{ history[0] * 2 }}", "an item is no text, number or list"),
        ("{{ 'item ' + history[0] }}", "an item is no text, number or list"),
        ("{% for part in history[0] %}{% endfor %}", "an item is no text, number or list"),
        ("{{ history | map('upper') }}", "what it writes is no text but a generator"),
        ("{{ 'text'.upper }}", "what it writes is no text but a builtin_function_or_method"),
        ("{{ cycler('a', 'b') }}", "what it writes is no text but a Cycler"),
        ("{% macro line() %}{% endmacro %}{{ line }}", "what it writes is no text but a Macro"),
        ("{% for item in history %}{{ loop }}{% endfor %}", "what it writes is no text but a LoopContext"),
    ],
)
def test_what_has_no_text_of_its_own_is_refused_when_the_prompt_is_loaded(written: str, sentence: str) -> None:
    with pytest.raises(PromptError) as raised:
        prompts("{{ history | join }}\n" + written, behaviours={"buy": {}})
    assert sentence in str(raised.value)
    assert "line 2" in str(raised.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ history[0] }} {{ history[0] ~ '.' }} {{ history | join('-') }}", "<a_1><b_1> <a_1><b_1>. <a_1><b_1>-<a_2><b_2>"),
        ("{{ '%s and %s' % (history[0], user.age) }} {{ '{}'.format(history[1]) }}", "<a_1><b_1> and 31 <a_2><b_2>"),
        ("{{ user.likes }} {{ user.likes | tojson }} {{ [1, none, true, 0.5] }}", "['tea', 'it'] [\"tea\", \"it\"] [1, None, True, 0.5]"),
        ("{{ history[0] | upper }} {{ history | length }} {% if user and context and history[0] %}all{% endif %}", "<A_1><B_1> 2 all"),
        ("{{ history | map(attribute='event.price') | join(', ') }} {{ user | list }} {{ user | length }}", "1, 2 ['age', 'likes'] 2"),
        ("{{ context | length }}{% for name in user %} {{ name }}{% endfor %}", "0 age likes"),
    ],
)
def test_what_has_a_text_is_written(template: str, text: str) -> None:
    user = UserState(
        [UserEvent(1, attributes={"price": 1}), UserEvent(2, attributes={"price": 2})], {}, {"age": 31, "likes": ["tea", "it"]}
    )
    assert prompts(template).build(user).tolist() == TOKENIZER(text)["input_ids"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ {'a': 1}[user.name] }}",
        "{{ {'a': 1}[user.name | lower] }}",
        "{{ {'a': 1}[user.name.split(' ')[1]] }}",
        "{{ raise_exception('bad name ' ~ user.name | upper) if user.age }}",
        "{{ user[user.name | upper] }}",
        "{{ context[user.name[:4]] }}",
        "{{ history[0][user.name[:4]] }}",
        "{{ history[0].attributes[user.name[:4]] }}",
        "{{ user.name | attr('__' ~ user.name) }}",
        "{{ user.name + 1 }}",
        "{{ '%d' % user.name if user.age }}",
    ],
)
def test_no_sentence_has_anything_of_a_person_in_it_whatever_became_of_it(template: str) -> None:
    built = prompts("{{ history | join }}\n" + template)
    with pytest.raises(PromptError) as raised:
        built.build(UserState([UserEvent(1)], {}, {"name": NAME, "age": 31}))
    assert not any(part in str(raised.value).lower() for part in ("jo'h", "hn", "doe", "1970"))
    assert str(raised.value).startswith("The template in prompt.json, line 2: ")
    cause = raised.value.__cause__
    assert cause is None or "hn" not in str(cause)


def test_sentences_that_stand_in_the_template_are_told() -> None:
    built = prompts("{{ history | join }}{{ raise_exception('Say an age.') if user.name == 'x' }}{{ user_id }}")
    with pytest.raises(PromptError, match=r"line 1: Say an age\.$"):
        built.build(UserState([UserEvent(1)], profile={"name": "x"}, user_id="u"))
    with pytest.raises(PromptError, match=r"line 1: there is no user_id, and the template has no default for it\.$"):
        built.build(UserState([UserEvent(1)], profile={"name": "y"}))


def test_codes_are_checked_where_a_template_cannot_be_tried(caplog: pytest.LogCaptureFixture) -> None:
    form = prompt_of({"format": "jinja", "template": "{{ history | join(', ') }} {{ {'DE': 'German'}[user.country] }}"})
    cutting = every_part_marked(CATALOG.tokens, normalized=True)
    with pytest.raises(PromptError, match="The tokenizer cuts the code '<"):
        PromptBuilder(form, PromptTokenizer.of(cutting), CATALOG)
    with caplog.at_level(logging.WARNING):
        built = PromptBuilder(form, PromptTokenizer.of(TOKENIZER), CATALOG)
    assert "its codes are checked in plain lists alone" in caplog.text
    text = "<a_1><b_1> German"
    assert built.build(UserState([UserEvent(1)], profile={"country": "DE"})).tolist() == TOKENIZER(text)["input_ids"]


def test_a_kind_may_be_any_text() -> None:
    kinds: dict[str, Any] = {"add-to-cart": {}, "a b": {}}
    built = prompts("{{ behaviours['add-to-cart'] | join(', ') }}", behaviours=kinds)
    user = UserState([UserEvent(item, "add-to-cart" if item % 2 else "a b") for item in range(4)])
    assert built.build(user).tolist() == TOKENIZER("<a_1><b_1>, <a_3><b_3>")["input_ids"]
    assert built.reads == {"behaviours.add-to-cart", "behaviours.a b"}
    with pytest.raises(PromptError, match=r"there is no behaviours\.add: .* is read as behaviours\['add-to-cart'\]"):
        prompts("{{ behaviours.add }}", behaviours=kinds)


def test_an_item_compares_as_the_text_that_it_is_written_as() -> None:
    tests = (
        "history[0] == history[0].identifier",
        "history[0].identifier == history[0]",
        "history[0] == history[2]",
        "history[0] == behaviours.buy[0]",
        "history[1] != history[0].identifier",
        "'<a_1><b_1>' in history",
        "history[1] not in [history[0].identifier]",
        "history[0] in history[:1] | map(attribute='identifier') | list",
        "history[0] != 1 and history[0] != none and history[0] != user",
        "history | unique | list | length == 2",
        "(history | select('eq', '<a_1><b_1>') | list | length) == 2",
    )
    written = "".join(f"{{{{ 'y' if {test} else 'n' }}}}" for test in tests)
    builder = prompts(written + "{{ history | join }}", behaviours={"buy": {}})
    events = [UserEvent(1), UserEvent(2), UserEvent(1)]
    (text,) = (part.tokens for part in builder.parts(UserState(events, {"buy": [UserEvent(1)]})) if part.kind == "text")
    assert builder.tokenizer.decode(text.tolist()) == "y" * len(tests)
