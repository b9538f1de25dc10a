"""Teacher scores: what is stored of distributions, held against whole ones."""

from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch

from drafting.alignment.levels import LevelCodes
from drafting.alignment.teacher.data import ShardFile, write_shard
from drafting.alignment.teacher.samples import TeacherSamples
from drafting.alignment.teacher.scores import TopCodes, score_windows
from drafting.alignment.teacher.trees import ListTrees, PromptWindows, list_trees, most_taken
from drafting.alignment.tree_batch import TreeWindows
from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.rows import Rows
from drafting.trie.item_trie import ItemTrie


def prompts(identifiers: np.ndarray) -> PromptWindows:
    """One window: a prompt of one token, at which lists are asked for, and the identifier of item 0."""
    tokens = np.concatenate([[0], identifiers[0]])
    depth = identifiers.shape[1]
    ends = np.array([0, len(tokens)], np.int64)
    return PromptWindows(tokens, ends, np.array([depth]), np.array([0, 1]), np.array([0]), users=[])


def scored(identifiers: np.ndarray, lists: np.ndarray, top: int) -> tuple[ListTrees, TopCodes, TopCodes, dict[str, torch.Tensor]]:
    """Trees of lists, and what is stored of a model whose logits are random; these come last."""
    trie, levels = ItemTrie.build(identifiers), LevelCodes.of(identifiers)
    trees = list_trees(lists, lists[:, :0], trie, levels)
    given: dict[str, torch.Tensor] = {}

    def score(batch: TreeBatch) -> Rows:
        assert batch.outputs is not None
        rows = torch.randn(len(batch.outputs), int(identifiers.max()) + 1, generator=torch.Generator().manual_seed(0)) * 3
        given["logits"] = rows
        return Rows.of(rows)

    model = cast(TreeModel, SimpleNamespace(device=torch.device("cpu"), score=score))
    node_top = max(top, most_taken(trie, lists.shape[1]))
    windows = TreeWindows.of(prompts(identifiers), trees.offsets, trees.trie_node, trees.parent, trie)
    return trees, *score_windows(model, windows, trees.taken, levels, top, node_top), given


def test_every_code_that_lists_take_is_stored_where_they_are_more_than_top(tmp_path: Path) -> None:
    """A root from which more lists continue than codes are stored per answer."""
    identifiers = np.stack([1 + np.arange(40), 100 + np.arange(40) % 3], axis=1)
    lists = np.random.default_rng(0).permutation(40)[None, :20]
    trees, answers, nodes, given = scored(identifiers, lists, top=4)
    taken = trees.taken.lists_with(nodes.codes.astype(np.int64))
    assert sorted(nodes.codes[0].tolist()) == np.sort(lists[0]).tolist()
    assert taken[0].tolist() == [1] * 20
    # Each list goes through the root, and through one node below it.
    assert taken.sum() == 2 * 20
    expected = given["logits"][2:, 1:41].softmax(1)[0, torch.from_numpy(nodes.codes[0].astype(np.int64))]
    torch.testing.assert_close(torch.from_numpy(nodes.probabilities[0]).float(), expected, atol=1e-3, rtol=1e-2)
    assert answers.codes.shape == (2, 4)
    write_shard(tmp_path / "shard.safetensors", prompts(identifiers), trees, lists, answers, nodes)
    batch = TeacherSamples([tmp_path / "shard.safetensors"], ItemTrie.build(identifiers), 0, trees=True).__getitems__([0])
    assert batch["node_taken"].sum(1).tolist() == [20.0] + [1.0] * 20


def test_levels_of_more_codes_than_16_bits_count_are_stored(tmp_path: Path) -> None:
    identifiers = 1 + np.arange(40_000)[:, None]
    lists = np.array([[39_999, 5, 32_768]])
    trees, answers, nodes, given = scored(identifiers, lists, top=2)
    assert set(nodes.codes[0].tolist()) == {39_999, 5, 32_768}
    best = given["logits"][0, 1:].topk(2).indices
    assert answers.codes[0].tolist() == best.tolist()
    write_shard(tmp_path / "shard.safetensors", prompts(identifiers), trees, lists, answers, nodes)
    assert ShardFile(tmp_path / "shard.safetensors").read("node_taken").tolist() == [[1, 1, 1]]
    assert ShardFile(tmp_path / "shard.safetensors").read("node_codes").tolist() == nodes.codes.tolist()


def test_what_lists_take_needs_no_room_for_whole_levels() -> None:
    identifiers = 1 + np.arange(40_000)[:, None]
    trees = list_trees(np.arange(5000)[:, None], np.empty((5000, 0), np.int64), ItemTrie.build(identifiers), LevelCodes.of(identifiers))
    assert sum(array.nbytes for array in vars(trees.taken).values()) < 200_000
