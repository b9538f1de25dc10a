"""Tokens that start near their parents: which have one, how near, and that nothing else moves."""

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, set_seed

from drafting.alignment.bases import Base, BaseError, load_base
from drafting.alignment.parents import only_parents, start_from_parents
from drafting.alignment.settings import TargetSettings, TrainingError
from drafting.alignment.target import train_target
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.template import PromptTemplate
from tests.models import TINY_CONFIG, random_catalog

CLUSTERS, ITEMS = 3, 12


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """Clusters of four items, each with a token of its own."""
    return catalog_of([(str(item), [f"<a_{item % CLUSTERS}>", f"<i_{item}>"]) for item in range(ITEMS)])


@pytest.fixture
def config(tmp_path: Path) -> str:
    (path := tmp_path / "config.json").write_text(json.dumps(TINY_CONFIG))
    return str(path)


def vectors(base: Base, catalog: Catalog) -> tuple[np.ndarray, np.ndarray]:
    """`[tokens, width]` of the embeddings and of the head, by code."""
    ids = catalog.vocabulary_ids(base.tokenizer.get_vocab())
    both = base.model.get_input_embeddings(), base.model.get_output_embeddings()
    return tuple(module.weight.detach().numpy()[ids].copy() for module in both)


@pytest.mark.parametrize("seed", range(20))
def test_parents_are_those_that_a_count_by_hand_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    length, codes = int(rng.integers(1, 5)), int(rng.integers(2, 9))
    names = rng.integers(codes, size=(int(rng.integers(1, 25)), length))
    # The same token may stand on several levels, and behind itself.
    catalog = catalog_of([(str(item), [f"<{code}>" for code in row]) for item, row in enumerate(names.tolist())])
    before = defaultdict(set)
    for row in catalog.codes.tolist():
        for level, code in enumerate(row):
            before[code].add(row[level - 1] if level else -1)
    expected = [next(iter(found)) if len(found) == 1 else -1 for found in (before[code] for code in range(len(catalog.tokens)))]
    assert only_parents(catalog).tolist() == expected


@pytest.mark.parametrize("tied", [True, False])
def test_items_start_near_their_cluster_and_clusters_where_they_were(catalog: Catalog, config: str, tied: bool) -> None:
    set_seed(0)
    base = load_base(config, catalog, PromptTemplate(max_items=4), tied=tied)
    assert (base.model.get_input_embeddings().weight is base.model.get_output_embeddings().weight) == tied
    before, parents = vectors(base, catalog), only_parents(catalog)
    assert start_from_parents(base, catalog, 2.0) == ITEMS
    for old, new in zip(before, vectors(base, catalog), strict=True):
        np.testing.assert_array_equal(new[parents < 0], old[parents < 0])
        items = parents >= 0
        above = old[parents[items]]
        own = old[items]
        expected = own + 2 * above * np.linalg.norm(own, axis=1, keepdims=True) / np.linalg.norm(above, axis=1, keepdims=True)
        np.testing.assert_allclose(new[items], expected, rtol=1e-5, atol=1e-7)
        unit = new[items] / np.linalg.norm(new[items], axis=1, keepdims=True)
        alike = parents[items][:, None] == parents[items]
        cosines = unit @ unit.T
        assert cosines[alike].min() > cosines[~alike].max()


def test_deep_identifiers_start_in_the_order_of_their_levels_and_stay_short(config: str) -> None:
    """A token for each prefix: with every level the vectors of a subtree share more."""
    rows = [(first, second, third) for first in range(2) for second in range(2) for third in range(2)]
    catalog = catalog_of([(str(row), [f"<a_{row[0]}>", f"<b_{row[:2]}>", f"<c_{row}>"]) for row in rows])
    base = load_base(config, catalog, PromptTemplate(max_items=4))
    before = vectors(base, catalog)[0]
    assert start_from_parents(base, catalog, 2.0) == 4 + 8
    after = dict(zip(catalog.tokens, vectors(base, catalog)[0], strict=True))
    longest = np.linalg.norm(before, axis=1).max()
    for row in rows:
        leaf, parent = after[f"<c_{row}>"], after[f"<b_{row[:2]}>"]
        assert leaf @ parent > 0.5 * np.linalg.norm(leaf) * np.linalg.norm(parent)
        assert np.linalg.norm(leaf) <= 3.001 * longest


def test_tokens_that_a_base_model_knows_stay_as_they_are(catalog: Catalog, config: str, tmp_path: Path) -> None:
    """A model of half of the catalog starts the rest near the clusters that it has learnt, or that are new, too."""
    known = catalog_of([(str(item), list(catalog.identifier(item))) for item in range(ITEMS) if item % CLUSTERS and item < 8])
    first = load_base(config, known, PromptTemplate(max_items=4))
    first.model.save_pretrained(tmp_path / "base")
    first.tokenizer.save_pretrained(tmp_path / "base")
    set_seed(0)
    before = vectors(load_base(str(tmp_path / "base"), catalog, PromptTemplate(max_items=4)), catalog)[0]
    set_seed(0)
    base = load_base(str(tmp_path / "base"), catalog, PromptTemplate(max_items=4))
    assert start_from_parents(base, catalog, 2.0) == ITEMS - len(known)
    moved = (vectors(base, catalog)[0] != before).any(axis=1)
    new = {f"<i_{item}>" for item in range(ITEMS)} - set(known.tokens)
    assert {token for token, moves in zip(catalog.tokens, moved, strict=True) if moves} == new
    with pytest.raises(BaseError, match="leave --tied out"):
        load_base(str(tmp_path / "base"), catalog, PromptTemplate(max_items=4), tied=True)


def test_codes_of_several_parents_start_as_they_did(config: str) -> None:
    catalog = random_catalog(items=200, depth=3, codes=4)
    base = load_base(config, catalog, PromptTemplate(max_items=4))
    before = vectors(base, catalog)
    assert start_from_parents(base, catalog, 2.0) == 0
    for old, new in zip(before, vectors(base, catalog), strict=True):
        np.testing.assert_array_equal(old, new)


def test_training_begins_so_and_the_model_says_what_is_tied(catalog: Catalog, config: str, tmp_path: Path) -> None:
    lines = [{"user": user, "item": (user + time) % ITEMS, "timestamp": time} for user in range(6) for time in range(5)]
    (data := tmp_path / "data").mkdir()
    (data / "interactions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    settings = TargetSettings(epochs=1, batch_size=4, learning_rate=1e-9, parent_start=2.0, tied=True)
    train_target(data, catalog, config, tmp_path / "model", settings=settings)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert model.config.tie_word_embeddings
    ids = json.loads((tmp_path / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    rows = model.get_input_embeddings().weight
    near, far = (torch.cosine_similarity(rows[ids["<i_0>"]], rows[ids[f"<a_{cluster}>"]], dim=0) for cluster in (0, 1))
    assert near > 0.5 > far


def test_a_negative_start_is_a_sentence() -> None:
    with pytest.raises(TrainingError, match="parent_start must not be negative, got -1"):
        TargetSettings(parent_start=-1.0)
