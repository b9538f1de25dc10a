"""Prompts of the second form: what templates see, what they may not do, and that prompts are what the tokenizer makes of their texts."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import PreTrainedTokenizerFast

from drafting.catalog.builder import CatalogBuilder
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm, load_prompt, prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_tokenizers import KINDS, every_part_marked, first_word_marked

RNG = np.random.default_rng(0)
ROWS = [[f"<a_{a}>", f"<b_{b}>"] for a, b in RNG.integers(5, size=(30, 2))]
CATALOG_BUILDER = CatalogBuilder()
CATALOG_BUILDER.add(
    [f"i{number}" for number in range(30)],
    ROWS,
    {"title": [f"The {number}th, again" for number in range(30)], "brand": [None if n % 2 else f"on{n % 3}" for n in range(30)]},
)
CATALOG = CATALOG_BUILDER.catalog()
EVENTS = [UserEvent(item, "buy" if item % 3 == 0 else "watch", item / 2, 1e9 + item, {"price": item}) for item in range(12)]
USER = UserState(EVENTS, {}, {"age": 31, "likes": ["tea", "it"]}, {"query": "an other, on it"}, "anna")
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|{{ message['role'] }}|>\n{% generation %}{{ message.content | trim }}"
    "{% endgeneration %}\n"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>\n{% if not enable_thinking %}<think>\n\n</think>{% endif %}{% endif %}"
)


def jinja(template: str, **more: Any) -> PromptForm:
    return prompt_of({"format": "jinja", "template": template, **more})


def prompts(form: PromptForm, tokenizer: PreTrainedTokenizerFast | None = None) -> PromptBuilder:
    return PromptBuilder(form, PromptTokenizer.of(tokenizer or first_word_marked(CATALOG.tokens)), CATALOG)


def text(form: PromptForm, user: UserState = USER) -> str:
    tokenizer = first_word_marked(CATALOG.tokens)
    tokens = prompts(form, tokenizer).build(user).tolist()
    assert tokens[0] == tokenizer.bos_token_id
    return "".join(tokenizer.convert_ids_to_tokens(tokens[1:])).replace("▁", " ").removeprefix(" ")


def identifiers(*items: int) -> str:
    return ", ".join("".join(ROWS[item]) for item in items)


def refusal(form: PromptForm, tokenizer: PreTrainedTokenizerFast | None = None) -> str:
    with pytest.raises(PromptError) as raised:
        prompts(form, tokenizer)
    return str(raised.value)


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("the {{ history | join(', ') }} then", f"the {identifiers(10, 11)} then"),
        ("{% for item in history %}\n{{ item.index }}. {{ item.title }}\n{% endfor %}", "1. The 10th, again\n2. The 11th, again\n"),
        ("{% for item in behaviours.buy %}{{ item }} {{ item.value }};{% endfor %}", f"{identifiers(9)} 4.5;{identifiers(6)} 3.0;"),
        (
            "{% for item in behaviours.watch %}{{ item.kind }} {{ item.time | int }} {% endfor %}",
            "watch 1000000008 watch 1000000010 watch 1000000011 ",
        ),
        ("{{ history[-1].event.price }} {{ history[0].attributes.brand }}", "11 on1"),
        ("{{ history[-1].attributes.brand | default('none') }}", "none"),
        ("{{ user.age }} {{ user.likes | join(' and ') }} {{ user.name | default('reader') }}", "31 tea and it reader"),
        ("{% if user.name %}to {{ user.name }}{% else %}to them{% endif %}", "to them"),
        ("{% if 'age' in user %}aged{% endif %}, {{ context.query }}", "aged, an other, on it"),
        ("{{ user['age'] + 1 }} {{ user_id }} {{ user_id | bucket(2000) }}", "32 anna 263"),
    ],
)
def test_what_a_template_sees(template: str, expected: str) -> None:
    form = jinja(
        template,
        history={"max_items": 2, "min_items": 2},
        behaviours={"buy": {"max_items": 2, "min_items": 2, "order": "newest"}, "watch": {"max_items": 3, "min_items": 3}},
    )
    assert text(form) == expected


def test_a_list_that_the_request_brings_takes_the_place_of_the_events_of_its_kind() -> None:
    form = jinja("{{ behaviours.buy | join(', ') }}", behaviours={"buy": {}})
    assert text(form) == identifiers(0, 3, 6, 9)
    assert text(form, UserState(EVENTS, {"buy": [UserEvent(7), UserEvent(8)]})) == identifiers(7, 8)
    assert text(form, UserState(EVENTS, {"buy": []})) == ""


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("special", [True, False])
def test_a_prompt_is_its_whole_text_tokenised(kind: str, special: bool) -> None:
    tokenizer = KINDS[kind](CATALOG.tokens)
    form = jinja(
        "the reader, {{ user.age | default('an age') }}: "
        "{% for item in history %}{{ item.index }}. {{ item }} {{ item.title }}, {% endfor %}on",
        add_special_tokens=special,
    )
    builder = prompts(form, tokenizer)
    for length in (1, 2, 5, 12):
        user = UserState(EVENTS[:length])
        lines = [f"{index}. {identifiers(event.item)} {CATALOG.title(event.item)}, " for index, event in enumerate(EVENTS[:length], 1)]
        whole = f"the reader, an age: {''.join(lines)}on"
        tokens = builder.build(user).tolist()
        assert tokens == tokenizer(whole, add_special_tokens=special)["input_ids"]
        assert [token for part in builder.parts(user) for token in part.tokens.tolist()] == tokens


@pytest.mark.parametrize("thinks", [True, False])
def test_a_chat_is_what_the_tokenizers_chat_template_writes(thinks: bool) -> None:
    tokenizer = first_word_marked(CATALOG.tokens)
    tokenizer.chat_template = CHAT
    system, user = "Read the history of {{ user.age }}.", "The history: {{ history | join(', ') }}\n"
    form = prompt_of(
        {
            "chat": True,
            "messages": [{"role": "system", "content": system}, {"role": "user", "content": user}],
            "variables": {"enable_thinking": thinks},
            "after": "\n<a_",
        }
    )
    messages = [
        {"role": "system", "content": "Read the history of 31."},
        {"role": "user", "content": f"The history: {identifiers(*range(12))}\n"},
    ]
    whole = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True, enable_thinking=thinks) + "\n<a_"
    assert isinstance(whole, str)
    assert ("<think>" in whole) is not thinks
    assert prompts(form, tokenizer).build(USER).tolist() == tokenizer(whole, add_special_tokens=False)["input_ids"]


def test_a_long_prompt_loses_its_oldest_items() -> None:
    builder = prompts(jinja("the {{ history | join(', ') }}", max_tokens=20))
    assert builder.max_tokens == 20
    for length in range(1, 13):
        tokens = builder.build(UserState(EVENTS[:length])).tolist()
        assert len(tokens) <= 20
        assert tokens[-2:] == CATALOG.token_ids(first_word_marked(CATALOG.tokens).get_vocab())[length - 1].tolist()
    # So long that it is not even tokenised.
    wide = prompts(jinja("{% for item in history %}{{ 'the ' * 750 }}{{ item }}{% endfor %}", history={"max_items": 60}))
    assert 0 < len(wide.build(UserState(EVENTS * 5))) <= 2048
    with pytest.raises(PromptError, match=r"takes 2\d tokens with few items, more than the 20 of max_tokens"):
        prompts(jinja("{{ context.query }}", max_tokens=20)).build(UserState(EVENTS, context={"query": "lots of letters, all of them"}))


def test_an_encoder_reads_what_stands_before_the_decoders_start() -> None:
    tokenizer = first_word_marked(CATALOG.tokens)
    builder = PromptBuilder(jinja("the {{ history | join }}", max_tokens=50), PromptTokenizer.of(tokenizer), CATALOG, start_token=0)
    assert builder.build([3]).tolist() == [*tokenizer("the " + identifiers(3))["input_ids"], 0]
    assert builder.max_tokens == 51
    assert builder.parts([3])[-1].kind == "after"
    purchases = jinja("{{ behaviours.buy | join }}", behaviours={"buy": {}}, add_special_tokens=False)
    (nothing,) = PromptBuilder(purchases, PromptTokenizer.of(tokenizer), CATALOG, start_token=0).parts(UserState([UserEvent(3, "watch")]))
    assert (nothing.kind, nothing.tokens.tolist()) == ("after", [0])


def test_prompts_of_users_begin_alike() -> None:
    builder = prompts(jinja("the reader: {{ history | join(', ') }}"))
    tokens = builder.build(USER).tolist()
    assert len(builder.shared_tokens) > 5
    assert tokens[: len(builder.shared_tokens)] == builder.shared_tokens.tolist()


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("hi\nlikes {{ likes }}", "line 2, column 10: there is no 'likes': a template knows history, behaviours, user, context, user_id"),
        ("{% for x in lipsum(5) %}{% endfor %}", "line 1, column 13: there is no 'lipsum'"),
        ("{{ behaviours.sold }}", "there is no behaviours.sold: buy is declared under behaviours"),
        ("{% for item in history %}\n{{ item.titel }}{% endfor %}", "line 2: an item has no 'titel': it has identifier, title"),
        ("{{ history[0].attributes.colour | default('') }}", "the catalog has no attribute 'colour': it has "),
        ("{% for x in history %}", "line 1: Unexpected end of template"),
        ("{% include 'other' %}", "stands alone and can't read another file"),
        ("{{ history.__class__.__mro__ }}", "line 1, column 12: '__class__' is out of reach"),
        ("{{ history['__class__'] }}", "'__class__' is out of reach"),
        ("{{ history | attr('__class__') }}", "'__class__' is out of reach"),
        ("{{ history | map(attribute='__class__') | list }}", "an item has no '__class__'"),
        ("{{ '{0.__class__}'.format(history) }}", "'__class__' is out of reach"),
        ("{{ history.append(1) }}", "'append' is out of reach"),
        ("{% for x in range(60000) %}{% endfor %}", "more than 50,000 turns"),
        ("{% for x in range(9999) %}{% for y in range(9999) %}{% endfor %}{% endfor %}", "more than 50,000 turns"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "recursion"),
        ("{% macro again(n) %}{% if n %}{{ again(n - 1) }}{{ again(n - 1) }}{% endif %}{% endmacro %}{{ again(40) }}", "50,000 turns"),
        ("{{ 'x' * 10 ** 9 }}", "more than 1,000,000 letters or entries"),
        ("{{ 9 ** 99999 }}", "more than 4,000 bits"),
        ("{{ 'x'.ljust(10000000) }}", "with a width above 10,000"),
        ("{{ 'x' | center(10000000) }}", "with a width above 10,000"),
        ("{{ '%99999999d' % 1 }}", "a width of six digits or more"),
        ("{{ '{:99999999}'.format(1) }}", "a width of six digits or more"),
        ("{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x ~ n.x %}{% endfor %}", "more than 1,000,000 letters"),
        ("{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}", "more than 1,000,000 letters"),
        ("{% set n = namespace(x='xx') %}{% for i in range(99) %}{% set n.x = [n.x, n.x] | join %}{% endfor %}", "more than 1,000,000"),
        ("{% for i in range(9999) %}{{ 'a' * 99 }}{% endfor %}", "it writes more than 75,536 letters"),
        ("{% set step_ = 1 %}", "'step_' is taken"),
        ("{{ history | shuffle }}", "No filter named 'shuffle'"),
        ("{{ history | random }}", "No filter named 'random'"),
    ],
)
def test_a_template_that_no_user_can_have_is_refused_when_it_is_loaded(template: str, sentence: str) -> None:
    said = refusal(jinja(template, behaviours={"buy": {}}))
    assert sentence in said
    assert said.startswith("The template in prompt.json")
    assert "\n" not in said


def test_what_is_missing_is_said_when_a_prompt_is_built() -> None:
    builder = prompts(jinja("the\n{{ user.age }}"))
    assert len(builder.build(USER)) > 1
    with pytest.raises(PromptError, match=r"prompt.json, line 2: there is no user\.age, and the template has no default for it\."):
        builder.build(EVENTS_ONLY)
    with pytest.raises(PromptError, match="there is no attribute 'brand' of item 'i11', and the template has no default"):
        prompts(jinja("{{ history[-1].attributes.brand }}")).build(EVENTS_ONLY)


EVENTS_ONLY = UserState(EVENTS)


@pytest.mark.parametrize(
    ("chat", "sentence"),
    [
        (None, "has no chat template"),
        ("{{ raise_exception('only two roles') }}", "The tokenizer's chat template, line 1: only two roles."),
        ("{% for m in messages %}", "The tokenizer's chat template, line 1: Unexpected end of template."),
        ("{{ messages[7].content.strip() }}", "The tokenizer's chat template, line 1: "),
        ("{% for m in range(99999) %}{% endfor %}", "more than 50,000 turns"),
    ],
)
def test_a_chat_template_that_fails_is_a_sentence(chat: str | None, sentence: str) -> None:
    tokenizer = first_word_marked(CATALOG.tokens)
    tokenizer.chat_template = chat
    form = prompt_of({"chat": True, "messages": [{"role": "user", "content": "{{ history | join }}"}]})
    with pytest.raises(PromptError) as raised:
        prompts(form, tokenizer).build(USER)
    assert sentence in str(raised.value)


def test_a_code_that_is_cut_up_is_found_in_a_template_that_shows_kinds() -> None:
    template = "{% for item in history %}{{ item.kind }}{{ item }}{% endfor %}"
    assert "cuts the code" in refusal(jinja(template), every_part_marked(CATALOG.tokens, normalized=True))


def test_a_code_that_the_tokenizer_cuts_up_is_named() -> None:
    said = refusal(jinja("the {{ history | join(', ') }}"), every_part_marked(CATALOG.tokens, normalized=True))
    assert said.startswith("The tokenizer cuts the code '<b_")


@pytest.mark.parametrize(
    ("contents", "sentence"),
    [
        ({"format": "jinja"}, "missing required field `template`"),
        ({"format": "jinja2", "template": ""}, "Invalid enum value 'jinja2' - at `$.format`"),
        ({"format": "jinja", "template": "", "separator": ","}, "unknown field `separator`"),
        ({"format": "jinja", "template": "", "history": {"max": 3}}, "unknown field `max` - at `$.history`"),
        ({"format": "jinja", "template": "", "history": {"max_items": 3, "min_items": 4}}, "between 1 and max_items = 3, got 4"),
        ({"format": "jinja", "template": "", "behaviours": {"": {}}}, "length >= 1"),
        ({"format": "jinja", "template": "", "behaviours": {"_buy": {}}}, "can't read behaviours of the kind '_buy': name it without"),
        ({"chat": True, "messages": [{"role": "a", "content": ""}], "behaviours": {"_buy": {}}}, "of the kind '_buy'"),
        ({"format": "jinja", "template": "", "max_tokens": 0}, ">= 1 - at `$.max_tokens`"),
        ({"format": "jinja", "template": "", "think": {"ends": "."}}, "A prompt's think is an object with the fields"),
        ({"chat": True}, "missing required field `messages`"),
        ({"chat": True, "messages": []}, "length >= 1"),
        ({"chat": False, "messages": [{"role": "user", "content": ""}]}, '"chat" is true or is left out'),
        ({"chat": True, "messages": [{"role": "user", "contents": ""}]}, "`$.messages[0]`"),
    ],
)
def test_what_is_no_prompt_is_said(tmp_path: Path, contents: dict[str, Any], sentence: str) -> None:
    (tmp_path / "prompt.json").write_text(json.dumps(contents))
    with pytest.raises(PromptError, match="is not a prompt template") as raised:
        load_prompt(tmp_path)
    assert sentence in str(raised.value)


def test_a_form_round_trip(tmp_path: Path) -> None:
    for form in (
        jinja(
            "{{ history }}", history={"max_items": 9}, behaviours={"buy": {"order": "newest"}}, think={"end": "</think>", "max_tokens": 9}
        ),
        prompt_of({"chat": True, "messages": [{"role": "user", "content": "{{ history }}"}], "variables": {"enable_thinking": False}}),
    ):
        form.save(tmp_path)
        assert load_prompt(tmp_path) == prompt_of(form.contents()) == form


@pytest.mark.parametrize(
    "template",
    [
        "{{ {'tea': 1}[user.a] }}",
        "{{ {18: 'young'}[user.n] }}",
        "{{ user[user.a] }}",
        "{{ context[context.b[0]] }}",
        "{{ history[0].event[user.a] }}",
        "{{ raise_exception('no ' ~ user.a) }}",
        "{{ history | selectattr('kind', user.a) | list }}",
        "{{ user.a | attr(context.b[0]) }}",
        "{{ {'buy': 1}[history[0].event.shop] }}",
        "{{ {'buy': 1}[history[0].kind] }}",
        "{{ {'anna': 1}[user_id] }}",
    ],
)
def test_no_sentence_quotes_what_is_known_of_a_user(template: str) -> None:
    built = prompts(jinja(template))
    event = UserEvent(1, "secret", 7319.0, 1e9, {"shop": "secret", "hidden": "7319"})
    user = UserState([event], {}, {"a": "secret", "n": 7319}, {"b": ["secret"]}, "secret")
    with pytest.raises(PromptError) as raised:
        built.build(user)
    assert "secret" not in str(raised.value)
    assert "7319" not in str(raised.value)
    assert str(raised.value) == "The template in prompt.json, line 1: it can't be rendered with a value that is known of this user."


def test_what_is_missing_is_said_whatever_else_is_known() -> None:
    built = prompts(jinja("{{ user.age }}"))
    with pytest.raises(PromptError, match=r"line 1: there is no user\.age, and the template has no default for it\.$"):
        built.build(UserState([UserEvent(1, "watch", 1.0)], {}, {"n": 1, "a": ""}, {"query": "tea"}, "1"))


@pytest.mark.parametrize(
    ("form", "reads"),
    [
        (prompt_of({"template": "{history}"}), set()),
        (jinja("{{ context.query }}", behaviours={"buy": {}}), {"context"}),
        (jinja("{% set context = 1 %}{{ user.age }} {{ behaviours.buy | join }}", behaviours={"buy": {}}), {"profile", "behaviours.buy"}),
        (
            prompt_of({"chat": True, "messages": [{"role": "a", "content": text} for text in ("{{ user_id }}", "{{ context.a }}")]}),
            {"context"},
        ),
    ],
)
def test_what_a_prompt_reads_is_known(form: PromptForm, reads: set[str]) -> None:
    tokenizer = first_word_marked(CATALOG.tokens)
    tokenizer.chat_template = CHAT
    assert prompts(form, tokenizer).reads == reads
