"""What templates must not do is a sentence within a moment, and what they may do with large numbers is done."""

import itertools
import time

import pytest

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts import bounds
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
        ("{{ ('ab' * 9).encode('punycode') }}", "'encode' is out of reach"),
        ("{{ ('ab' * 9) | attr('encode')('idna') }}", "'encode' is out of reach"),
        ("{{ [[1]] | pprint }}", "No filter named 'pprint'"),
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


@pytest.mark.parametrize(
    "template",
    [
        "{% set t %}{% for i in range(50) %}{{ big }}{% endfor %}{% endset %}",
        "{% set t %}{% for i in range(50) %}" + "a constant " * 20 + "{% endfor %}{% endset %}",
        "{% macro m() %}{% for i in range(50) %}{{ big }}{% endfor %}{% endmacro %}{% set t = m() %}",
        "{% macro m() %}{{ caller() }}{{ caller() }}{% endmacro %}{% set t %}{% call m() %}{{ big * 9 }}{% endcall %}{% endset %}",
        "{% set t %}{% filter upper %}{% for i in range(50) %}{{ big }}{% endfor %}{% endfilter %}{% endset %}",
        "{% block b %}{{ 'a' * 1500 }}{% endblock %}{% for i in range(6) %}{% set t = self.b() ~ self.b() %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(50) %}{% set n.x = n.x + [big ~ i] %}{% endfor %}",
        "{% set n = namespace(x=[]) %}{% for i in range(50) %}{% set n.x = n.x + [big[1:]] %}{% endfor %}",
        "{% set t = ([big] * 50) | map('upper') | list %}",
        "{% set t %}{{ [big] * 50 }}{% endset %}",
        "{% set t = ([big] * 50) ~ '' %}",
        "{% set t = ([big] * 50) | string %}",
        "{% set t = ([[big] * 50] | upper) %}",
        "{% set t = {'a': [big] * 50} | tojson %}",
        "{% set t = {}.fromkeys(range(50), big).values() ~ '' %}",
        "{% set t = ','.join([big] * 50) %}",
        "{% set t = ','.join(([[big, 1]] * 50) | map('first')) %}",
        "{% set t = ([[[big] * 50]] | map('first')) | join %}",
        "{% set t = ('%(a)s' * 50) % dict(a=big) %}",
        "{% set t = ('%s' * 50) | format(*([big] * 50)) %}",
        "{% set t = ('{0}' * 50).format(big) %}",
        "{% set t = ('{a[0]}' * 50).format_map({'a': [big]}) %}",
        "{% set t = ('%(a)09999d' * 50) % {'a': 1} %}",
        "{% set t = ('{0:9999}' * 50).format(1) %}",
        "{% set t = [[[[1] * 50] * 5] * 5] | tojson(indent=99) %}",
    ],
)
def test_all_that_is_made_on_the_way_is_bounded(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Limits so small that nothing large is made where one is passed over.
    monkeypatch.setattr(bounds, "MAX_SIZE", 10_000)
    monkeypatch.setattr(bounds, "MAX_MADE", 20_000)
    with pytest.raises(PromptError, match=r"it makes .*more than \d\d,000 letters"):
        prompts("{% set big = 'a' * 999 %}" + template).build([0])
    monkeypatch.undo()
    prompts("{% set big = 'a' * 999 %}" + template).build([0])


TWICE = "{% set n = namespace(x=[1], y=[1]) %}{% for i in range(12) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, n.y] %}{% endfor %}"


@pytest.mark.parametrize(
    "compared",
    [
        "n.x == n.y",
        "n.x in [n.y]",
        "n.x is eq n.y",
        "[n.x, n.y] | sort",
        "[n.x] | select('eq', n.y) | list",
        "[n.x, n.y] | max",
        "1 < 2 < n.x",
    ],
)
def test_lists_that_lie_in_each_other_many_times_are_not_compared(compared: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SIZE", 2_000)
    with pytest.raises(PromptError, match=r"more than 2,000 (entries|letters)"):
        prompts(TWICE + "{% set t = " + compared + " %}").build([0])


TWICE_AS_KEYS = TWICE.replace("[1]", "(1,)").replace("[n.x, n.x]", "(n.x, n.x)").replace("[n.y, n.y]", "(n.y, n.y)")


@pytest.mark.parametrize(
    "looked_up",
    [
        "{n.x: 1}",
        "{}[n.x]",
        "{}.get(n.x)",
        "{}.fromkeys([n.x])",
        "dict([[n.x, 1]])",
        "dict([[[n.x, 1]]] | map('first'))",
        "[n.y].index(n.x)",
        "context[n.x]",
        "history | map(attribute=n.x) | list",
        "history | map(n.x) | list",
        "history | select(n.x) | list",
        "1 | attr(n.x)",
        "n.x is filter",
        "n.x is test",
        "raise_exception(n.x)",
        "[[n.x]] | map('first') | unique | list",
        "[[n.x], [n.y]] | map('first') | sort",
        "1 in ([[n.x]] | map('first'))",
    ],
)
def test_tuples_that_lie_in_each_other_many_times_are_not_looked_up(looked_up: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_SIZE", 2_000)
    with pytest.raises(PromptError, match=r"more than 2,000 (entries|letters)"):
        prompts(TWICE_AS_KEYS + "{% set t = " + looked_up + " %}").build([0])


def test_entries_take_more_memory_than_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounds, "MAX_MADE", 20_000)
    with pytest.raises(PromptError, match="more than 20,000 letters on its way"):
        prompts("{% set n = namespace(x=[]) %}{% for i in range(5) %}{% set n.x = [n.x, ('aa,' * 100).split(',')] %}{% endfor %}").build(
            [0]
        )


@pytest.mark.parametrize(
    "chain",
    [
        " | map('upper')" * 30 + " | join",
        " | map('int')" * 30 + " | sum",
        " | select('eq', 1)" * 30 + " | sum",
        " | select('odd')" * 30 + " | sum",
        " | select" * 30 + " | sum",
        " | reject('even')" * 30 + " | sum",
        " | map(attribute='real')" * 30 + " | sum",
    ],
)
def test_what_filters_do_one_after_the_other_is_timed(chain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every look at the clock takes a second.
    clock = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: float(next(clock)))
    with pytest.raises(PromptError, match="it takes more than 1 s"):
        prompts("{% set t = ([1] * 1000)" + chain + " %}").build([0])


@pytest.mark.parametrize(
    ("template", "sentence"),
    [
        ("{% set n = namespace(x=3) %}{% for i in range(22) %}{% set n.x = n.x * n.x %}{% endfor %}", "more than 4,000 bits"),
        ("{{ ('f' * 9999) | int(base=16) // 7 }}", "more than 4,000 bits"),
        ("{{ '%*d' % (99, 1) }}", "or with one that is a value"),
        ("{{ '%(a)-*d' % {'a': 1} }}", "or with one that is a value"),
        ("{{ '%.*f' % (99, 1) }}", "or with one that is a value"),
        ("{{ '{:{}}'.format(1, 99) }}", "or with one that is a value"),
        ("{{ '%999999d' | format(1) }}", "a width of six digits or more"),
        ("{{ ('<!---->' * 9999) | striptags }}", "more than 1,000,000 letters"),
        ("{{ (('<!---->' * 9999) | safe).striptags() }}", "'striptags' is out of reach"),
    ],
)
def test_numbers_widths_and_what_takes_the_square_of_a_text_are_bounded(template: str, sentence: str) -> None:
    with pytest.raises(PromptError) as raised:
        prompts(template).build([0])
    assert sentence in str(raised.value)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ '%s: %5.2f, %03d%%' % ('of 50000', 1.5, 7) }} {{ '%(a)s' % {'a': 2} }}", "of 50000:  1.50, 007% 2"),
        ("{{ '{{\"a\": {0}, \"b\": {1:>4}}}'.format(1, 2) }} {{ '%s-%s' | format(1, 2) }}", '{"a": 1, "b":    2} 1-2'),
        (
            "{{ [1, 2] == [1, 2] }} {{ 'a' in ['a'] }} {{ 1 < 2 <= 3 }} {{ [3, 1] | sort }} {{ 1 is in [1] }} {{ history[0] in history }}",
            "True True True [1, 3] True True",
        ),
        (
            "{% set k = {('a', 1): 'b', 2 ~ '': 'c'} %}{{ k['a', 1] }} {{ k.get('2') }} {{ dict([[('a', 1), 2]] | list)[('a', 1)] }} "
            "{{ [2, 1, 2] | map('string') | unique | sort | join }} {{ 1 in ([[1], [2]] | map('first')) }} {{ 'upper' is filter }}",
            "b c 2 12 True True",
        ),
        ("{{ 'abcdef'[1:3] }} {{ 'abcdef'[::-1][:2] }} {{ [1, 2, 3][1:] }} {{ '<b>a</b>' | striptags }}", "bc fe [2, 3] a"),
        ("{{ {'a': [1, {'b': none}], 'c': 'é'} | tojson(indent=1) }}", '{\n "a": [\n  1,\n  {\n   "b": null\n  }\n ],\n "c": "é"\n}'),
        (
            "{% set n = namespace(t='') %}{% for i in range(3) %}{% set n.t = n.t ~ i %}{% endfor %}{{ n.t }} {{ 2 ** 70 * 3 }}",
            f"012 {3 * 2**70}",
        ),
    ],
)
def test_what_is_measured_is_what_python_makes(template: str, text: str) -> None:
    assert prompts(template).build([0]).tolist() == byte_level(CATALOG.tokens)(text)["input_ids"]


def test_a_value_that_is_no_text_is_said() -> None:
    with pytest.raises(PromptError, match="one half of a surrogate pair"):
        prompts("{{ context.query }}{{ history | join }}").build(UserState([UserEvent(0)], context={"query": "\ud800"}))
