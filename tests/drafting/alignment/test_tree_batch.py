"""Tree batches: a node is scored as its plain sequence would be, and trees disturb neither their window nor each other."""

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from drafting.alignment.data.samples import IGNORED_LABEL
from drafting.alignment.tree_batch import TreeWindows, answer_rows, plain_batch, tree_batch
from drafting.trie.arrays import ranges
from tests.models import TINY_CONFIG

VOCABULARY = 20


def array(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


@pytest.fixture
def windows() -> TreeWindows:
    """Three windows: two trees, none, and one; prefixes of the first tree are 5, 5-7, 5-8 and 6."""
    return TreeWindows(
        tokens=array(1, 2, 3, 4, 9, 9, 1, 3, 1, 2, 9, 9),
        token_offsets=array(0, 6, 8, 12),
        answers=array(4, 0, 2),
        tree_offsets=array(0, 2, 2, 3),
        tree_root=array(3, 1, 1),
        node_offsets=array(0, 5, 7, 10),
        node_token=array(0, 5, 6, 7, 8, 0, 5, 0, 11, 12),
        node_depth=array(0, 1, 1, 2, 2, 0, 1, 0, 1, 2),
        node_parent=array(0, 0, 0, 1, 1, 0, 0, 0, 0, 1),
    )


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(LlamaConfig(**{**TINY_CONFIG, "num_hidden_layers": 2, "vocab_size": VOCABULARY})).eval()


def nodes_of(windows: TreeWindows, window: int) -> slice:
    return slice(*windows.node_offsets[windows.tree_offsets[window : window + 2]].tolist())


def test_ranges_by_hand() -> None:
    assert ranges(array(5, 0, 2), array(2, 0, 3)).tolist() == [5, 6, 2, 3, 4]


def test_a_window_is_as_wide_as_its_tokens_and_its_trees_nodes(windows: TreeWindows) -> None:
    assert windows.widths(trees=False).tolist() == [6, 2, 4]
    assert windows.widths(trees=True).tolist() == [11, 2, 6]
    assert nodes_of(windows, 0) == slice(0, 7)


@pytest.mark.parametrize("chosen", [array(0, 1, 2), array(2, 0), array(1, 1, 0)])
def test_nodes_say_what_plain_sequences_say(windows: TreeWindows, model: LlamaForCausalLM, chosen: np.ndarray) -> None:
    prefixes = {1: [5], 2: [6], 3: [5, 7], 4: [5, 8], 0: [], 5: [], 6: [5], 7: [], 8: [11], 9: [11, 12]}
    prompts = {0: [1, 2, 3, 4], 1: [1, 2], 2: [1, 2]}
    tree_of = np.searchsorted(windows.node_offsets, np.arange(10), side="right") - 1
    batch, nodes = tree_batch(windows, chosen, 0)
    with torch.inference_mode():
        logits = model(**{name: batch[name] for name in ("input_ids", "position_ids", "attention_mask")}).logits
        assert len(nodes.index) == sum(len(range(*nodes_of(windows, window).indices(10))) for window in chosen)
        for place, node in enumerate(nodes.index.tolist()):
            plain = torch.tensor([prompts[int(tree_of[node])] + prefixes[node]])
            expected = model(plain).logits[0, -1]
            torch.testing.assert_close(logits[nodes.row[place], nodes.column[place]], expected, atol=1e-5, rtol=1e-4)


def test_trees_leave_their_window_alone(windows: TreeWindows, model: LlamaForCausalLM) -> None:
    plain = plain_batch(windows, array(0, 1, 2), 0)
    grown, _ = tree_batch(windows, array(0, 1, 2), 0)
    with torch.inference_mode():
        alone = model(plain["input_ids"]).logits
        beside = model(**{name: grown[name] for name in ("input_ids", "position_ids", "attention_mask")}).logits
    for row, length in enumerate((6, 2, 4)):
        torch.testing.assert_close(beside[row, :length], alone[row, :length], atol=1e-5, rtol=1e-4)


def test_labels_are_the_answers_and_nothing_else(windows: TreeWindows) -> None:
    for batch in (plain_batch(windows, array(0, 2), 0), tree_batch(windows, array(0, 2), 0)[0]):
        labels = batch["labels"]
        assert [row[row != IGNORED_LABEL].tolist() for row in labels] == [[3, 4, 9, 9], [9, 9]]
        rows = answer_rows(labels)
        assert batch["input_ids"].flatten()[rows + 1].tolist() == [3, 4, 9, 9, 9, 9]
        assert batch["input_ids"].flatten()[rows].tolist() == [2, 3, 4, 9, 2, 9]
