"""Bases of families whose layers ask for more than plain attention: what they learn from trees is what they are served with, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from drafting.alignment.bases import load_base
from drafting.alignment.draft import train_draft
from drafting.alignment.draft_loss import MODEL_INPUTS
from drafting.alignment.settings import DraftSettings, TrainingError
from drafting.alignment.teacher.samples import TeacherSamples
from drafting.alignment.tree_check import check_trees
from drafting.catalog.builder import catalog_of
from drafting.trie.item_trie import ItemTrie
from tests.drafting.alignment.teachers import CATALOG, TEMPLATE, write_teacher
from tests.models import TINY_CONFIG, save_family_model

EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
FULL = ["full_attention"] * 3
LONGEST, DEPTH = 15, 2
SOFT_CAP: tuple[str, dict[str, Any]] = ("gemma2", {"layer_types": FULL, "attn_logit_softcapping": 2.0})
SINKS: tuple[str, dict[str, Any]] = ("gpt_oss", {**EXPERTS, "layer_types": FULL})


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_teacher(tmp_path_factory.mktemp("teacher") / "data")


@pytest.mark.parametrize(("family", "settings"), [SOFT_CAP, SINKS, ("mistral", {"sliding_window": LONGEST - 1})])
def test_a_base_answers_at_nodes_as_it_is_served(tmp_path: Path, teacher: Path, family: str, settings: dict[str, Any]) -> None:
    """Held against plain texts by transformers' eager attention, the only one that all families have whole."""
    folder = save_family_model(tmp_path / "base", CATALOG, family, **settings)
    base = load_base(str(folder), CATALOG, TEMPLATE, AutoTokenizer.from_pretrained(folder))
    check_trees(base, LONGEST, DEPTH)
    reference = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    trie = ItemTrie.build(CATALOG.token_ids(AutoTokenizer.from_pretrained(folder).get_vocab()))
    batch = TeacherSamples([teacher / "shard-00000.safetensors"], trie, 0, trees=True).__getitems__([4, 9])
    base.model.eval()
    width, checked = batch["input_ids"].shape[1], 0
    with torch.inference_mode():
        logits = base.model(**{name: batch[name] for name in MODEL_INPUTS}).logits.flatten(0, 1)
        for node in (batch["node_level"] == 1).nonzero()[:, 0].tolist():
            row, root = divmod(int(batch["node_row"][batch["node_parent"][node]]), width)
            text = torch.cat([batch["input_ids"][row, : root + 1], batch["node_token"][node, None]])
            expected = reference(input_ids=text[None], use_cache=False).logits[0, -1]
            torch.testing.assert_close(logits[batch["node_row"][node]], expected, atol=1e-4, rtol=1e-3)
            checked += 1
    assert checked > 4


@pytest.mark.parametrize(
    ("family", "settings"),
    [
        ("mistral", {"sliding_window": 7}),
        ("gemma3_text", {"sliding_window": 7}),
        ("cohere2", {"sliding_window": 7}),
        ("gpt_oss", {**EXPERTS, "sliding_window": 7}),
    ],
)
def test_a_window_shorter_than_a_prompt_is_refused(tmp_path: Path, teacher: Path, family: str, settings: dict[str, Any]) -> None:
    folder = save_family_model(tmp_path / "base", CATALOG, family, **settings)
    base = load_base(str(folder), CATALOG, TEMPLATE, AutoTokenizer.from_pretrained(folder))
    with pytest.raises(TrainingError, match=rf"\({family}\) can't learn from trees behind prompts of up to 13 tokens: it answers"):
        check_trees(base, LONGEST, DEPTH)
    check_trees(base, 6, DEPTH)


def test_windows_are_refused_before_a_run_begins_and_allowed_without_trees(tmp_path: Path, teacher: Path) -> None:
    """Random weights as training begins with, whose answers differ little in absolute terms."""
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**TINY_CONFIG, "model_type": "mistral", "sliding_window": 5, "hidden_size": 64}))
    with pytest.raises(TrainingError, match="choose the objective sft or wordkd or tvdkd, which has no trees"):
        train_draft(teacher, str(config), tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()
    quick = DraftSettings(objective="wordkd", epochs=0.1)
    assert train_draft(teacher, str(config), tmp_path / "out", settings=quick).steps == 1


def test_a_model_without_masks_is_refused(tmp_path: Path, teacher: Path) -> None:
    AutoConfig.for_model("mamba", hidden_size=32, num_hidden_layers=1, state_size=4).save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 64}))
    with pytest.raises(TrainingError, match=r"\(mamba\) can't learn from trees"):
        train_draft(teacher, str(tmp_path / "config.json"), tmp_path / "out")


def test_weights_from_scratch_are_float32_whatever_the_configuration_says(tmp_path: Path, teacher: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps({**TINY_CONFIG, "dtype": "bfloat16"}))
    assert load_base(str(config), CATALOG, TEMPLATE).model.dtype == torch.float32


def test_an_encoder_decoder_base_is_refused(tmp_path: Path, teacher: Path) -> None:
    with pytest.raises(TrainingError, match="base t5-scratch is an encoder-decoder model, which can't learn from teacher data: train"):
        train_draft(teacher, "t5-scratch", tmp_path / "out")
    assert not (tmp_path / "out.partial").exists()


def test_identifiers_of_one_token_are_refused_where_the_last_is_not_learnt(tmp_path: Path) -> None:
    catalog = catalog_of([(str(item), [f"<a_{item}>"]) for item in range(12)])
    folder = write_teacher(tmp_path / "teacher", catalog=catalog)
    base = str(folder / "draft_config.json")
    for options in ({}, {"objective": "atspeed-r"}, {"objective": "atspeed-c"}, {"objective": "atspeed-c", "last_level": True}):
        with pytest.raises(TrainingError, match="learns nothing of the last: no draft proposes it"):
            train_draft(folder, base, tmp_path / "out", settings=DraftSettings(**options))
    assert not (tmp_path / "out.partial").exists()
    metrics = train_draft(folder, base, tmp_path / "out", settings=DraftSettings(last_level=True, epochs=0.1))
    assert metrics.train_loss > 0
