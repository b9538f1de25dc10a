"""Tokenizers are read back as they were, and a file that transformers reads otherwise is spoken of."""

import json
import logging
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers import AutoTokenizer

from drafting.alignment.bases import scratch_tokenizer
from drafting.errors import PromptError
from drafting.pretrained import read_tokenizer
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.prompts.tokenizer_files import save_tokenizer, warn_if_read_otherwise
from tests.format_tokenizers import llama_2, llama_3, qwen, t5
from verification.hosts.checkpoint import load_tokenizer

CODES = [f"<{level}_{code}>" for level in "ab" for code in range(4)]
TEXTS = ("These are <a_1><b_2>, <a_3><b_1> in this order:\n### Response:", "the list", " a\n", "1. é <b_0> !")
TOKENIZERS: dict[str, Callable[..., Any]] = {
    "Llama 2, legacy": partial(llama_2, legacy=True),
    "Llama 2": partial(llama_2, legacy=False),
    "Llama 3": llama_3,
    "Qwen": qwen,
    "T5": t5,
}


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_is_read_back_as_it_was(kind: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = TOKENIZERS[kind](CODES)
    save_tokenizer(tokenizer, tmp_path)
    with caplog.at_level(logging.WARNING):
        again = load_tokenizer(tmp_path)
    for text in TEXTS:
        assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert again.special_tokens_map == tokenizer.special_tokens_map
    assert again.chat_template == tokenizer.chat_template
    assert not caplog.records


def test_a_tokenizer_that_transformers_reads_otherwise_than_its_file_is_spoken_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """As transformers itself saves a LlamaTokenizer with legacy=True: nothing in the folder says so but tokenizer.json."""
    tokenizer = llama_2(CODES, legacy=True)
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path)(TEXTS[0])["input_ids"] != tokenizer(TEXTS[0])["input_ids"]
    with caplog.at_level(logging.WARNING):
        load_tokenizer(tmp_path)
    (record,) = caplog.records
    assert "transformers makes a LlamaTokenizer of the tokenizer in" in record.getMessage()
    assert 'set "tokenizer_class" to "PreTrainedTokenizerFast" in tokenizer_config.json' in record.getMessage()


def test_what_the_warning_says_helps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = llama_2(CODES, legacy=True)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(config.read_text().replace('"LlamaTokenizer"', '"PreTrainedTokenizerFast"'))
    with caplog.at_level(logging.WARNING):
        assert load_tokenizer(tmp_path)(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert not caplog.records


@pytest.mark.parametrize("family", ["llama", "qwen2", "phi3"])
@pytest.mark.parametrize("name", ["PreTrainedTokenizerFast", "TokenizersBackend"])
def test_the_class_of_all_tokenizers_is_that_beside_a_model_of_any_family(family: str, name: str, tmp_path: Path) -> None:
    """transformers makes a Qwen2Tokenizer beside a Qwen 2 and a LlamaTokenizer beside a Phi 3, whatever class the file names."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
    tokenizer = scratch_tokenizer((*CODES, "=>"))
    save_tokenizer(tokenizer, tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"tokenizer_class": name}))
    for text in (*TEXTS, "<a_1><b_2> likes => <a_3>"):
        assert read_tokenizer(tmp_path)(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_a_tokenizer_that_is_never_read_back_is_not_saved_in_silence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = scratch_tokenizer(tuple(reversed(CODES)))
    monkeypatch.setattr("drafting.prompts.tokenizer_files.read_tokenizer", lambda _: other)
    with pytest.raises(PromptError, match="is read back with other ids for 'a <a_0>, "):
        save_tokenizer(scratch_tokenizer(tuple(CODES)), tmp_path)


def test_padding_that_training_has_left_in_the_file_is_no_other_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = t5(CODES)
    tokenizer("a", padding="max_length", max_length=64, truncation=True)
    save_tokenizer(tokenizer, tmp_path)
    assert json.loads((tmp_path / "tokenizer.json").read_bytes())["padding"]["strategy"] == {"Fixed": 64}
    with caplog.at_level(logging.WARNING):
        assert load_tokenizer(tmp_path)(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert not caplog.records


def test_special_tokens_that_are_read_as_letters_are_no_other_class(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = qwen(CODES)
    tokenizer.add_tokens(["<|x|>"], special_tokens=True)
    tokenizer.split_special_tokens = tokenizer.init_kwargs["split_special_tokens"] = True
    save_tokenizer(tokenizer, tmp_path)
    with caplog.at_level(logging.WARNING):
        assert load_tokenizer(tmp_path)("<|x|>")["input_ids"] == tokenizer("<|x|>")["input_ids"]
    assert not caplog.records


@pytest.mark.parametrize(
    ("tokenizer", "said", "told"),
    [
        (partial(llama_2, legacy=False), {}, True),
        (partial(llama_2, legacy=False), {"legacy": None}, True),
        (partial(llama_2, legacy=False), {"legacy": False}, False),
        (partial(llama_2, legacy=True), {}, False),
        (t5, {}, False),
    ],
)
def test_a_llama_tokenizer_that_transformers_4_read_otherwise_is_spoken_of(
    tokenizer: Callable[..., Any], said: dict[str, object], told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """LC-Rec saves its tokenizer as `tokenizer.model` with `added_tokens.json`, and no `tokenizer.json`."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(said))
    warn_if_read_otherwise(tokenizer(CODES), tmp_path)
    assert bool(caplog.records) is told
    assert ('set "legacy": true in tokenizer_config.json' in caplog.text) is told


def test_the_tokenizer_that_the_documentation_makes_for_a_model_of_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = Path(__file__).parents[3] / "docs" / "formats" / "tiger.md"
    (example,) = re.findall(r"^```python\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(compile(example, str(page), "exec"), {})
    tokenizer = load_tokenizer(tmp_path / "MODEL_DIR")
    assert tokenizer("<a_0><b_3><d_255><a_12>")["input_ids"] == [1, 260, 1024, 13]
    assert tokenizer("<other_0><other_1025><a_0><other_3025>")["input_ids"] == [0, 1025, 1, 3025]
    assert len(tokenizer) == 3026


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_added_tokens_with_accents_are_decoded_as_they_are(kind: str) -> None:
    names = ["<brand_Nestlé>", "Björk", "Čapek", "<brand_Sigur Rós>", "東京", "<plain>"]
    tokenizer = PromptTokenizer.of(TOKENIZERS[kind](CODES))
    tokenizer.rust.add_tokens([AddedToken(name, normalized=False) for name in names])
    ids = tokenizer.ids_of(names)
    assert [tokenizer.decode([ids[name]]) for name in names] == names
    between = tokenizer.ids("list")
    found = tokenizer.decode([*between, ids["Björk"], *between, ids["Björk"], ids["Čapek"]])
    # One without a decoder writes spaces between tokens.
    assert found.replace(" ", "") == "listBjörklistBjörkČapek"
    assert tokenizer.decode([]) == ""
