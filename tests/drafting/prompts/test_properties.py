"""Random prompts with tokenizers of four kinds: ids are those of the whole text, and appending an item keeps what can be kept.

"What can be kept": up to the last code in what two texts have in common, nothing that comes later can change a token, because added tokens
split a text before anything else is done to it. So the prompts of a user before and after one more item share all tokens up to that code:
everything before the item, as long as the window begins where it did. A code that is a single word depends on the letter behind it, too.
"""

import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_formats import oracle_text
from tests.prompt_tokenizers import byte_level, every_part_marked, first_word_marked, unigram

IN_CI = 300
CASES = 5_000 if settings.get_current_profile_name() == "exhaustive" else IN_CI
KINDS = {"first word marked": first_word_marked, "every part marked": every_part_marked, "byte level": byte_level, "unigram": unigram}
FLAGS = ("normalized", "lstrip", "rstrip", "single_word", "special")
# Codes in brackets, codes that are words, codes that begin with one another, and codes of letters that normalisers change.
FORMS = ("<{}_{}>", "{}{}", "<|{}|{}", "[ﬁ{}é{}]")
NUMBERS = (1, 2, 12, 123, 3)
MARK = "\ue000"
ITEMS = 12
TITLES = ("the tent", "", " a ", "<a_1>", "a1", "é 1", "e\u0301", "日本 🎬", "ﬁre", "▁", "\n", "it's 2", None, "<s>", "x" * 30)
TEXTS = (
    " ",
    "  ",
    ", ",
    ",",
    "\n",
    "\n\n",
    "the ",
    "an",
    "1. ",
    ".",
    "é",
    "e\u0301",
    "日本",
    "🎬",
    "▁",
    "<",
    ">",
    "_",
    "<a",
    "</s>",
    "'s",
    "\t",
)
TEXTS += ("ﬁ", "\u00a0", "ß", "er", "tt", "A", ":", "[", "]", "|")
text = st.lists(st.sampled_from(TEXTS), max_size=4).map("".join)


@cache
def catalog(form: str) -> Catalog:
    rows = np.random.default_rng(0).choice(NUMBERS, size=(ITEMS, 3)).tolist()
    names = {f"i{item}": [form.format("abc"[level], number) for level, number in enumerate(row)] for item, row in enumerate(rows)}
    return catalog_of(names, titles={f"i{item}": title for item, title in enumerate(TITLES[:ITEMS]) if title is not None})


@cache
def tokenizer(kind: str, form: str, flags: frozenset[str]) -> PreTrainedTokenizerFast:
    return KINDS[kind](catalog(form).tokens, **{flag: flag in flags for flag in FLAGS})


@st.composite
def loops(draw: st.DrawFn) -> str:
    """A piece of a template that shows a list."""
    name = draw(st.sampled_from(["history", "behaviours.buy", "behaviours.like"]))
    if draw(st.booleans()):
        return f"{{{{ {name} | join({draw(text)!r}) }}}}"
    title = "{{ item.title | default('-') }}"
    number = "{{ item.index }}"
    shown = draw(st.permutations(["{{ item }}", *draw(st.lists(st.sampled_from([title, number, "{{ item.kind }}"]), max_size=2))]))
    return f"{{% for item in {name} %}}{''.join(each + draw(text) for each in shown)}{{% endfor %}}"


VALUES = ("{{ context.query | default('') }}", "{{ user.age | default('?') }}", "{% if user.age %}aged{% endif %}")
templates = st.lists(text | loops() | st.sampled_from(VALUES), max_size=4)
windows = st.fixed_dictionaries({"max_items": st.integers(2, 7)}, optional={"order": st.sampled_from(["oldest", "newest"])})


@st.composite
def forms(draw: st.DrawFn) -> dict[str, Any]:
    """The contents of a `prompt.json`, in one of its two forms."""
    if draw(st.booleans()):
        before, after, separator = draw(text), draw(text), draw(text)
        contents = {"template": before + "{history}" + after, "separator": separator, "max_items": draw(st.integers(1, 7))}
        return contents | {"add_bos": draw(st.booleans())}
    pieces = draw(templates)
    pieces.insert(draw(st.integers(0, len(pieces))), draw(loops()))
    lists = {"history": draw(windows), "behaviours": {"buy": draw(windows), "like": draw(windows)}}
    return {"format": "jinja", "template": "".join(pieces), "add_special_tokens": draw(st.booleans()), **lists}


