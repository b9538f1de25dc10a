"""Which nodes of a trie a filter leaves alive: those below which at least one of its items lies.

Invariant: a node's bit says that an eligible item is below it, for inner nodes too, so a beam that keeps to alive nodes reaches an eligible
item from wherever it is. For two filters at once this must be worked out from their common items: a node that is alive for each of them
may hold nothing that both let through.

The masks of one trie lie side by side in one tensor, the bank, so a step that serves many filters reads them all with one gather and
copies none.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.trie.arrays import TrieArrays
from drafting.trie.item_set import ItemSet

IntArray = npt.NDArray[np.int64]
Bytes = npt.NDArray[np.uint8]

BANK_BYTES = 64 * 2**20
_FEWEST_MASKS = 8
_WORD_BITS = 64
# Multiplying eight bytes of 0 or 1 by this brings the lowest bits of all into the highest byte, in order.
_GATHER_BITS = 0x0102040810204080
# A filter that leaves fewer than one in so many items is found from its items up instead of from all items.
_NARROW = 32


class MaskBits:
    """Where masks lie: what a bank shares with its masks, which may outlive it.

    Attributes:
        rows: `[rows, bytes]` uint8 on the trie's device, one mask a row: the bit `node % 8` of the byte `node // 8`. There are enough bytes
            to read on from any node for as many as a node has children, and a word more.
        spread: `[256]` int64; the eight bytes of `spread[b]` are the bits of the byte b, the lowest first.
    """

    def __init__(self, mask_bytes: int, device: torch.device) -> None:
        self.rows = torch.empty(0, mask_bytes, dtype=torch.uint8, device=device)
        spread = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little").view("<i8")[:, 0]
        self.spread = torch.from_numpy(spread).to(device)


@dataclass(frozen=True, eq=False)
class NodeMask:
    """The alive nodes of one filter.

    Attributes:
        items: what the filter lets through.
        bits: where its bits lie.
        row: which row they are.
    """

    items: ItemSet
    bits: MaskBits
    row: int

    def rank(self, nodes: IntArray) -> IntArray:
        """How many alive nodes have a smaller number than each of `nodes`, which may be the number of nodes itself."""
        words, before = self._directory
        place = nodes // _WORD_BITS
        lower = words[place] & ((np.uint64(1) << (nodes % _WORD_BITS).astype(np.uint64)) - np.uint64(1))
        ranks: IntArray = before[place] + np.bitwise_count(lower)
        return ranks

    def holds(self, nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each of `nodes` is alive."""
        words, _ = self._directory
        held: npt.NDArray[np.bool_] = (words[nodes // _WORD_BITS] >> (nodes % _WORD_BITS).astype(np.uint64) & np.uint64(1)).astype(bool)
        return held

    @cached_property
    def _directory(self) -> tuple[npt.NDArray[np.uint64], IntArray]:
        words = self.bits.rows[self.row].cpu().numpy().view("<u8")
        counts = np.bitwise_count(words).astype(np.int64)
        return words, np.cumsum(counts) - counts


class MaskBank:
    """Makes and keeps the masks of one trie; those that are in use stay, of the others the least recently used go."""

    def __init__(self, trie: TrieArrays, device: torch.device, most_bytes: int = BANK_BYTES) -> None:
        self._trie = trie
        self._device = device
        self._masks: OrderedDict[ItemSet, NodeMask] = OrderedDict()
        self._holders: dict[ItemSet, int] = {}
        self._free: list[int] = []
        self._bytes = 8 * ((trie.nodes + max(trie.max_children)) // _WORD_BITS + 2)
        self._most = max(_FEWEST_MASKS, most_bytes // self._bytes)
        self.bits = MaskBits(self._bytes, device)

    def acquire(self, items: ItemSet) -> NodeMask:
        """The mask of a set of the catalog's items; it stays until it has been released as often as it was acquired."""
        if items not in self._masks:
            row = self._take_row()
            self.bits.rows[row] = self._wide(items) if len(items) * _NARROW > items.catalog_items else self._narrow(items)
            self._masks[items] = NodeMask(items, self.bits, row)
        self._masks.move_to_end(items)
        self._holders[items] = self._holders.get(items, 0) + 1
        return self._masks[items]

    def release(self, mask: NodeMask) -> None:
        """Say that one holder no longer needs a mask."""
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
        """The alive nodes found from all items: leaves first, then level by level whose child is alive."""
        trie, starts = self._trie, self._trie.level_starts
        order, first_item, first_child = self._on_device
        levels = [alive := _any_between(torch.from_numpy(items.members()).to(self._device).index_select(0, order), first_item)]
        for depth in range(trie.depth - 1, -1, -1):
            alive = _any_between(alive, first_child[starts[depth] : starts[depth + 1] + 1] - starts[depth + 1])
            levels.append(alive)
        padding = torch.zeros(8 * self._bytes - trie.nodes, dtype=torch.bool, device=self._device)
        eights = torch.cat([*levels[::-1], padding]).view(torch.int64)
        return ((eights * _GATHER_BITS) >> 56).byte()

    def _narrow(self, items: ItemSet) -> Tensor:
        """The alive nodes found from the few eligible items up."""
        bits: Bytes = np.zeros(self._bytes, np.uint8)
        leaves = np.unique(self._trie.leaf_of_item[np.flatnonzero(items.members())])
        nodes = np.append(np.unique(self._trie.paths(leaves)), 0) if len(leaves) else np.empty(0, np.int64)
        np.bitwise_or.at(bits, nodes >> 3, np.uint8(1) << (nodes & 7).astype(np.uint8))
        return torch.from_numpy(bits).to(self._device)

    @cached_property
    def _on_device(self) -> tuple[Tensor, Tensor, Tensor]:
        """The order of the items, where the items of each leaf begin, and where the children of each node do."""
        trie = self._trie
        items, first_item, first_child = (
            torch.from_numpy(array).to(self._device) for array in (trie.items, trie.first_item, trie.first_child)
        )
        return items, first_item, first_child


def _any_between(alive: Tensor, bounds: Tensor) -> Tensor:
    """Whether anything is true from each bound up to the next, `[bounds - 1]` bool."""
    before = torch.zeros(len(alive) + 1, dtype=torch.int32, device=alive.device)
    torch.cumsum(alive, 0, dtype=torch.int32, out=before[1:])
    reached = before.index_select(0, bounds)
    return reached[1:] > reached[:-1]
