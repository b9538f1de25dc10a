"""What a run over a file goes on for: only lists that follow from the same settings may share a file."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from drafting.beam.rule import SearchRule
from server.offline.questions import Defaults
from server.offline.run import purpose_of
from server.settings import FlagSettings
from tests.models import random_catalog

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
