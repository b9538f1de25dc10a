"""Prompts: templates, windows and stable prefixes."""

import itertools
import logging
from pathlib import Path

import numpy as np
import pytest

from drafting.prompt import PromptBuilder, PromptError, PromptTemplate

IDENTIFIERS = np.array([[10, 20], [11, 21], [12, 22]])
PAPER = PromptTemplate(
    template="Below is an instruction.\n\n### Instruction:\nThe user liked {history} in chronological order.\n\n### Response:",
    separator=", ",
)


class CharacterTokenizer:
    """One token per character, from 100 on."""

    bos_token_id: int | None = 1

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return [100 + ord(character) for character in text]


def text(string: str) -> list[int]:
    return [100 + ord(character) for character in string]


def build(template: PromptTemplate, history: list[int]) -> list[int]:
    return PromptBuilder(template, CharacterTokenizer(), IDENTIFIERS).build(history).tolist()


def test_default_is_the_codes_alone() -> None:
    assert build(PromptTemplate(), [2, 0]) == [1, 12, 22, 10, 20]
    assert build(PromptTemplate(add_bos=False), [1]) == [11, 21]


def test_the_papers_instruction_text() -> None:
    before, after = PAPER.template.split("{history}")
    assert build(PAPER, [0, 1]) == [1, *text(before), 10, 20, *text(", "), 11, 21, *text(after)]


def test_window_keeps_the_newest_items() -> None:
    builder = PromptBuilder(PromptTemplate(max_items=2), CharacterTokenizer(), IDENTIFIERS)
    assert builder.build([0, 1, 2]).tolist() == [1, 11, 21, 12, 22]
    assert builder.max_tokens == 5
    assert PromptBuilder(PAPER, CharacterTokenizer(), IDENTIFIERS).max_tokens == len(build(PAPER, [0] * 20))


def test_appending_an_item_keeps_every_earlier_token() -> None:
    template = PromptTemplate(template="{history}", separator=", ")
    shorter, longer = build(template, [0, 1]), build(template, [0, 1, 2])
    assert longer[: len(shorter)] == shorter


def test_a_long_history_keeps_its_prefix_for_several_items() -> None:
    builder = PromptBuilder(PromptTemplate(max_items=20, min_items=11), CharacterTokenizer(), np.zeros((500, 2), np.int64))
    history = np.random.default_rng(0).permutation(500).tolist()
    windows = [list(builder.window(history[:length])) for length in range(1, 500)]
    assert windows[:20] == [history[:length] for length in range(1, 21)]
    kept = 0
    for length, (before, after) in enumerate(itertools.pairwise(windows[19:]), start=20):
        assert 11 <= len(after) <= 20
        assert after == history[length + 1 - len(after) : length + 1]
        kept += after[: len(before)] == before
    assert kept / 480 > 0.75  # two in eleven windows are expected to start elsewhere than the one before


@pytest.mark.parametrize("given", [21, 22, 100])
def test_a_window_does_not_depend_on_how_much_of_a_long_history_is_given(given: int) -> None:
    builder = PromptBuilder(PromptTemplate(max_items=20), CharacterTokenizer(), np.zeros((500, 2), np.int64))
    history = np.random.default_rng(1).permutation(500).tolist()
    for end in range(120, 200):
        assert builder.window(history[end - given : end]) == builder.window(history[:end])


def test_a_window_that_moves_with_every_item_can_be_asked_for() -> None:
    builder = PromptBuilder(PromptTemplate(max_items=8, min_items=8), CharacterTokenizer(), np.zeros((500, 2), np.int64))
    history = list(range(100))
    assert [builder.window(history[:end]) for end in (8, 9, 50)] == [history[:8], history[1:9], history[42:50]]


def test_template_round_trip(tmp_path: Path) -> None:
    PAPER.save(tmp_path)
    assert PromptTemplate.load(tmp_path) == PAPER


def test_missing_template_is_the_default_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert PromptTemplate.load(tmp_path) == PromptTemplate()
    assert "using the default prompt" in caplog.text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('{"template": "no history"}', "exactly once"),
        ('{"max_items": 0}', "at least one item"),
        ('{"max_items": 4, "min_items": 5}', "between 1 and max_items"),
        ('{"min_items": true}', "whole numbers"),
        ('{"max_item": 5}', "max_item"),
        ("{", "is not a prompt template"),
    ],
)
def test_bad_templates(tmp_path: Path, contents: str, message: str) -> None:
    (tmp_path / "prompt.json").write_text(contents)
    with pytest.raises(PromptError, match=message):
        PromptTemplate.load(tmp_path)


def test_empty_history() -> None:
    with pytest.raises(PromptError, match="history is empty"):
        build(PromptTemplate(), [])


def test_tokenizer_without_a_beginning_token() -> None:
    tokenizer = CharacterTokenizer()
    tokenizer.bos_token_id = None
    with pytest.raises(PromptError, match="add_bos"):
        PromptBuilder(PromptTemplate(), tokenizer, IDENTIFIERS)
