"""What each request may be given: which nodes of the trie a search must not enter.

Invariant: eligibility is a property of a request and a node, never of a batch. A request's filter is a mask that it shares with all who
use the same one; its exclusions are the few nodes that are dead for it alone. Both are applied before the top-K, so k eligible items come
back whenever there are k.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.device import counting, on_device
from drafting.trie.node_mask import MaskBits, NodeMask

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Eligibility:
    """What one request may be given.

    Attributes:
        dead_nodes: ascending trie nodes that must not be entered although the mask lets them through.
        device: of the trie.
        mask: of the request's filter; None lets everything through.
    """

    dead_nodes: IntArray
    device: torch.device
    mask: NodeMask | None = None

    @cached_property
    def dead_on_device(self) -> Tensor:
        """The same nodes there."""
        return on_device(self.dead_nodes, self.device)

    @cached_property
    def excludes(self) -> bool:
        """Whether anything is dead for this request alone."""
        return len(self.dead_nodes) > 0

    @property
    def limited(self) -> bool:
        """Whether there is anything that the request may not be given."""
        return self.excludes or self.mask is not None

    def alive(self, nodes: IntArray) -> npt.NDArray[np.bool_]:
        """Whether each of some nodes may be entered."""
        alive = np.ones(len(nodes), bool) if self.mask is None else self.mask.holds(nodes)
        if self.excludes:
            places = np.searchsorted(self.dead_nodes, nodes).clip(max=len(self.dead_nodes) - 1)
            alive &= self.dead_nodes[places] != nodes
        return alive


@dataclass(frozen=True)
class BatchEligibility:
    """What the requests of a batch may be given.

    Attributes:
        nodes: nodes of the trie.
        requests: `[rows]` int64, the request of each row that is asked about.
        dead_keys: ascending `request * nodes + node` of dead nodes, at least one; None if there are none.
        bits: where the masks lie; None if no request has one.
        mask_starts: `[requests]` int64, where the mask of each request begins in the bytes of all.
        unmasked: `[requests]` bool, the requests without a mask; None if all have one.
    """

    nodes: int
    requests: Tensor
    dead_keys: Tensor | None
    bits: MaskBits | None
    mask_starts: Tensor
    unmasked: Tensor | None

    @classmethod
    def of(cls, each: Sequence[Eligibility], nodes: int, rows: Sequence[int]) -> "BatchEligibility | None":
        """Join the requests of a batch, whose masks are all of one bank, over a trie of so many nodes.

        Args:
            rows: how many rows of each request will be asked about, request by request.

        Returns:
            None if all of them may be given everything, which is then the cheaper computation.
        """
        if not any(one.limited for one in each):
            return None
        bits = next((one.mask.bits for one in each if one.mask is not None), None)
        excluding = any(one.excludes for one in each)
        device = each[0].device
        dead = torch.cat([one.dead_on_device + request * nodes for request, one in enumerate(each)]) if excluding else None
        masks = np.array([-1 if one.mask is None else one.mask.row for one in each])
        starts = masks.clip(min=0) * (0 if bits is None else bits.rows.shape[1])
        return cls(
            nodes,
            on_device(np.repeat(np.arange(len(each)), rows), device),
            dead,
            bits,
            on_device(starts, device),
            on_device(masks < 0, device) if (masks < 0).any() else None,
        )

    def alive(self, first: Tensor, width: int) -> Tensor:
        """Whether neighbouring nodes may be entered.

        Args:
            first: `[rows]` int64, the first trie node of each row, or the number of nodes; no request has two rows that begin alike.
            width: how many nodes after it are asked for, no more than a node has children.

        Returns:
            `[rows, width]` bool; anything where there is no such node.
        """
        # One column more than asked for: what is marked in no row is marked there.
        if self.bits is None:
            alive = torch.ones(len(first), width + 1, dtype=torch.bool, device=first.device)
        else:
            alive = self._unmasked(self.bits, first, width + 1)
        if self.dead_keys is not None:
            self._mark_dead(alive, self.dead_keys, first)
        return alive[:, :width]

    def _unmasked(self, masks: MaskBits, first: Tensor, width: int) -> Tensor:
        """What the masks let through, `[rows, width]` bool."""
        # Bytes are read, moved so that a row's first bit is its first byte's, and then spread out: an eighth of the reads that bits need.
        starts = self.mask_starts[self.requests] + (first >> 3)
        read = masks.rows.view(-1)[starts[:, None] + counting(width // 8 + 2, first.device)]
        offset = (first & 7).byte()[:, None]
        moved = (read[:, :-1] >> offset) | (read[:, 1:] << (8 - offset))
        alive = masks.spread.index_select(0, moved.flatten().int()).view(torch.bool).view(len(first), -1)[:, :width]
        if self.unmasked is not None:
            alive |= self.unmasked[self.requests][:, None]
        return alive

    def _mark_dead(self, alive: Tensor, dead: Tensor, first: Tensor) -> None:
        """Clear the dead nodes in `alive`; these look for their rows, which are fewer than the nodes in them."""
        spare = alive.shape[1] - 1
        firsts, order = (first + self.requests * self.nodes).sort()
        rows = torch.searchsorted(firsts, dead, right=True) - 1
        distance = dead - firsts[rows.clamp(min=0)]
        inside = (rows >= 0) & (distance < spare)
        alive[order[rows], torch.where(inside, distance, spare)] = False
