"""The beginning and the end of a request's searches: slots, the prompt in the tree, the items that they may find.

Invariant: everything that a search takes, slots and its share of a filter's mask, is given back when it is closed.
"""

from collections.abc import Sequence

import numpy as np

from drafting.beam.rule import Normalisation
from drafting.beam.tree import TokenTree, to_device
from drafting.plans.plan import Plan
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie
from drafting.trie.node_mask import MaskBank
from verification.engine.blend import BlendStep
from verification.engine.explain import ExplainStep
from verification.engine.reserved import split_request
from verification.request import BeamRequest
from verification.search import BeamSearch, beam_widths
from verification.slots.engine_slots import EngineSlots, whole_prompt
from verification.slots.pool import CachedPrefix


class OpenStep:
    """Opens and closes the searches of an engine."""

    def __init__(
        self,
        tree: TokenTree,
        trie: ItemTrie,
        slots: EngineSlots,
        blending: BlendStep,
        explaining: ExplainStep,
        normalise: Normalisation,
    ) -> None:
        """`normalise` is for requests that do not say it."""
        self._tree = tree
        self._trie = trie
        self._slots = slots
        self._blending = blending
        self._explaining = explaining
        self._normalise = normalise
        self._device = tree.token.device
        self._masks = MaskBank(trie, self._device)

    def open(self, request: BeamRequest, plan: Plan | None, known: CachedPrefix | None) -> list[BeamSearch]:
        """Open the searches of a request; slots must be free for them.

        Args:
            plan: decides which of them draft; None for no drafts.
            known: the prompt, where it has been computed; None to look for its beginning in the prefix cache.
        """
        searches: list[BeamSearch] = []
        for part in split_request(request):
            search = self._slots.open(part, beam_widths(part, self._trie), self._eligibility(part), known)
            search.drafts = plan is not None and plan.drafts_for(part.cache_key)
            search.normalise = request.normalise or self._normalise
            self._tree.add_prompt(*to_device([np.stack([search.sequence.slots, part.prompt])], self._device))
            if part.blend is not None:
                self._blending.grow(search, part.blend)
            if part.explain is not None:
                self._explaining.begin(search)
            searches.append(search)
            known = whole_prompt(searches[0])
        return searches

    def restart(self, search: BeamSearch, request: BeamRequest) -> None:
        """Let a search begin again behind the same prompt, by another request."""
        self._masks.release(search.eligibility.mask)
        self._slots.restart(search, self._eligibility(request))

    def close(self, searches: Sequence[BeamSearch], keep: bool) -> None:
        """Free what the searches of a request own, unless the engine is spoilt; see `EngineSlots.close` for `keep`."""
        if self._slots.close(searches, keep):
            for search in searches:
                self._masks.release(search.eligibility.mask)

    def _eligibility(self, request: BeamRequest) -> Eligibility:
        mask = None if request.allowed_items is None else self._masks.acquire(request.allowed_items)
        return Eligibility(self._trie.excluded_nodes(request.excluded_items, mask), self._device, mask)
