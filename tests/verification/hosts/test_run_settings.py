"""Settings in config.json of how transformers runs a model: trainers leave them there, and lists do not depend on them."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.models import random_catalog, save_family_model
from tests.verification.engine.test_beam_search import as_pairs, assert_same
from verification.hosts.checkpoint import load_tokenizer
from verification.hosts.transformers import ATTENTION
from verification.recommender import Recommender

CATALOG = random_catalog(items=30, depth=2, codes=5)
HISTORIES = [[1, 2, 3], [7]]
SETTINGS: list[dict[str, Any]] = [
    {"_attn_implementation": "sdpa"},
    {"_attn_implementation": "flash_attention_2"},
    {"attn_implementation": "flash_attention_2"},
    {"output_attentions": True},
    {"return_dict": False},
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """phi3's modules read the attention of their layers from the configuration."""
    return save_family_model(tmp_path_factory.mktemp("model"), CATALOG, "phi3", num_hidden_layers=1)


def lists(model: Path) -> list[list[tuple[tuple[int, ...], float]]]:
    identifiers = CATALOG.token_ids(load_tokenizer(model).get_vocab())
    recommender = Recommender.load(model, CATALOG, kv_memory_gib=0.01)
    assert recommender.engine.target.model.config._attn_implementation == ATTENTION
    found = [as_pairs(result, identifiers) for result in recommender.recommend(HISTORIES, 4, 4)]
    recommender.close()
    return found


def test_lists_do_not_depend_on_them(model: Path) -> None:
    path = model / "config.json"
    plain = json.loads(path.read_bytes())
    expected = lists(model)
    for settings in SETTINGS:
        path.write_text(json.dumps(plain | settings))
        for ours, theirs in zip(lists(model), expected, strict=True):
            assert_same(ours, theirs)