events = st.builds(UserEvent, st.integers(0, ITEMS - 1), st.sampled_from(["buy", "like", "watch"]))
users = st.builds(
    UserState,
    st.lists(events, min_size=1, max_size=12),
    profile=st.fixed_dictionaries({}, optional={"age": st.sampled_from(["31", "a1", "é"])}),
    context=st.fixed_dictionaries({}, optional={"query": text}),
    user_id=st.sampled_from(["u", None]),
)


def whole(contents: dict[str, Any], catalog: Catalog, user: UserState, tokenizer: PreTrainedTokenizerFast) -> tuple[str, list[int]]:
    """The text of a prompt, and its ids."""
    if "format" in contents:
        written = oracle_text(contents, catalog, user, tokenizer)
        return written, tokenizer(written, add_special_tokens=contents["add_special_tokens"])["input_ids"]
    joined = {"template": f"{{{{ history | join({contents['separator']!r}) }}}}", "history": contents}
    written = contents["template"].replace("{history}", oracle_text(joined, catalog, user, tokenizer))
    return written, tokenizer(written, add_special_tokens=contents["add_bos"])["input_ids"]


def is_cut_up(code: str, contents: dict[str, Any], form: str, tokenizer: PreTrainedTokenizerFast) -> bool:
    """True if there is a history in whose text the code is not read everywhere."""
    items, marked = catalog(form), catalog(f"{MARK}{form}{MARK}")
    number = tokenizer.convert_tokens_to_ids(code)
    having = [item for item in range(ITEMS) if code in items.identifier(item)]
    for history in [*([item] for item in having), having, list(range(ITEMS))]:
        events = [UserEvent(item, kind) for item in history for kind in ("buy", "like", "watch")] * 3
        for user in (UserState(events[:3]), UserState(events, profile={"age": "1"}, context={"query": "1"})):
            written = whole(contents, marked, user, tokenizer)[0].count(f"{MARK}{code}{MARK}")
            if whole(contents, items, user, tokenizer)[1].count(number) < written:
                return True
    return False


def kept(before: str, after: str, codes: tuple[str, ...]) -> str:
    """The beginning of two texts up to the last code in what they have in common, with the longest code's length behind it."""
    differing = (place for place, (one, other) in enumerate(zip(before, after, strict=False)) if one != other)
    same = next(differing, min(len(before), len(after))) - max(map(len, codes))
    found = re.finditer("|".join(map(re.escape, sorted(codes, key=len, reverse=True))), before)
    return before[: max((each.end() for each in found if each.end() <= same), default=0)]


@pytest.mark.parametrize("kind", KINDS)
@settings(
    max_examples=CASES // len(KINDS),
    derandomize=CASES == IN_CI,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(contents=forms(), form=st.sampled_from(FORMS), flags=st.frozensets(st.sampled_from(FLAGS), max_size=2), user=users, event=events)
def test_ids_are_those_of_the_whole_text(
    kind: str, contents: dict[str, Any], form: str, flags: frozenset[str], user: UserState, event: UserEvent
) -> None:
    items, reader = catalog(form), tokenizer(kind, form, flags)
    try:
        builder = PromptBuilder(prompt_of(contents), PromptTokenizer.of(reader), items)
    except PromptError as error:
        code = str(error).removeprefix("The tokenizer cuts the code '").partition("' up")[0]
        assert code in items.tokens
        assert is_cut_up(code, contents, form, reader)
        return
    grown = replace(user, events=[*user.events, event])
    texts, prompts = [], []
    for state in (user, grown, user):
        written, expected = whole(contents, items, state, reader)
        assert builder.build(state).tolist() == expected
        texts.append(written)
        prompts.append(expected)
    special = contents.get("add_special_tokens", contents.get("add_bos"))
    shared = "" if "single_word" in flags else kept(*texts[:2], items.tokens)
    beginning = reader(shared, add_special_tokens=special)["input_ids"]
    assert prompts[0][: len(beginning)] == prompts[1][: len(beginning)] == beginning
