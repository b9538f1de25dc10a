"""A prompt that would be too long loses what it must of its longest lists, begins where it began before, and costs little to find."""

import itertools
import time
from typing import Any

import numpy as np
import pytest

from drafting.catalog.builder import CatalogBuilder
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import prompt_of
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.user_state import UserEvent, UserState
from tests.prompt_tokenizers import byte_level

ITEMS = 64
BUILDER = CatalogBuilder()
BUILDER.add(
    [f"i{number}" for number in range(ITEMS)],
    [[f"<a_{number // 8}>", f"<b_{number % 8}>"] for number in range(ITEMS)],
    {"title": ["x" * int(length) for length in np.random.default_rng(0).integers(1, 30, ITEMS)]},
)
CATALOG = BUILDER.catalog()
TOKENIZER = byte_level(CATALOG.tokens)
WATCHED_AND_BOUGHT = (
    "{% for item in history %}{{ item.title }} {{ item }}, {% endfor %}|{% for item in behaviours.buy %}{{ item }} {% endfor %}"
)


class Counting(PromptTokenizer):
    """A tokenizer that counts the texts it reads."""

    read = 0

    def ids(self, text: str, *, add_special_tokens: bool = False) -> list[int]:
        Counting.read += 1
        return super().ids(text, add_special_tokens=add_special_tokens)


def prompts(template: str, max_tokens: int, **windows: Any) -> PromptBuilder:
    form = prompt_of({"format": "jinja", "template": template, "max_tokens": max_tokens, **windows})
    return PromptBuilder(form, Counting.of(TOKENIZER), CATALOG)


def shown(builder: PromptBuilder, user: UserState) -> tuple[list[int], list[int]]:
    """The items of the two lists of a prompt."""
    codes = {number: item for item, number in enumerate(CATALOG.token_ids(TOKENIZER.get_vocab())[:8, 1].tolist())}
    firsts = {number: item for item, number in enumerate(CATALOG.token_ids(TOKENIZER.get_vocab())[::8, 0].tolist())}
    tokens = builder.build(user).tolist()
    bar = tokens.index(TOKENIZER.convert_tokens_to_ids("|"))
    lists = tokens[:bar], tokens[bar:]
    found = [[8 * firsts[first] + codes[last] for first, last in itertools.pairwise(part) if first in firsts] for part in lists]
    return found[0], found[1]


def test_as_little_is_left_out_as_needed_of_the_longest_list_first() -> None:
    events = [*(UserEvent(item, "watch") for item in range(18)), UserEvent(40, "buy"), UserEvent(41, "buy")]
    items = [event.item for event in events]
    windows = {"history": {"max_items": 20, "min_items": 20}, "behaviours": {"buy": {"max_items": 2, "min_items": 2}}}
    user = UserState(events)
    whole = prompts(WATCHED_AND_BOUGHT, 5000, **windows).build(user)
    for left in range(1, 20):
        # Room for exactly so many items: the text of the others is what is missing.
        room = len(prompts(WATCHED_AND_BOUGHT, 5000, **windows | {"history": {"max_items": left, "min_items": left}}).build(user))
        assert room < len(whole)
        bought = [40, 41] if left > 1 else [40, 41][-1:]
        limit = room if left > 1 else room - 1
        assert shown(prompts(WATCHED_AND_BOUGHT, limit, **windows), user) == (items[-left:], bought)
        if left > 1:
            fewer = shown(prompts(WATCHED_AND_BOUGHT, room - 1, **windows), user)[0]
            assert fewer == items[1 - left :]


def test_a_prompt_that_is_cut_begins_where_it_did_for_several_items() -> None:
    history = np.random.default_rng(1).integers(ITEMS, size=200).tolist()
    builder = prompts(WATCHED_AND_BOUGHT, 200, history={"max_items": 40}, behaviours={"buy": {}})
    lists = [shown(builder, UserState([UserEvent(item) for item in history[:length]]))[0] for length in range(60, 200)]
    assert all(len(items) < 20 and items == history[length - len(items) : length] for length, items in enumerate(lists, 60))
    kept = [after[: len(before)] == before for before, after in itertools.pairwise(lists)]
    assert np.mean(kept) > 0.6
    assert np.mean([len(items) for items in lists]) > 6


@pytest.mark.parametrize("max_items", [1, 20, 1000])
def test_what_can_never_fit_is_refused_after_the_shortest_lists(max_items: int) -> None:
    builder = prompts("{{ context.query }} {{ history | join }}", 300, history={"max_items": max_items})
    user = UserState([UserEvent(item % ITEMS) for item in range(max_items)], context={"query": "lots of letters, " * 100})
    Counting.read = 0
    with pytest.raises(PromptError, match="with few items, more than the 300 of max_tokens"):
        builder.build(user)
    assert Counting.read <= 2


def test_finding_what_fits_takes_few_texts() -> None:
    builder = prompts(WATCHED_AND_BOUGHT, 300, history={"max_items": 1000, "min_items": 1000}, behaviours={"buy": {}})
    Counting.read = 0
    assert 250 < len(builder.build(UserState([UserEvent(item % ITEMS) for item in range(2000)]))) <= 300
    assert Counting.read <= 12


LOOPS = "{% for item in history %}{% for i in range(40) %}{% endfor %}{{ item }}, {% endfor %}|"


@pytest.mark.parametrize("milliseconds", [0.0001, 0.01, 0.05, 0.1, 0.25, 1])
def test_a_slow_machine_makes_the_same_prompt_or_none(monkeypatch: pytest.MonkeyPatch, milliseconds: float) -> None:
    builder = prompts(LOOPS, 300, history={"max_items": 1000, "min_items": 1000})
    user = UserState([UserEvent(item % ITEMS) for item in range(1000)])
    expected = builder.build(user).tolist()
    # What sixteen turns of a loop take, after which the clock is asked: all that is tried takes some 5,700 times that.
    clock = itertools.count()
    monkeypatch.setattr(time, "thread_time", lambda: next(clock) * milliseconds / 1000)
    if milliseconds < 0.2:
        assert builder.build(user).tolist() == expected
    else:
        with pytest.raises(PromptError, match=r"line 1: it takes more than 1 s\.$"):
            builder.build(user)
    assert next(clock) < 5_800


def test_what_is_tried_has_the_work_of_one_text_together() -> None:
    builder = prompts(LOOPS, 3_200, history={"max_items": 1000, "min_items": 1000})
    user = UserState([UserEvent(item % ITEMS) for item in range(1000)])
    few, many = (len(builder.build(UserState(user.events[:items]))) for items in (1, 2))
    # 750 would fit, too, but after 500 there is no work left to try them.
    assert few + 750 * (many - few) < 3_200 < few + 999 * (many - few)
    assert len(builder.build(user)) == few + 499 * (many - few)
