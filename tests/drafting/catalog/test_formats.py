"""Identifiers with begin and end tokens around them: the prompt writes them, the catalog leaves them out."""

import json
from pathlib import Path

import numpy as np

from drafting.alignment.bases import scratch_tokenizer
from drafting.catalog.loading import load_catalog
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer

BEGIN, END = "<|sid_begin|>", "<|sid_end|>"


def test_a_prompt_for_a_model_that_reads_begin_and_end_tokens(tmp_path: Path) -> None:
    """As docs/formats/openonerec.md says: the prompt ends where the model would write the begin token, so the search writes codes only."""
    index = {"x": f"{BEGIN}<s_a_3><s_b_1><s_c_2>{END}", "y": f"{BEGIN}<s_a_0><s_b_1><s_c_9>{END}"}
    (tmp_path / "index.json").write_text(json.dumps(index))
    catalog = load_catalog(tmp_path / "index.json")
    assert catalog.identifier(0) == ("<s_a_3>", "<s_b_1>", "<s_c_2>")
    tokenizer = scratch_tokenizer((*catalog.tokens, BEGIN, END))
    template = PromptTemplate(f"{BEGIN}{{history}}{END}{BEGIN}", f"{END}{BEGIN}", add_bos=False)
    builder = PromptBuilder(template, PromptTokenizer.of(tokenizer), catalog)
    written = "".join(index[item] for item in "xyx") + BEGIN
    expected = tokenizer.encode(written, add_special_tokens=False)
    np.testing.assert_array_equal(builder.build([0, 1, 0]), expected)
    assert tokenizer.convert_ids_to_tokens(expected)[:5] == [BEGIN, "<s_a_3>", "<s_b_1>", "<s_c_2>", END]
