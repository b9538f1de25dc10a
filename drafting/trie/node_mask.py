"""Masks over the nodes of a trie: the nodes that a filter allows, which are those with at least one allowed item below them.

Invariant: the bit of every node, inner nodes included, says that an allowed item is below it, so a beam that stays on allowed nodes always
reaches an allowed item. The mask of two filters must therefore be computed from the intersection of their items: a node that each of them
allows may have no item below it that both allow.

The masks of one trie are the rows of one tensor, the bank, so a step that serves requests with many filters reads them with one gather.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.array_types import BoolArray, IntArray
from drafting.device import on_device, on_host
from drafting.trie.arrays import TrieArrays
from drafting.trie.item_set import ItemSet

Bytes = npt.NDArray[np.uint8]

BANK_BYTES = 64 * 2**20
_FEWEST_MASKS = 8
_WORD_BITS = 64
# Multiplying eight bytes of 0 or 1 by this brings the lowest bits of all into the highest byte, in order.
_GATHER_BITS = 0x0102040810204080
# The mask of a filter that allows fewer than one in so many items is computed from its items up instead of from all items.
_NARROW = 32


class MaskBits:
    """The storage that a bank shares with its masks, which may outlive it.

    Attributes:
        rows: `[masks, bytes]` uint8 on the trie's device; node n is the bit `n % 8` of the byte `n // 8`. Rows are padded so that from any
            node on the bits of `max(max_children)` nodes, and eight bytes more, can be read.
        spread: `[256]` int64; the eight bytes of `spread[b]` are the bits of the byte b, lowest first.
    """

    def __init__(self, mask_bytes: int, device: torch.device) -> None:
        self.rows = torch.empty(0, mask_bytes, dtype=torch.uint8, device=device)
        spread = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view("<i8")[:, 0]
        self.spread = torch.from_numpy(spread).to(device)


@dataclass(frozen=True, eq=False)
class NodeMask:
    """The nodes that one filter allows.

    Attributes:
        items: items that the filter allows.
        bits: storage of the mask.
        row: row of the mask in `bits.rows`.
    """

    items: ItemSet
    bits: MaskBits
    row: int

    def rank(self, nodes: IntArray) -> IntArray:
        """Number of allowed nodes before each of `nodes`, `[nodes]` int64; a node may be the number of nodes itself."""
        words, before = self._directory
        word = nodes // _WORD_BITS
        lower = words[word] & ((np.uint64(1) << (nodes % _WORD_BITS).astype(np.uint64)) - np.uint64(1))
        ranks: IntArray = before[word] + np.bitwise_count(lower)
        return ranks

    def allows(self, nodes: IntArray) -> BoolArray:
        """`[nodes]` bool, True for each of `nodes` that is allowed."""
        words, _ = self._directory
        held: BoolArray = (words[nodes // _WORD_BITS] >> (nodes % _WORD_BITS).astype(np.uint64) & np.uint64(1)).astype(bool)
        return held

    @cached_property
    def _directory(self) -> tuple[npt.NDArray[np.uint64], IntArray]:
        (row,) = on_host([self.bits.rows[self.row].view(torch.int64)])
        words = row.view("<u8")
        counts = np.bitwise_count(words).astype(np.int64)
        return words, np.cumsum(counts) - counts


class MaskBank:
    """Cache of the masks of one trie: masks in use stay, and of the others the least recently used are evicted."""

    def __init__(self, trie: TrieArrays, device: torch.device, most_bytes: int = BANK_BYTES) -> None:
        self._trie = trie
        self._device = device
        self._masks: OrderedDict[ItemSet, NodeMask] = OrderedDict()
        self._holders: dict[ItemSet, int] = {}
        self._free: list[int] = []
        self._bytes = 8 * ((trie.nodes + max(trie.max_children)) // _WORD_BITS + 2)
        self._most = max(_FEWEST_MASKS, most_bytes // self._bytes)
        self.bits = MaskBits(self._bytes, device)

    # Within a step or without: tensors that inference has made can't be written to elsewhere.
    @torch.inference_mode()
    def acquire(self, items: ItemSet) -> NodeMask:
        """The mask of a set of items; it stays in the bank until it has been released as often as it was acquired."""
        if items not in self._masks:
            row = self._take_row()
            self.bits.rows[row] = self._wide(items) if len(items) * _NARROW > items.catalog_items else self._narrow(items)
            self._masks[items] = NodeMask(items, self.bits, row)
        self._masks.move_to_end(items)
        self._holders[items] = self._holders.get(items, 0) + 1
        return self._masks[items]

    def release(self, mask: NodeMask | None) -> None:
        """Release a mask that `acquire` returned; None is nothing."""
        if mask is None:
            return
        self._holders[mask.items] -= 1
        if not self._holders[mask.items]:
            del self._holders[mask.items]

    def _take_row(self) -> int:
        rows = self.bits.rows
        if not self._free and len(rows) >= self._most:
            unused = next((items for items in self._masks if items not in self._holders), None)
            if unused is not None:
                return self._masks.pop(unused).row
        if not self._free:
            more = max(_FEWEST_MASKS, min(len(rows), self._most - len(rows)))
            self._free = list(range(len(rows), len(rows) + more))
            self.bits.rows = torch.cat([rows, rows.new_empty(more, self._bytes)])
        return self._free.pop()

    def _wide(self, items: ItemSet) -> Tensor:
        """The mask computed from all items, level by level from the leaves up: a node with an allowed child is allowed."""
        trie, starts = self._trie, self._trie.level_starts
        order, first_item, first_child = self._on_device
        levels = [allowed := _any_between(on_device(items.members(), self._device).index_select(0, order), first_item)]
        for depth in range(trie.depth - 1, -1, -1):
            allowed = _any_between(allowed, first_child[starts[depth] : starts[depth + 1] + 1] - starts[depth + 1])
            levels.append(allowed)
        padding = torch.zeros(8 * self._bytes - trie.nodes, dtype=torch.bool, device=self._device)
        eights = torch.cat([*levels[::-1], padding]).view(torch.int64)
        return ((eights * _GATHER_BITS) >> 56).byte()

    def _narrow(self, items: ItemSet) -> Tensor:
        """The mask computed from the paths of the allowed items alone."""
        bits: Bytes = np.zeros(self._bytes, np.uint8)
        leaves = np.unique(self._trie.leaf_of_item[np.flatnonzero(items.members())])
        nodes = np.append(np.unique(self._trie.paths(leaves)), 0) if len(leaves) else np.empty(0, np.int64)
        np.bitwise_or.at(bits, nodes >> 3, np.uint8(1) << (nodes & 7).astype(np.uint8))
        return on_device(bits, self._device)

    @cached_property
    def _on_device(self) -> tuple[Tensor, Tensor, Tensor]:
        """`items`, `first_item` and `first_child` of the trie as tensors."""
        trie = self._trie
        items, first_item, first_child = (on_device(array, self._device) for array in (trie.items, trie.first_item, trie.first_child))
        return items, first_item, first_child


def _any_between(allowed: Tensor, bounds: Tensor) -> Tensor:
    """`[bounds - 1]` bool, True where any of `allowed` is true from one bound up to the next."""
    before = torch.zeros(len(allowed) + 1, dtype=torch.int32, device=allowed.device)
    torch.cumsum(allowed, 0, dtype=torch.int32, out=before[1:])
    reached = before.index_select(0, bounds)
    return reached[1:] > reached[:-1]
