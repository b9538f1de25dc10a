"""Tokens of patterns: every stretch of numbers is expanded, within one bound for all of them."""

import re

import pytest

from drafting.alignment.numbered_tokens import numbered_tokens
from drafting.alignment.settings import TrainingError


def test_every_stretch_of_numbers_is_expanded() -> None:
    assert numbered_tokens(["<buy>", "<u_{9..11}>"]) == ["<buy>", "<u_9>", "<u_10>", "<u_11>"]
    assert numbered_tokens(["{0..1}-{3..4}", "{x..2}"]) == ["0-3", "0-4", "1-3", "1-4", "{x..2}"]


@pytest.mark.parametrize(
    ("patterns", "sentence"),
    [
        (["<a_{1..600000}>", "<b_{1..600000}>"], "make 1,200,000 tokens: they may make 1,000,000 in all"),
        (["<{0..1999}_{0..1999}>"], "make 4,000,000 tokens"),
        (["<{2..1}>"], "its numbers go up, from the smaller"),
        ([" a"], "has no space at its ends"),
    ],
)
def test_what_makes_too_many_tokens_or_none_is_refused(patterns: list[str], sentence: str) -> None:
    with pytest.raises(TrainingError, match=re.escape(sentence)):
        numbered_tokens(patterns)
