"""Key/value slots: which of them are free, who owns the others, and the prompts that are kept in them for later requests (prefix caching).

Invariant: a slot has one owner, or several that have agreed to share it and none of whom writes to it; an owner gives back exactly what it
took, and a slot is free when the last one has. This is checked at every call, because a slot that leaks or is handed out twice shows up
much later, as another user's wrong recommendations.

The prefix cache is such an owner. A request shares the slots that it reads of its user's entry, so nothing that a request reads is ever
free, even if it is evicted or replaced meanwhile, and requests of one user at a time all find what is known. No request writes to a slot of
an entry: it computes only what lies behind the common prefix, in slots of its own, and when it ends its prompt becomes the entry. The
common beginning of all prompts (the instruction) is stored by the first request that has computed it, and all that begin later read it
there; what those that ran beside it have computed of it is theirs, and goes with the entry that they leave.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from drafting.array_types import BoolArray, IntArray
from drafting.trie.arrays import common_prefix


class OutOfSlots(RuntimeError):
    """More slots were asked for than are free."""


class SlotPool:
    """A stack of free slots. A slot holds the keys and values of one token in every layer.

    When all are free they are put in order again, because keys and values that lie side by side can be read in place.

    Attributes:
        total: number of slots.
        first: the number of the first slot.
        free: number of free slots.
        most_used: since all slots were last free, the most that were in use at a time; only the first `most_used` slots were.
    """

    def __init__(self, total: int, first: int = 0) -> None:
        """`total` slots, numbered from `first` on."""
        self.total = total
        self.first = first
        self.free = total
        # The free slots are the first `free` of these; the last of them is taken next.
        self._stack = np.arange(first + total - 1, first - 1, -1, dtype=np.int64)
        self.most_used = 0
        self._owned = np.zeros(total, bool)
        self._sharers = np.zeros(total, np.int32)

    @property
    def used(self) -> int:
        """Number of slots in use."""
        return self.total - self.free

    def allocate(self, count: int) -> IntArray:
        """Take `count` slots.

        Raises:
            OutOfSlots: fewer are free; nothing was taken.
        """
        if count > self.free:
            raise OutOfSlots(f"{count} key/value slots are needed, but only {self.free} of {self.total} are free.")
        self.free -= count
        self.most_used = max(self.most_used, self.used)
        slots = self._stack[self.free : self.free + count][::-1].copy()
        self._owned[slots - self.first] = True
        return slots

    def share(self, slots: IntArray) -> None:
        """Give slots one more owner each; no slot is named twice.

        Raises:
            ValueError: one of them is not owned; nothing was shared.
        """
        indices = slots - self.first
        if not self._owned[indices].all():
            raise ValueError("A key/value slot was shared that has no owner.")
        self._sharers[indices] += 1

    def shared(self, slots: IntArray) -> BoolArray:
        """True for each slot that has several owners."""
        shared: BoolArray = self._sharers[slots - self.first] > 0
        return shared

    def release(self, slots: IntArray) -> None:
        """Give slots back; those that others share stay theirs.

        Raises:
            ValueError: one of them is not owned, or is named twice; nothing was given back.
        """
        if not len(slots):
            return
        indices = slots - self.first
        before = self._owned[indices]
        self._owned[indices] = False
        # A slot that is named twice is owned at both indices, but leaves one owner less than there should be.
        if not before.all() or np.count_nonzero(self._owned) != self.used - len(slots):
            self._owned[indices] = before
            raise ValueError("A key/value slot was released that has no owner, or was named twice.")
        if (others := self.shared(slots)).any():
            self._sharers[indices[others]] -= 1
            self._owned[indices[others]] = True
            slots = slots[~others]
        self._stack[self.free : self.free + len(slots)] = slots[::-1]
        self.free += len(slots)
        if not self.used:
            self._stack[self.total - self.most_used :] = np.arange(self.first + self.most_used - 1, self.first - 1, -1)
            self.most_used = 0


@dataclass(frozen=True)
class CachedPrefix:
    """A computed beginning of a prompt.

    Attributes:
        tokens: `[tokens]` int64.
        slots: `[tokens]` int64, where their keys and values are.
        shared_length: number of slots at the beginning that are shared by all entries of the cache.
    """

    tokens: IntArray
    slots: IntArray
    shared_length: int = 0

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.slots) >= self.shared_length:
            raise ValueError("Tokens and slots of a cached prompt must be rows of one length, no shorter than what it shares.")

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def own_slots(self) -> IntArray:
        """The slots that are not shared by all entries."""
        return self.slots[self.shared_length :]


EMPTY = CachedPrefix(np.empty(0, np.int64), np.empty(0, np.int64))


class PrefixCache:
    """Prefix cache of prompts by user, least recently used first; uses the slots that running requests do not need.

    A prompt that an encoder reads is known as a whole or not at all, because all its tokens attend to each other.

    Attributes:
        held_slots: number of slots that the cache holds.
        evictable: number of those that become free when the cache gives them up, because no running request shares them.
    """

    def __init__(self, pool: SlotPool, common: IntArray | None = None, whole: bool = False) -> None:
        """`common` are the tokens that every prompt begins with; `whole` if an encoder reads the prompts."""
        self._pool = pool
        self._prompts: OrderedDict[str, CachedPrefix] = OrderedDict()
        self._common = EMPTY.tokens if common is None or whole else common
        self._whole = whole
        self._shared = EMPTY
        self._held = np.zeros(pool.total, bool)
        self.held_slots = 0
        self.evictable = 0

    @property
    def pinned(self) -> int:
        """Number of slots of the prefix shared by all prompts, which are never freed."""
        return len(self._shared)

    def known(self, key: str | None, prompt: IntArray) -> int:
        """Number of tokens at the beginning of a prompt that are cached; the last token is always computed."""
        entry = EMPTY if key is None else self._prompts.get(key, EMPTY)
        return max(self._known(entry, prompt), self.known_to_all(prompt))

    def known_to_all(self, prompt: IntArray) -> int:
        """Number of tokens at the beginning of a prompt that are in the prefix shared by all prompts."""
        return self._known(self._shared, prompt)

    def take(self, key: str | None, prompt: IntArray) -> CachedPrefix:
        """Find the cached prefix of a prompt and hold it until `keep` is called at the end of the request."""
        entry = EMPTY if key is None else self._prompts.get(key, EMPTY)
        own, shared = self._known(entry, prompt), self.known_to_all(prompt)
        if key is not None and own > shared:
            self._prompts.move_to_end(key)
        # An entry may have a copy of what all share. If that was held, a request would take more room than it was told to need.
        slots = np.concatenate([self._shared.slots[:shared], entry.slots[shared:own]])
        known = CachedPrefix(prompt[: len(slots)], slots, shared)
        self._recount(known.own_slots, self._pool.share)
        return known

    def keep(self, key: str | None, prompt: CachedPrefix) -> None:
        """Take over the computed prompt of a request that has ended; without a key, only the beginning of all prompts."""
        common = len(self._common)
        if common and not len(self._shared) and common_prefix(self._common, prompt.tokens) == common:
            self._shared = CachedPrefix(prompt.tokens[:common], prompt.slots[:common], common)
            self.held_slots += common
            prompt = CachedPrefix(prompt.tokens, prompt.slots, common)
        entry = EMPTY if key is None else self._prompts.get(key, EMPTY)
        is_more = self._whole or len(prompt) >= len(entry) or common_prefix(entry.tokens, prompt.tokens) < len(prompt)
        if key is None or len(prompt) == prompt.shared_length or not is_more:
            self._recount(prompt.own_slots, self._pool.release)
            return
        self.forget(key)
        self._prompts[key] = prompt
        self._recount(prompt.own_slots, self._hold)

    def drop(self, key: str | None, prompt: CachedPrefix) -> None:
        """Give back the prompt of a request that went wrong, and forget what its user's requests before it have left."""
        self._recount(prompt.own_slots, self._pool.release)
        if key is not None:
            self.forget(key)

    def make_room(self, count: int) -> None:
        """Evict prompts until `count` slots are free, or nothing is left to evict."""
        while self._pool.free < count and self._prompts:
            self.forget(next(iter(self._prompts)))

    def forget(self, key: str) -> None:
        """Evict a user's prompt, if it is here."""
        slots = self._prompts.pop(key, EMPTY).own_slots
        self._recount(slots, self._give_up)

    def clear(self) -> None:
        """Forget every user."""
        self.make_room(self._pool.total + 1)

    def _known(self, entry: CachedPrefix, prompt: IntArray) -> int:
        length = common_prefix(entry.tokens, prompt[:-1])
        return 0 if self._whole and not length == len(entry) == len(prompt) - 1 else length

    def _hold(self, slots: IntArray) -> None:
        self._held[slots - self._pool.first] = True
        self.held_slots += len(slots)

    def _give_up(self, slots: IntArray) -> None:
        self._held[slots - self._pool.first] = False
        self.held_slots -= len(slots)
        self._pool.release(slots)

    def _recount(self, slots: IntArray, change: Callable[[IntArray], None]) -> None:
        """Apply `change` to some slots, and bring `evictable` up to date."""
        if not len(slots):
            return
        before = self._evictable_of(slots)
        change(slots)
        self.evictable += self._evictable_of(slots) - before

    def _evictable_of(self, slots: IntArray) -> int:
        return int(np.count_nonzero(self._held[slots - self._pool.first] & ~self._pool.shared(slots)))
