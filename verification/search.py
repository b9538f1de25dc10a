"""One running request: how far its beam search has come and which slots it owns.

Invariant: everything here is known on the host without reading the device. Widths follow from the trie and the request alone, and slots are
taken for the whole search when it starts, so a request that has started can never run out of memory half way.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.trie import ItemTrie
from verification.request import BeamRequest

IntArray = npt.NDArray[np.int64]


def beam_widths(request: BeamRequest, trie: ItemTrie) -> tuple[int, ...]:
    """Prefixes kept at each depth, the root included; no level keeps more than it has nodes, and the last keeps what is asked for."""
    inner = [min(request.beam_width, trie.level_size(depth)) for depth in range(trie.depth)]
    return (*inner, min(request.k, trie.level_size(trie.depth)))


@dataclass
class BeamSearch:
    """The state of one request in the engine.

    A *column* numbers the request's own tokens: its prompt, then the nodes of depth 1, of depth 2, and so on. The root is the last token of
    the prompt, and the last level needs no columns because its prefixes are never continued.

    Attributes:
        widths: prefixes kept at depth 0 (the root), 1, 2, ….
        slots: `[columns]`, the slot of each column; the request owns them all.
        dead_nodes: ascending trie nodes that must not be entered, on the model's device.
        depth: how many levels are decided; the next forward scores the beam of that depth.
    """

    request: BeamRequest
    widths: tuple[int, ...]
    slots: IntArray
    dead_nodes: Tensor
    depth: int = 0

    @classmethod
    def start(cls, request: BeamRequest, trie: ItemTrie, slots: IntArray, device: torch.device) -> "BeamSearch":
        """A search that has decided nothing yet."""
        dead = torch.from_numpy(trie.dead_nodes(request.excluded_items)).to(device)
        return cls(request, beam_widths(request, trie), slots, dead)

    @cached_property
    def _columns(self) -> list[IntArray]:
        ends = np.cumsum([len(self.request.prompt), *self.widths[1:-1]])
        return [np.arange(end - width, end) for end, width in zip(ends, self.widths[:-1], strict=True)]

    @property
    def is_last_level(self) -> bool:
        """Whether the next forward decides the list."""
        return self.depth == len(self.widths) - 2

    @property
    def prompt_length(self) -> int:
        """Tokens of the prompt, the leading columns that every node sees."""
        return len(self.request.prompt)

    @property
    def beam_columns(self) -> IntArray:
        """The prefixes that the next forward scores."""
        return self._columns[self.depth]

    @property
    def next_columns(self) -> IntArray:
        """Where the next beam goes; there is none after the last level."""
        return self._columns[self.depth + 1]

    @property
    def forward_columns(self) -> IntArray:
        """The tokens that the next forward computes: the whole prompt at first, the beam from then on."""
        return np.arange(self.prompt_length) if self.depth == 0 else self.beam_columns

    @property
    def filled_slots(self) -> IntArray:
        """The slots that hold keys and values once the next forward has run."""
        return self.slots[: self.beam_columns[-1] + 1]
