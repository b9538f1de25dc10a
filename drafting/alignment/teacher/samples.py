"""Teacher samples: batches of windows, trees and the teacher's distributions, read from teacher data.

Invariant: tokens and tree shapes are in memory as flat arrays, which grow with the interactions' ids and no faster; distributions stay on
the disk, and a batch reads the rows of its own windows.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from drafting.alignment.teacher.data import VALID_FILE, WINDOW_ARRAYS, ShardFile
from drafting.alignment.teacher.trees import PromptWindows, join_windows
from drafting.alignment.tree_batch import Batch, TreeWindows, plain_batch, tree_batch
from drafting.trie.item_trie import ItemTrie

IntArray = npt.NDArray[np.int64]


class TeacherSamples(torch.utils.data.Dataset[Batch]):
    """The windows of some shards as training samples.

    Attributes:
        lengths: `[windows]`, tokens per sample.
        bucket_lengths: `[windows]`, without the trees, so that drafts meet the windows in the same order whatever their objective needs.
    """

    def __init__(self, shards: Sequence[Path], trie: ItemTrie, pad_token_id: int, *, answers: bool = False, trees: bool = False) -> None:
        """
        Args:
            answers: whether batches hold the teacher's distributions of the answers.
            trees: whether batches hold its trees and their distributions.
        """
        self._shards = [ShardFile(path) for path in shards]
        self._pad_token_id = pad_token_id
        self._with_answers, self._with_trees = answers, trees
        parts = [_read_windows(shard, trie, trees) for shard in self._shards]
        self._windows = _join(parts)
        sizes = [len(part) for part in parts]
        self._shard = np.repeat(np.arange(len(parts)), sizes)
        firsts = np.cumsum(sizes) - sizes
        self._answer_offsets = np.concatenate([[0], np.cumsum(self._windows.answers)])
        self._answer_base = self._answer_offsets[firsts]
        self._node_base = self._windows.node_offsets[self._windows.tree_offsets[firsts]]
        self._trie_node = np.concatenate([shard.read("node_trie") for shard in self._shards]) if trees else np.empty(0, np.int32)
        self.lengths = self._windows.widths(trees)
        self.bucket_lengths = np.diff(self._windows.token_offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    def set_epoch(self, epoch: int) -> None:
        """Every epoch has the same samples: what the teacher said belongs to whole windows."""

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of these windows: see `plain_batch`, `tree_batch`, and the names that `_answer_parts` and `_tree_parts` add."""
        chosen = np.asarray(indices)
        if not self._with_trees:
            batch = plain_batch(self._windows, chosen, self._pad_token_id)
            return batch | self._answer_parts(chosen)
        batch, nodes = tree_batch(self._windows, chosen, self._pad_token_id)
        width = batch["input_ids"].shape[1]
        places = {
            "node_row": nodes.row * width + nodes.column,
            "node_level": self._windows.node_depth[nodes.index],
            "node_token": self._windows.node_token[nodes.index],
            "node_trie": self._trie_node[nodes.index].astype(np.int64),
            "node_parent": nodes.parent,
            "node_tree": nodes.tree,
        }
        return (
            batch
            | {name: torch.from_numpy(array) for name, array in places.items()}
            | self._tree_parts(chosen)
            | self._answer_parts(chosen)
        )

    def _answer_parts(self, chosen: IntArray) -> Batch:
        """`answer_codes` int64 and `answer_probabilities` float32, `[answers, top]`, in the order of the labels."""
        if not self._with_answers:
            return {}
        base = self._answer_base[self._shard[chosen]]
        starts, ends = self._answer_offsets[chosen] - base, self._answer_offsets[chosen + 1] - base
        return self._gather("answer", chosen, starts, ends, ("codes", "probabilities"))

    def _tree_parts(self, chosen: IntArray) -> Batch:
        """`node_codes` int64, `node_probabilities` and `node_taken` float32, `[nodes, top]`."""
        ends = self._windows.node_offsets[self._windows.tree_offsets]
        base = self._node_base[self._shard[chosen]]
        return self._gather("node", chosen, ends[chosen] - base, ends[chosen + 1] - base, ("codes", "probabilities", "taken"))

    def _gather(self, kind: str, chosen: IntArray, starts: IntArray, ends: IntArray, names: Sequence[str]) -> Batch:
        parts: Batch = {}
        for name in names:
            rows = [
                self._shards[shard].rows(f"{kind}_{name}", slice(start, end))
                for shard, start, end in zip(self._shard[chosen].tolist(), starts.tolist(), ends.tolist(), strict=True)
            ]
            joined = torch.from_numpy(np.concatenate(rows))
            parts[f"{kind}_{name}"] = joined.long() if name == "codes" else joined.float()
        return parts


def validation_windows(directory: Path, trie: ItemTrie, pad_token_id: int) -> TeacherSamples:
    """The validation samples that lie beside the shards."""
    return TeacherSamples([directory / VALID_FILE], trie, pad_token_id)


def _read_windows(shard: ShardFile, trie: ItemTrie, trees: bool) -> TreeWindows:
    tokens, token_offsets, answers, tree_offsets, tree_root = (shard.read(name).astype(np.int64) for name in WINDOW_ARRAYS)
    if not trees:
        tree_offsets, tree_root = np.zeros_like(token_offsets), tree_root[:0]
    prompts = PromptWindows(tokens, token_offsets, answers, tree_offsets, tree_root, histories=[])
    if not trees:
        return join_windows(prompts, np.zeros(1, np.int64), tree_root[:0], tree_root[:0], trie)
    node_offsets, trie_node, parent = (shard.read(name).astype(np.int64) for name in ("node_offsets", "node_trie", "node_parent"))
    return join_windows(prompts, node_offsets, trie_node, parent, trie)


def _join(parts: Sequence[TreeWindows]) -> TreeWindows:
    return TreeWindows(
        tokens=np.concatenate([part.tokens for part in parts]),
        token_offsets=_join_offsets([part.token_offsets for part in parts]),
        answers=np.concatenate([part.answers for part in parts]),
        tree_offsets=_join_offsets([part.tree_offsets for part in parts]),
        tree_root=np.concatenate([part.tree_root for part in parts]),
        node_offsets=_join_offsets([part.node_offsets for part in parts]),
        node_token=np.concatenate([part.node_token for part in parts]),
        node_depth=np.concatenate([part.node_depth for part in parts]),
        node_parent=np.concatenate([part.node_parent for part in parts]),
    )


def _join_offsets(parts: Sequence[IntArray]) -> IntArray:
    counts = np.concatenate([np.diff(part) for part in parts])
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
