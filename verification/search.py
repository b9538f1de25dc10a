"""One running request: how far its beam search has come and which slots it owns.

Invariant: everything here is known on the host without reading the device. Widths follow from the trie and the request alone, and slots are
taken for the whole search when it starts, so a request that has started can never run out of memory half way.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.trie import ItemTrie
from verification.request import BeamRequest

IntArray = npt.NDArray[np.int64]


def beam_widths(request: BeamRequest, trie: ItemTrie) -> tuple[int, ...]:
    """Prefixes kept at each depth from 1 on; no level keeps more than it has nodes, and the last keeps what is asked for."""
    inner = [min(request.beam_width, trie.level_size(depth)) for depth in range(1, trie.depth)]
    return (*inner, min(request.k, trie.level_size(trie.depth)))


@dataclass
class BeamSearch:
    """The state of one request in the engine.

    Attributes:
        widths: prefixes kept at depth 1, 2, ….
        slots: `[columns]`, all slots that the request owns: prompt first, then the nodes of each level but the last.
        dead_nodes: ascending trie nodes that must not be entered, on the model's device.
        depth: how many levels are decided; the beam of that depth is what the next forward scores.
        target_forwards: forwards of the target so far.
    """

    request: BeamRequest
    widths: tuple[int, ...]
    slots: IntArray
    dead_nodes: Tensor
    depth: int = 0
    target_forwards: int = 0
    _level_starts: IntArray = field(init=False)

    def __post_init__(self) -> None:
        self._level_starts = np.cumsum([len(self.request.prompt), *self.widths[:-1]])

    @classmethod
    def start(cls, request: BeamRequest, trie: ItemTrie, slots: IntArray, device: torch.device) -> "BeamSearch":
        dead = torch.from_numpy(trie.dead_nodes(request.excluded_items)).to(device)
        return cls(request, beam_widths(request, trie), slots, dead)

    @property
    def is_last_level(self) -> bool:
        """Whether the next forward decides the list."""
        return self.depth == len(self.widths) - 1

    @property
    def forward_columns(self) -> slice:
        """The columns of the tokens that the next forward computes: the prompt, or the beam."""
        return slice(0, self.visible_columns) if self.depth == 0 else self.level_columns(self.depth)

    @property
    def visible_columns(self) -> int:
        """How many leading columns every node sees: the prompt's."""
        return len(self.request.prompt)

    @property
    def used_columns(self) -> int:
        """How many leading columns hold keys and values once the next forward has run."""
        return self.forward_columns.stop

    def level_columns(self, depth: int) -> slice:
        """The columns of the beam at `depth`, 1 up to the last level but one."""
        return slice(int(self._level_starts[depth - 1]), int(self._level_starts[depth]))

    @property
    def beam_columns(self) -> slice:
        """The columns whose next-token logits the next forward must give: the last prompt token's, or the beam's."""
        return slice(self.visible_columns - 1, self.visible_columns) if self.depth == 0 else self.level_columns(self.depth)
