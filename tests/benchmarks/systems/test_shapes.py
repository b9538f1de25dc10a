"""Shapes: catalogs and models of the sizes that they promise."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.gpu.scripted_run import Case, slots_needed
from benchmarks.systems.shapes import BEAUTY, SHAPES, make_catalog, make_checkpoint, make_identifiers, make_model
from drafting.trie.item_trie import ItemTrie
from verification.hosts.checkpoint import load_config


def test_a_catalog_has_the_level_sizes_asked_for():
    trie = ItemTrie.build(make_identifiers(BEAUTY) + 256 * np.arange(4))
    assert tuple(trie.level_size(depth) for depth in range(1, 5)) == BEAUTY.level_sizes
    assert len(make_catalog(SHAPES["tiny"])) == SHAPES["tiny"].catalog.level_sizes[-1]


@pytest.mark.parametrize("name", SHAPES)
def test_sizes_are_counted_as_transformers_counts_them(name: str):
    for shape in (SHAPES[name].target, SHAPES[name].draft):
        vocabulary = shape.words + SHAPES[name].catalog.codes
        model = make_model(shape, vocabulary, 128, torch.device("meta"))
        counted = sum(parameter.numel() * parameter.dtype.itemsize for parameter in model.parameters() if parameter.ndim > 1)
        assert shape.weight_bytes(vocabulary) == counted


def test_a_checkpoint_has_the_words_of_its_shape(tmp_path: Path):
    shape = SHAPES["tiny"]
    make_checkpoint(tmp_path, replace(shape.target, words=500), make_catalog(shape))
    assert load_config(tmp_path).vocab_size == 500 + shape.catalog.codes


def test_the_7b_shape_is_one():
    assert 6.5e9 < SHAPES["llama-7b"].target.weight_bytes(32859) / 2 < 7e9
    assert SHAPES["llama-7b"].target.slot_bytes() == 2 * 32 * 4096 * 2
    assert 60e6 < SHAPES["llama-7b"].draft.weight_bytes(32859) / 2 < 75e6


def test_room_grows_with_prompts_and_batches():
    trie = ItemTrie.build(make_identifiers(SHAPES["tiny"].catalog) + 16 * np.arange(4))
    assert slots_needed(trie, [Case(2000, 8, 10)]) == 2 * 8 * 2000
    assert slots_needed(trie, [Case(2000, 8, 10), Case(2000, 32, 10)]) == 2 * 32 * 2000
    assert slots_needed(trie, [Case(8, 1, 256)]) > slots_needed(trie, [Case(8, 1, 10)]) > 2 * 3 * 10
