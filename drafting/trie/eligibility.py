"""The trie nodes that a search may enter: the request's filter and its excluded items.

Invariant: eligibility is a property of a request and a node, never of the batch. The filter is a mask, shared by all requests with the same
filter; the excluded items become a short list of excluded nodes of this request alone. Both are applied before the top-K, so k items come
back whenever k are eligible.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import BoolArray, IntArray
from drafting.device import arange, is_async, on_device
from drafting.trie.arrays import find_sorted
from drafting.trie.node_mask import MaskBits, NodeMask


@dataclass(frozen=True)
class Eligibility:
    """The trie nodes that one request may enter.

    Attributes:
        excluded_nodes: ascending trie nodes that must not be entered although the mask allows them.
        device: device of the trie.
        mask: mask of the request's filter; None allows every node.
    """

    excluded_nodes: IntArray
    device: torch.device
    mask: NodeMask | None = None

    @cached_property
    def excluded_on_device(self) -> Tensor:
        """`excluded_nodes` as a tensor on `device`."""
        return on_device(self.excluded_nodes, self.device)

    @cached_property
    def excludes(self) -> bool:
        """True if the request excludes nodes beside its filter."""
        return len(self.excluded_nodes) > 0

    @property
    def limited(self) -> bool:
        """True if any node is not allowed."""
        return self.excludes or self.mask is not None

    def allowed(self, nodes: IntArray) -> BoolArray:
        """`[nodes]` bool, True for each of `nodes` that may be entered."""
        allowed = np.ones(len(nodes), bool) if self.mask is None else self.mask.allows(nodes)
        if self.excludes:
            allowed &= find_sorted(nodes, self.excluded_nodes) < 0
        return allowed


@dataclass(frozen=True)
class BatchEligibility:
    """The trie nodes that the requests of a batch may enter.

    Attributes:
        nodes: number of nodes of the trie.
        requests: `[rows]` int64, the request of each row that will be queried.
        excluded_keys: ascending `request * nodes + node` of excluded nodes, at least one; None if there are none.
        bits: storage of the masks; None if no request has a mask.
        mask_starts: `[requests]` int64, first byte of the mask of each request in the flattened storage.
        unmasked: `[requests]` bool, True for requests without a mask; None if all have one.
    """

    nodes: int
    requests: Tensor
    excluded_keys: Tensor | None
    bits: MaskBits | None
    mask_starts: Tensor
    unmasked: Tensor | None

    @classmethod
    def of(cls, each: Sequence[Eligibility], nodes: int, rows: Sequence[int]) -> "BatchEligibility | None":
        """Collect the eligibility of the requests of a batch; all masks belong to one bank.

        Args:
            nodes: number of nodes of the trie.
            rows: number of rows of each request that will be queried, request by request.

        Returns:
            None if every request may enter every node, which is then the cheaper computation.
        """
        if not any(one.limited for one in each):
            return None
        bits = next((one.mask.bits for one in each if one.mask is not None), None)
        excluding = any(one.excludes for one in each)
        device = each[0].device
        excluded = torch.cat([one.excluded_on_device + request * nodes for request, one in enumerate(each)]) if excluding else None
        masks = np.array([-1 if one.mask is None else one.mask.row for one in each])
        starts = masks.clip(min=0) * (0 if bits is None else bits.rows.shape[1])
        return cls(
            nodes,
            on_device(np.repeat(np.arange(len(each)), rows), device),
            excluded,
            bits,
            on_device(starts, device),
            on_device(masks < 0, device) if (masks < 0).any() else None,
        )

    def take(self, rows: Tensor) -> "BatchEligibility":
        """The eligibility for some of the rows, by their indices `[rows]`."""
        return replace(self, requests=self.requests.index_select(0, rows))

    def allowed(self, first: Tensor, width: int) -> Tensor:
        """Look up ranges of consecutive nodes.

        Args:
            first: `[rows]` int64, the first trie node of each row, or the number of nodes; distinct within a request, unless reading waits:
                then a draft may propose what stands in the tree.
            width: length of each range, at most `max(max_children)`.

        Returns:
            `[rows, width]` bool, True where the node may be entered; undefined where there is no such node.
        """
        # One spare column: excluded nodes that are in no row are marked there.
        if self.bits is None:
            allowed = torch.ones(len(first), width + 1, dtype=torch.bool, device=first.device)
        else:
            allowed = self._unmasked(self.bits, first, width + 1)
        if self.excluded_keys is not None:
            self._clear_excluded(allowed, self.excluded_keys, first)
        return allowed[:, :width]

    def _unmasked(self, masks: MaskBits, first: Tensor, width: int) -> Tensor:
        """`[rows, width]` bool, True where the mask of the row's request allows the node."""
        # Read whole bytes, shift them so that the first bit is the first node, and spread each byte into eight: an eighth of the reads.
        starts = self.mask_starts[self.requests] + (first >> 3)
        read = masks.rows.view(-1)[starts[:, None] + arange(width // 8 + 2, first.device)]
        offset = (first & 7).byte()[:, None]
        moved = (read[:, :-1] >> offset) | (read[:, 1:] << (8 - offset))
        allowed = masks.spread.index_select(0, moved.flatten().int()).view(torch.bool).view(len(first), -1)[:, :width]
        if self.unmasked is not None:
            allowed |= self.unmasked[self.requests][:, None]
        return allowed

    def _clear_excluded(self, allowed: Tensor, excluded: Tensor, first: Tensor) -> None:
        """Clear the excluded nodes in `allowed`: each excluded node is searched among the rows, which are fewer than the nodes in them."""
        spare = allowed.shape[1] - 1
        firsts, order = (first + self.requests * self.nodes).sort()
        rows = torch.searchsorted(firsts, excluded, right=True) - 1
        distance = excluded - firsts[rows.clamp(min=0)]
        inside = (rows >= 0) & (distance < spare)
        allowed[order[rows], torch.where(inside, distance, spare)] = False
        if is_async(first.device):
            # Among equal rows the search finds the last; the others are given what that one has.
            same = order.index_select(0, torch.searchsorted(firsts, firsts, right=True) - 1)
            allowed.index_copy_(0, order, allowed.index_select(0, same))
