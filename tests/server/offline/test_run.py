"""What a run over a file goes on for: only lists that follow from the same settings may share a file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from drafting.beam.rule import SearchRule
from drafting.prompts.template import PromptTemplate
from drafting.prompts.thinking import ThinkTemplate
from server.offline.questions import Defaults
from server.offline.run import purpose_of, recommend_file, recommend_one
from server.settings import FlagSettings
from tests.models import random_catalog, save_random_model
from verification.recommender import Recommender

CATALOG = random_catalog(items=5)
DEFAULTS = Defaults(10, None, [], False)


def test_every_setting_that_lists_follow_from_is_in_the_purpose(tmp_path: Path):
    users = tmp_path / "users.jsonl"
    users.write_text("{}")
    base, draft = tmp_path / "base", tmp_path / "draft"

    def purpose(seed: int = 1, drawn: bool = True, **options: Any) -> str:
        settings = FlagSettings(**{"target": tmp_path / "target", "catalog": users, "engine": "transformers"} | options)
        return purpose_of(settings, CATALOG, replace(DEFAULTS, rule=SearchRule(seed=seed), seed_is_drawn=drawn), users)

    others: list[dict[str, Any]] = [
        {"target": base},
        {"base": base},
        {"draft_base": base},
        {"draft": base},
        {"draft": draft, "base": base},
        {"draft": draft, "draft_base": base},
        {"engine": "vllm"},
        {"dtype": "bfloat16"},
        {"dtype": "bfloat16", "exact": True},
        {"quantization": "fp8"},
        {"plan": "trie"},
        {"seed": 1, "drawn": False},
        {"seed": 2, "drawn": False},
    ]
    assert len({purpose(), *(purpose(**other) for other in others)}) == 1 + len(others)
    same: list[dict[str, Any]] = [{"seed": 2}, {"kv_memory_gib": 2.0}, {"log_level": "debug"}, {"verify_model": "never"}]
    assert {purpose(**other) for other in same} == {purpose()}


def test_lists_of_a_file_come_with_the_texts_before_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    catalog = random_catalog()
    folder = save_random_model(tmp_path / "model", catalog, hidden=32, layers=1, seed=2)
    PromptTemplate(max_items=5, think=ThinkTemplate("<c_7>", 20)).save(folder)
    catalog.save(tmp_path / "catalog.jsonl")
    users, lists = tmp_path / "users.jsonl", tmp_path / "lists.jsonl"
    users.write_text('{"history": ["item-3", "item-14"]}\n{"history": ["item-5"]}\n')
    settings = FlagSettings(target=folder, catalog=tmp_path / "catalog.jsonl", engine="transformers", kv_memory_gib=0.01, threads=1)
    recommend_file(settings, replace(DEFAULTS, think=20), users, lists)
    recommend_one(settings, replace(DEFAULTS, think=20), ["item-3", "item-14"], None, as_json=False)
    recommender = Recommender.load(folder, catalog, kv_memory_gib=0.01)
    expected = list(recommender.recommend([[3, 14], [5]], 10, think=20))
    found = list(map(json.loads, lists.read_text().splitlines()))
    assert [line["thought"] for line in found] == [recommender.text(result.thought or ()) for result in expected]
    assert [[item["item_id"] for item in line["items"]] for line in found] == [
        [f"item-{item.item}" for item in result.items] for result in expected
    ]
    assert capsys.readouterr().out.splitlines()[0] == found[0]["thought"] != ""
    recommend_file(settings, replace(DEFAULTS, think=21), users, tmp_path / "refused.jsonl")
    refused = json.loads((tmp_path / "refused.jsonl").read_text().splitlines()[0])
    assert refused["error"] == "The text before a list has 1 to 20 tokens, as prompt.json says, not 21."
    recommender.close()
