"""Teacher trees: lists folded into prefixes by hand, and what is kept of a distribution."""

import numpy as np
import pytest
import torch

from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.windows import Windows, packed_windows
from drafting.alignment.levels import LevelCodes
from drafting.alignment.teacher.scores import dense
from drafting.alignment.teacher.trees import list_trees, most_nodes, prompt_windows
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.trie.item_trie import ItemTrie
from tests.drafting.alignment.data.test_samples import BOS, CATALOG, IDS, TOKENIZER
from tests.interactions import interactions

# Items 0 and 1 share an identifier; codes of the levels: (10, 11), (20, 21), (30, 31).
IDENTIFIERS = np.array([[10, 20, 30], [10, 20, 30], [10, 20, 31], [10, 21, 30], [11, 20, 30]], np.int64)
TRIE = ItemTrie.build(IDENTIFIERS)
LEVELS = LevelCodes.of(IDENTIFIERS)


def tokens_of(trie_nodes: np.ndarray) -> list[int]:
    return TRIE.token.numpy()[trie_nodes].tolist()


def test_lists_become_prefixes_once() -> None:
    trees = list_trees(np.array([[0, 2, 4], [3, -1, -1]]), np.empty((2, 0), np.int64), TRIE, LEVELS)
    assert trees.offsets.tolist() == [0, 5, 8]
    assert tokens_of(trees.trie_node) == [0, 10, 11, 20, 20, 0, 10, 21]
    assert trees.parent.tolist() == [0, 0, 0, 1, 2, 0, 0, 1]
    assert trees.taken.lists_with(np.tile([0, 1], (8, 1))).tolist() == [[2, 1], [2, 0], [1, 0], [1, 1], [1, 0], [1, 0], [0, 1], [1, 0]]


def test_visited_prefixes_are_nodes_that_no_list_takes() -> None:
    trees = list_trees(np.array([[0]]), np.array([[4]]), TRIE, LEVELS)
    assert tokens_of(trees.trie_node) == [0, 10, 11, 20, 20]
    assert trees.taken.lists_with(np.tile([0, 1], (5, 1))).sum(1).tolist() == [1, 1, 0, 1, 0]
    assert trees.visits.tolist() == [1, 0, 1, 0, 1]
    trees = list_trees(np.array([[0], [3]]), np.array([[4, 0, -1], [3, 2, 0]]), TRIE, LEVELS)
    assert tokens_of(trees.trie_node) == [0, 10, 11, 20, 20, 0, 10, 20, 21]
    assert trees.visits.tolist() == [2, 1, 1, 1, 1, 3, 3, 2, 1]
    assert not list_trees(np.array([[0]]), np.array([[-1]]), TRIE, LEVELS).visits.any()


def test_a_tree_is_never_larger_than_said() -> None:
    everything = list_trees(np.arange(5)[None], np.empty((1, 0), np.int64), TRIE, LEVELS)
    assert len(everything.trie_node) == most_nodes(TRIE, 5) == 1 + 2 + 3


def test_prompts_for_lists_end_before_the_newest_items() -> None:
    data: Interactions = interactions([0, 1, 2, 3], [2, 0])
    template = PromptTemplate(max_items=20)
    builder = PromptBuilder(template, PromptTokenizer.of(TOKENIZER), CATALOG)
    prompts = prompt_windows(data, packed_windows(data, 20, 10), builder, IDS, trees=2)
    assert prompts.tree_offsets.tolist() == [0, 2, 3]
    histories = [[event.item for event in user.events] for user in prompts.users]
    assert histories == [[0, 1, 2], [0, 1], [2]]
    assert prompts.answers.tolist() == [6, 2]
    ends = [
        prompts.tokens[prompts.token_offsets[window] :][: root + 1].tolist()
        for window, root in zip((0, 0, 1), prompts.tree_root.tolist(), strict=True)
    ]
    assert ends == [[BOS, *IDS[history].reshape(-1).tolist()] for history in histories]


def test_prompts_with_words_have_their_root_before_the_answer() -> None:
    data = interactions([0, 1, 2])
    builder = PromptBuilder(PromptTemplate(), PromptTokenizer.of(TOKENIZER), CATALOG)
    windows = Windows(np.array([0]), np.array([0]), np.array([2]), np.array([1]))
    prompts = prompt_windows(data, windows, builder, IDS, trees=5)
    assert prompts.tree_root.tolist() == [len(builder.build([0, 1])) - 1]


@pytest.mark.parametrize(
    ("codes", "probabilities", "expected"),
    [
        ([2, 0], [0.5, 0.25], [0.25, 0.125, 0.5, 0.125]),
        ([1, 4], [0.7, 0.0], [0.1, 0.7, 0.1, 0.1]),
        ([4, 4], [0.0, 0.0], [0.25, 0.25, 0.25, 0.25]),
    ],
)
def test_what_is_not_kept_shares_the_rest(codes: list[int], probabilities: list[float], expected: list[float]) -> None:
    found = dense(torch.tensor([codes]), torch.tensor([probabilities]), 4)
    torch.testing.assert_close(found, torch.tensor([expected]))
