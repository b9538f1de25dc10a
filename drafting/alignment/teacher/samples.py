"""Teacher samples: batches of windows, trees and the teacher's distributions, read from teacher data.

Invariant: only tokens and the shapes of the trees are in memory, as flat arrays; distributions stay on disk, and a batch reads the rows of
its windows.
"""

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from drafting.alignment.data.samples import Batch
from drafting.alignment.teacher.data import VALID_FILE, VISITS, ShardFile
from drafting.alignment.tree_batch import TokenWindows, TreeWindows, plain_batch, tree_batch
from drafting.array_types import IntArray
from drafting.trie.arrays import offsets_of
from drafting.trie.item_trie import ItemTrie


class TeacherSamples(torch.utils.data.Dataset[Batch]):
    """The windows of shards as training samples.

    Attributes:
        lengths: `[windows]`, number of tokens of each sample.
        bucket_lengths: `[windows]`, number of tokens without the trees, so that all objectives see the windows in the same order.
    """

    def __init__(self, shards: Sequence[Path], trie: ItemTrie, pad_token_id: int, *, answers: bool = False, trees: bool = False) -> None:
        """
        Args:
            answers: include the teacher's distributions of the answers in batches.
            trees: include the trees and their distributions in batches.
        """
        self._shards = [ShardFile(path) for path in shards]
        self._pad_token_id = pad_token_id
        self._with_answers, self._with_trees = answers, trees
        parts = [_read_windows(shard, trie, trees) for shard in self._shards]
        self._windows = _join(parts)
        sizes = [len(part) for part in parts]
        self._shard = np.repeat(np.arange(len(parts)), sizes)
        self._first_window = np.cumsum(sizes) - sizes
        self._answer_offsets = offsets_of(self._windows.answers)
        self._node_offsets = self._windows.node_offsets[self._windows.tree_offsets]
        self._trie_node = np.concatenate([shard.read("node_trie") for shard in self._shards]) if trees else np.empty(0, np.int32)
        self._visits = np.concatenate([_visits(shard) for shard in self._shards]) if trees else np.empty(0, np.int16)
        self.lengths = self._windows.widths(trees)
        self.bucket_lengths = np.diff(self._windows.token_offsets)

    def __len__(self) -> int:
        return len(self.lengths)

    @property
    def lacks_visits(self) -> bool:
        """True if prefixes that are on no list of the target are in the trees, but not how many of a draft's lists pass them."""
        shard = next((shard for shard in self._shards if self._with_trees and not shard.has(VISITS)), None)
        if shard is None:
            return False
        alone = shard.read("node_taken").sum(1) == 0
        # Where there is no list at all, the root is alone, too.
        alone[shard.read("node_offsets")[:-1]] = False
        return bool(alone.any())

    def set_epoch(self, epoch: int) -> None:
        """Do nothing: the teacher's distributions belong to whole windows, so every epoch has the same samples."""

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """The batch of windows: see `plain_batch`, `tree_batch`, and the names that `_answer_parts` and `_tree_parts` add."""
        chosen = np.asarray(indices)
        if not self._with_trees:
            batch = plain_batch(self._windows, chosen, self._pad_token_id)
            return batch | self._answer_parts(chosen)
        batch, nodes = tree_batch(self._windows, chosen, self._pad_token_id)
        width = batch["input_ids"].shape[1]
        arrays = {
            "node_row": nodes.row * width + nodes.column,
            "node_level": self._windows.node_depth[nodes.index],
            "node_token": self._windows.node_token[nodes.index],
            "node_trie": self._trie_node[nodes.index].astype(np.int64),
            "node_parent": nodes.parent,
            "node_tree": nodes.tree,
            VISITS: self._visits[nodes.index].astype(np.float32),
        }
        return (
            batch
            | {name: torch.from_numpy(array) for name, array in arrays.items()}
            | self._tree_parts(chosen)
            | self._answer_parts(chosen)
        )

    def _answer_parts(self, chosen: IntArray) -> Batch:
        """`answer_codes` int64 and `answer_probabilities` float32, `[answers, top]`, in the order of the labels."""
        if not self._with_answers:
            return {}
        return self._gather("answer", chosen, self._answer_offsets, ("codes", "probabilities"))

    def _tree_parts(self, chosen: IntArray) -> Batch:
        """`node_codes` int64, `node_probabilities` and `node_taken` float32, `[nodes, top]`."""
        return self._gather("node", chosen, self._node_offsets, ("codes", "probabilities", "taken"))

    def _gather(self, kind: str, chosen: IntArray, offsets: IntArray, names: Sequence[str]) -> Batch:
        """Read the rows of windows from their shards, as `KIND_NAME` for each of the names.

        Args:
            offsets: `[windows + 1]`, the first row of each window, counted through all shards.
        """
        shards = self._shard[chosen]
        base = offsets[self._first_window[shards]]
        starts, ends = offsets[chosen] - base, offsets[chosen + 1] - base
        parts: Batch = {}
        for name in names:
            rows = [
                self._shards[shard].rows(f"{kind}_{name}", slice(start, end))
                for shard, start, end in zip(shards.tolist(), starts.tolist(), ends.tolist(), strict=True)
            ]
            joined = torch.from_numpy(np.concatenate(rows))
            parts[f"{kind}_{name}"] = joined.long() if name == "codes" else joined.float()
        return parts


def validation_windows(directory: Path, trie: ItemTrie, pad_token_id: int) -> TeacherSamples:
    """The validation samples of teacher data."""
    return TeacherSamples([directory / VALID_FILE], trie, pad_token_id)


def _visits(shard: ShardFile) -> npt.NDArray[np.int16]:
    """How many lists that the target did not choose pass each node of a shard."""
    return shard.read(VISITS) if shard.has(VISITS) else np.zeros(len(shard.read("node_trie")), np.int16)


def _read_windows(shard: ShardFile, trie: ItemTrie, trees: bool) -> TreeWindows:
    arrays = {field.name: shard.read(field.name).astype(np.int64) for field in fields(TokenWindows)}
    if trees:
        offsets, trie_node, parent = (shard.read(name).astype(np.int64) for name in ("node_offsets", "node_trie", "node_parent"))
    else:
        arrays |= {"tree_offsets": np.zeros_like(arrays["token_offsets"]), "tree_root": np.empty(0, np.int64)}
        offsets, trie_node, parent = np.zeros(1, np.int64), np.empty(0, np.int64), np.empty(0, np.int64)
    return TreeWindows.of(TokenWindows(**arrays), offsets, trie_node, parent, trie)


def _join(parts: Sequence[TreeWindows]) -> TreeWindows:
    arrays: dict[str, IntArray] = {}
    for name in vars(parts[0]):
        each = [vars(part)[name] for part in parts]
        arrays[name] = offsets_of(np.concatenate([np.diff(part) for part in each])) if name.endswith("offsets") else np.concatenate(each)
    return TreeWindows(**arrays)
