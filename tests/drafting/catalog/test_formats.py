"""Identifiers with begin and end tokens around them: the prompt writes them, the catalog leaves them out."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from drafting.alignment.bases import scratch_tokenizer
from drafting.catalog.catalog import CatalogError
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


@pytest.mark.parametrize("form", ["index", "parquet"])
def test_begin_and_end_tokens_that_are_left_out_are_told(form: str, tmp_path: Path) -> None:
    index = {"x": f"{BEGIN}<s_a_3><s_b_1>{END}", "y": f"{BEGIN}<s_a_0><s_b_1>{END}"}
    found: list[str] = []
    load_catalog(catalog_file(index, form, tmp_path), on_form=found.append)
    told = f"read without the begin token {BEGIN} and the end token {END} of its identifiers, which the prompt has to write"
    assert found[1:] == [told]
    found.clear()
    load_catalog(catalog_file({"x": f"{BEGIN}<s_a_3>", "y": f"{BEGIN}<s_a_0>"}, form, tmp_path), on_form=found.append)
    assert found[1:] == [f"read without the begin token {BEGIN} of its identifiers, which the prompt has to write"]
    found.clear()
    load_catalog(catalog_file({"x": "<s_a_3>", "y": "<s_a_0>"}, form, tmp_path), on_form=found.append)
    assert not found[1:]


@pytest.mark.parametrize("form", ["index", "parquet"])
@pytest.mark.parametrize(
    ("other", "named"),
    [
        (f"<|prod_begin|><s_a_3>{END}", f"the begin token <|prod_begin|> and the end token {END}"),
        ("<s_a_3>", "no begin and end tokens"),
        (f"{BEGIN}<s_a_3>", f"the begin token {BEGIN}"),
    ],
)
def test_begin_and_end_tokens_that_differ_are_refused(other: str, named: str, form: str, tmp_path: Path) -> None:
    """Without them, a video and a product of the same codes would be one identifier."""
    with pytest.raises(CatalogError) as refused:
        load_catalog(catalog_file({"x": f"{BEGIN}<s_a_3>{END}", "y": other}, form, tmp_path))
    assert str(refused.value).startswith(
        f"The identifier of item 'y' has {named}, and that of item 'x' has the begin token {BEGIN} and the end token {END}: "
    )


def catalog_file(index: dict[str, str], form: str, folder: Path) -> Path:
    """A catalog of identifiers that are texts."""
    if form == "index":
        (folder / "items.json").write_text(json.dumps(index))
        return folder / "items.json"
    pq.write_table(pa.table({"item_id": list(index), "identifier": list(index.values())}), folder / "items.parquet")
    return folder / "items.parquet"
