"""The first form of prompt.json: what it may say, and what is said of the rest."""

import logging
from pathlib import Path

import pytest
from tokenizers import processors

from drafting.catalog.builder import catalog_of
from drafting.errors import PromptError
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt, prompt_of, warn_if_begun_otherwise, warn_if_ended_otherwise
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from tests.format_tokenizers import t5
from tests.models import random_catalog, save_random_model
from tests.prompt_tokenizers import byte_level
from tests.t5_models import save_t5_model
from verification.hosts.served_model import ServedModel

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


@pytest.mark.parametrize(
    ("adds", "template", "add_bos", "advice"),
    [
        (True, "{history}", True, None),
        (True, "<s>{history}", True, None),
        (True, "[{history}", False, 'set "add_bos": true'),
        (False, "{history}", False, None),
        (False, "[{history}", True, 'set "add_bos": false'),
        (False, "<s>{history}", True, 'set "add_bos": false'),
    ],
)
def test_an_add_bos_that_contradicts_the_tokenizer_is_spoken_of(
    adds: bool, template: str, add_bos: bool, advice: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = byte_level(["<a_1>"])
    if not adds:
        tokenizer.backend_tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    form = PromptTemplate(template, add_bos=add_bos)
    warn_if_begun_otherwise(form, PromptTokenizer.of(tokenizer), tmp_path)
    assert bool(caplog.records) is (advice is not None)
    assert advice is None or advice in caplog.text
    if advice is None:
        built = PromptBuilder(form, PromptTokenizer.of(tokenizer), catalog_of({"a": ["<a_1>"]})).build([0]).tolist()
        assert built == tokenizer(template.replace("{history}", "<a_1>"))["input_ids"]


@pytest.mark.parametrize(
    ("contents", "is_encoded", "advice"),
    [
        ({"template": "{history}", "add_bos": False}, True, "end the template with it in prompt.json"),
        ({"template": "{history}</s>", "add_bos": False}, True, None),
        ({"format": "jinja", "template": "{{ history | join }}"}, True, None),
        ({"format": "jinja", "template": "{{ history | join }}", "add_special_tokens": False}, True, 'set "add_special_tokens": true'),
        ({"format": "jinja", "template": "{{ history | join }}</s>", "add_special_tokens": False}, True, None),
        ({"chat": True, "messages": [{"role": "user", "content": "a"}]}, True, 'set "add_special_tokens": true'),
        ({"chat": True, "messages": [{"role": "user", "content": "a"}], "after": "</s>"}, True, None),
        ({"template": "{history}", "add_bos": False}, False, None),
        ({"format": "jinja", "template": "{{ history | join }}"}, False, 'set "add_special_tokens": false in prompt.json.'),
        ({"format": "jinja", "template": "{{ history | join }}", "add_special_tokens": False}, False, None),
    ],
)
def test_ends_that_an_encoder_misses_or_that_a_list_can_not_follow_are_spoken_of(
    contents: dict[str, object], is_encoded: bool, advice: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """T5's tokenizer ends texts with `</s>`, and so do those of causal models with `add_eos_token`."""
    warn_if_ended_otherwise(prompt_of(contents), PromptTokenizer.of(t5(["<a_1>"])), tmp_path, is_encoded=is_encoded)
    assert bool(caplog.records) is (advice is not None)
    assert advice is None or ("['</s>']" in caplog.text and advice in caplog.text)


def test_what_a_text_began_with_is_kept_where_its_end_is_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = byte_level(["<a_1>"])
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    )
    form = prompt_of({"format": "jinja", "template": "{{ history | join }}"})
    warn_if_ended_otherwise(form, PromptTokenizer.of(tokenizer), tmp_path, is_encoded=False)
    assert "end with ['</s>']" in caplog.text
    assert "\"add_special_tokens\": false in prompt.json, and begin the prompt with ['<s>']." in caplog.text


def test_the_end_of_an_encoders_prompts_is_looked_at_when_they_are_made(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = random_catalog(items=4, depth=1, codes=4)
    served = ServedModel(save_t5_model(tmp_path, catalog))
    served.tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(single="$A <pad>", special_tokens=[("<pad>", 0)])
    served.fit(catalog)
    assert "do not end with ['<pad>'], with which the tokenizer ends texts" in caplog.text


def test_the_prompts_of_a_model_that_was_trained_here_are_not_doubted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    catalog = random_catalog(items=4, depth=1, codes=4)
    save_random_model(tmp_path, catalog, hidden=8, layers=1)
    ServedModel(tmp_path).fit(catalog)
    assert 'set "add_bos": false' in caplog.text
    caplog.clear()
    (tmp_path / "training.json").write_text('{"catalog": {"version": "1"}}')
    ServedModel(tmp_path).fit(catalog)
    assert not caplog.records
