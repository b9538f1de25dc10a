"""The first form of prompt.json: what it may say, and what is said of the rest."""

import logging
from pathlib import Path

import pytest

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt, prompt_of
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from tests.prompt_tokenizers import byte_level

PAPER = PromptTemplate("The user liked {history} in this order.\n\n### Response:", ", ")


def test_template_round_trip(tmp_path: Path) -> None:
    PAPER.save(tmp_path)
    assert load_prompt(tmp_path) == PAPER


def test_missing_template_is_the_default_and_the_log_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_prompt(tmp_path) == PromptTemplate()
    assert "using the default prompt" in caplog.text


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ('{"template": "no history"}', "exactly once"),
        ('{"max_items": 0}', "at least one item"),
        ('{"max_items": 4, "min_items": 5}', "between 1 and max_items"),
        ('{"min_items": true}', "whole numbers"),
        ('{"max_item": 5}', "it has no field 'max_item', its fields are template, separator, max_items, min_items, add_bos"),
        ('{"template": "{titles} {history}"}', "{titles} would reach the model as it stands"),
        ('{"template": "{history} of {user.name}"}', "{user.name} would reach the model"),
        ('{"separator": " {index}. "}', "{index} would reach the model"),
        ("[]", "no object of JSON"),
        ("{", "is not a prompt template"),
    ],
)
def test_bad_templates(tmp_path: Path, contents: str, message: str) -> None:
    (tmp_path / "prompt.json").write_text(contents)
    with pytest.raises(PromptError, match="is not a prompt template") as raised:
        load_prompt(tmp_path)
    assert message in str(raised.value)


def test_a_name_that_was_trained_with_is_text_in_the_other_form() -> None:
    with pytest.raises(PromptError, match=r'\{response\} would reach .* leave it out, or, .* with "format": "jinja", where it is text\.'):
        PromptTemplate("{history} {response}")
    catalog = catalog_of({"a": ["<a>"], "b": ["<b>"]})
    tokenizer = byte_level(catalog.tokens)
    form = prompt_of({"format": "jinja", "template": "{{ history | join }} {response}"})
    assert PromptBuilder(form, PromptTokenizer.of(tokenizer), catalog).build([0]).tolist() == tokenizer("<a> {response}")["input_ids"]


def test_braces_that_name_nothing_are_text() -> None:
    template = PromptTemplate('{"seen": "{history}", "next": {}}')
    assert template.text(["a", "b"]) == ('{"seen": "ab", "next": {}}', [10, 11, 11, 12])
