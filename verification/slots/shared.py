"""The target's key/value slots, as the engines of several catalogs share them.

Invariant: what running requests may come to need is set aside over all engines together. While one catalog takes over from another,
requests of both run side by side on one model, and a request that has started can still never run out of slots half way.
"""

import numpy as np
import numpy.typing as npt

from verification.search import BeamSearch
from verification.slots.pool import SlotPool
from verification.slots.prefix_cache import PrefixCache


class EngineSlots:
    """Slots of tree nodes, which come first, and of prompts.

    Attributes:
        nodes: slots of tree nodes.
        prompts: slots of prompt tokens.
        histories: prompts that are kept for later; tokens mean the same whatever the catalog.
        searches: everything that runs, by request id.
    """

    def __init__(self, total: int, nodes: int, shared_tokens: npt.NDArray[np.int64] | None = None) -> None:
        """`nodes` of `total` slots are for tree nodes; every prompt begins with `shared_tokens`."""
        self.nodes = SlotPool(nodes)
        self.prompts = SlotPool(total - nodes, first=nodes)
        self.prefix_cache = PrefixCache(self.prompts, shared_tokens)
        self.searches: dict[str, BeamSearch] = {}

    @property
    def spare_nodes(self) -> int:
        """Node slots that no running request may come to need."""
        return self.nodes.free - sum(search.reserved_nodes for search in self.searches.values())
