"""The target's key/value slots, as the engines of several catalogs share them: a request takes its slots here and gives them back.

Invariant: what running searches may come to need is set aside over all engines together. While one catalog takes over from another,
requests of both run side by side on one model, and a request that has started can still never run out of slots half way.
"""

from bisect import bisect_right
from collections.abc import Iterable
from types import TracebackType

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.model import TreeModel
from drafting.beam.rule import MAX_BEAM_WIDTH
from drafting.beam.tree import SequenceState
from drafting.errors import SetupError
from drafting.neighbours.candidates import MOST_CANDIDATES
from drafting.trie.eligibility import Eligibility
from drafting.trie.item_trie import ItemTrie
from verification.request import BeamRequest
from verification.search import BeamSearch
from verification.slots.last_beams import LastBeamsStore
from verification.slots.pool import CachedPrefix, PrefixCache, SlotPool
from verification.thought import RunningThought

TABLE_BYTES = 128 * 2**20
MOST_TABLE_BYTES = 8 * TABLE_BYTES
MOST_NODES = 16384


class CatalogTooLarge(SetupError):
    """A catalog whose continuations find no memory; the message is a sentence."""


def node_capacity(trie: ItemTrie, widest: int = MAX_BEAM_WIDTH) -> int:
    """Node slots of an engine that starts with this catalog: at least what the widest blended request with reserved places needs.

    Args:
        widest: the widest beam.
    """
    levels = [trie.level_size(depth) for depth in range(1, trie.depth)]
    fewest = 2 + sum(2 * min(widest, size) + min(MOST_CANDIDATES, size) for size in levels)
    return max(fewest, min(MOST_NODES, TABLE_BYTES // (4 * max(trie.max_children))))


def widest_beam(trie: ItemTrie, nodes: int, most: int) -> int:
    """The widest beam, up to `most`, whose plain search so many node slots hold."""
    levels = np.array([trie.level_size(depth) for depth in range(1, trie.depth)], np.int64)
    return bisect_right(range(most + 1), nodes, key=lambda width: 1 + int(np.minimum(levels, width).sum())) - 1


def check_capacity(trie: ItemTrie, chosen_for: ItemTrie, nodes: int, widest: int) -> None:
    """Raise CatalogTooLarge unless a catalog may be served with so many node slots, which another catalog has chosen.

    They must hold plain requests at least as wide as for the other catalog, up to `widest`; wide ones with reserved places or a blend may
    be refused later.
    The table of continuations may be as large as for the other catalog, for which its size was not checked, or as `MOST_TABLE_BYTES`.
    """
    is_narrower = widest_beam(trie, nodes, widest) < widest_beam(chosen_for, nodes, widest)
    fan_out = max(trie.max_children)
    if is_narrower or (4 * nodes * fan_out > MOST_TABLE_BYTES and fan_out > max(chosen_for.max_children)):
        raise CatalogTooLarge("The catalog needs more memory for continuations than this engine can still give: start a server with it.")


class EngineSpoilt(SetupError):
    """An engine that can't go on, because a change of its slots was interrupted; the message is a sentence."""

    def __init__(self) -> None:
        super().__init__(
            "A step of this engine was interrupted (by Ctrl-C, or by an error such as too little memory), so that it can't tell which "
            "key/value slots are in use: load the model again."
        )


class EngineSlots:
    """Slots of tree nodes, which come first, and of prompts.

    As a context manager, it guards a change of owners, which must be whole: if a block ends with an exception, all later ones raise
    `EngineSpoilt`.

    Attributes:
        is_spoilt: True if a change was interrupted, so that nobody knows which slots are owned, and none may be given back.
        nodes: slots of tree nodes. A root has one, because its continuations are kept as those of other nodes are.
        prompts: slots of all other prompt tokens.
        draft_computed: `[total]` int64, 1 where the draft has computed the token in a slot; see `SequenceState`.
        prefix_cache: cached prompts; tokens have the same meaning in all catalogs.
        last_beams: what users were last given, for drafts.
        owners: all searches that run, and the texts that are written before other searches.
    """

    def __init__(self, total: int, nodes: int, shared_tokens: IntArray | None = None, whole_prompts: bool = False) -> None:
        """
        Args:
            nodes: how many of the `total` slots are for tree nodes.
            shared_tokens: tokens at the beginning of every prompt.
            whole_prompts: True if a cached prompt is only of use to the very same prompt, because an encoder reads it.
        """
        self.nodes = SlotPool(nodes)
        self.prompts = SlotPool(total - nodes, first=nodes)
        self.draft_computed = np.zeros(total, np.int64)
        self.prefix_cache = PrefixCache(self.prompts, shared_tokens, whole_prompts)
        self.last_beams = LastBeamsStore()
        self.owners: set[BeamSearch | RunningThought] = set()
        self.is_spoilt = False

    @classmethod
    def of(cls, target: TreeModel, trie: ItemTrie, widest: int, shared_tokens: IntArray | None) -> "EngineSlots":
        """The slots of a target whose first catalog this is, for beams up to `widest`; half of them at least are for prompts."""
        nodes = min(node_capacity(trie, widest), target.total_slots // 2)
        return cls(target.total_slots, nodes, shared_tokens, whole_prompts=target.has_encoder)

    def __enter__(self) -> None:
        if self.is_spoilt:
            raise EngineSpoilt

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.is_spoilt |= kind is not None

    @property
    def total(self) -> int:
        """Slots that the target has."""
        return self.prompts.total + self.nodes.total

    @property
    def used(self) -> int:
        """Slots that running searches own."""
        return self.prompts.used + self.nodes.used - self.prefix_cache.held_slots

    @property
    def spare_nodes(self) -> int:
        """Node slots that no running search may come to need."""
        return self.nodes.free - sum(owner.reserved_nodes for owner in self.owners)

    def has_room(self, needed: tuple[int, int], freed: Iterable[tuple[int, int]] = ()) -> bool:
        """True if a request fits now, or would once others are gone.

        Args:
            needed: number of prompt tokens, the root included and those that all prompts share left out; number of nodes.
            freed: the same for each of the others.
        """
        prompt, nodes = needed
        for other_prompt, other_nodes in freed:
            prompt, nodes = prompt - other_prompt, nodes - other_nodes
        return prompt - 1 <= self.prompts.free + self.prefix_cache.evictable and nodes <= self.spare_nodes

    def fits(self, prompt: int, nodes: int) -> bool:
        """True if so many prompt tokens, without those that all prompts share, and nodes would fit in an idle engine."""
        return prompt - 1 <= self.prompts.total - self.prefix_cache.pinned and nodes <= self.nodes.total

    def open(
        self, request: BeamRequest, widths: tuple[int, ...], eligibility: Eligibility, known: CachedPrefix | None = None
    ) -> BeamSearch:
        """Begin a search.

        Args:
            known: the computed beginning of its prompt, as of `whole_prompt` or `end_thought`; None to look in the prefix cache.

        Raises:
            OutOfSlots: too few are free; ask `has_room` first.
        """
        prefix = self.prefix_cache.take(request.cache_key, request.prompt) if known is None else known
        sequence = self._continued(prefix, self._allocate(len(request.prompt) - 1 - len(prefix)), self.nodes.allocate(1))
        cached = len(prefix) if request.thought is None else min(len(prefix), request.thought.cached_tokens)
        search = BeamSearch(request, widths, sequence, eligibility, cached, prefix.shared_length)
        self.owners.add(search)
        return search

    def open_thought(self, request: BeamRequest, nodes: int) -> RunningThought:
        """Begin a text, and set aside all slots that it may need, and `nodes` nodes for the search after it.

        Raises:
            OutOfSlots: too few are free; ask `has_room` first.
        """
        prefix = self.prefix_cache.take(request.cache_key, request.prompt)
        sequence = self._continued(prefix, self._allocate(request.most_tokens - 1 - len(prefix)))
        thought = RunningThought(request, sequence, len(prefix), prefix.shared_length, nodes)
        self.owners.add(thought)
        return thought

    def end_thought(self, thought: RunningThought, prompt: IntArray) -> CachedPrefix:
        """Take back the slots that a text has not used; return the computed beginning of `prompt`, which is now the caller's."""
        self.owners.remove(thought)
        computed = thought.sequence.computed
        self.prompts.release(thought.slots[computed:])
        return CachedPrefix(prompt[:computed], thought.slots[:computed], thought.shared_length)

    def close(self, owners: Iterable[BeamSearch | RunningThought], keep: bool) -> bool:
        """Take back the slots of a request's searches or text. With `keep`, the prompt stays in the prefix cache, without any text
        of the target. False if nothing was taken back, because the engine is spoilt."""
        if self.is_spoilt:
            return False
        with self:
            for owner in owners:
                self._close(owner, keep)
        return True

    def restart(self, search: BeamSearch, eligibility: Eligibility) -> None:
        """Let a search begin again behind its prompt. The nodes that it may need are still set aside: see `BeamSearch.reserved_nodes`."""
        self.nodes.release(search.restart(eligibility))

    def forget(self, key: str) -> None:
        """Forget the cached prompt and the last beams of a key. Its requests that run go on, and leave nothing behind.

        Raises:
            EngineSpoilt: a change was interrupted.
        """
        with self:
            self.prefix_cache.forget(key)
            self.last_beams.forget(key)
            for owner in self.owners:
                if owner.request.cache_key == key:
                    owner.request = owner.request.forgotten()

    def forget_all(self) -> None:
        """Do as `forget` for all keys."""
        with self:
            self.prefix_cache.clear()
            self.last_beams.clear()
            for owner in self.owners:
                owner.request = owner.request.forgotten()

    def _continued(self, prefix: CachedPrefix, *slots: IntArray) -> SequenceState:
        """A sequence that begins with a computed prefix; `slots` are those of the tokens after it."""
        return SequenceState(np.concatenate([prefix.slots, *slots]), self.draft_computed, len(prefix))

    def _allocate(self, prompt: int) -> IntArray:
        """Allocate slots for so many tokens of a prompt, for which cached prompts may be evicted."""
        self.prefix_cache.make_room(prompt)
        return self.prompts.allocate(prompt)

    def _close(self, owner: BeamSearch | RunningThought, keep: bool) -> None:
        self.owners.remove(owner)
        if isinstance(owner, RunningThought):
            self._give_back(owner, owner.slots, keep)
            return
        root = owner.sequence.root
        self.nodes.release(owner.sequence.slots[root:])
        if root != owner.shared_length:
            self._give_back(owner, owner.sequence.slots[:root], keep)

    def _give_back(self, owner: BeamSearch | RunningThought, slots: IntArray, keep: bool) -> None:
        """Leave a prompt to the prefix cache, but release what is not computed and any text of the target, which no other prompt has."""
        request = owner.request
        computed = min(owner.sequence.computed, len(slots), request.own_tokens)
        self.prompts.release(slots[computed:])
        prefix = CachedPrefix(request.prompt[:computed], slots[:computed], owner.shared_length)
        if keep:
            self.prefix_cache.keep(request.cache_key, prefix)
        else:
            self.prefix_cache.drop(request.cache_key, prefix)


def whole_prompt(search: BeamSearch) -> CachedPrefix:
    """The prompt of a search, all of it shared; keys are written before they are read, so the forward that computes it may read it."""
    sequence, root = search.sequence, search.sequence.root
    return CachedPrefix(search.request.prompt[:root], sequence.slots[:root], root)
