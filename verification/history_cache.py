"""The history cache: keys and values of prompts that were computed before, kept for the next request of the same user.

Invariant: a slot belongs to the cache or to one running request, never to both. A request *takes* its user's entry out of the cache, keeps
the slots of the common prefix and gives the others back; when it ends, its prompt becomes the user's entry again. So nothing that a request
reads can be evicted, and two requests of one user at a time cost a second computation, never a wrong list.

What every prompt begins with (the instruction) is kept once for everybody, from the first request that has computed it.
"""

from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verification.kv_slots import SlotPool

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class CachedPrompt:
    """A computed beginning of a prompt.

    Attributes:
        tokens: `[tokens]` int64.
        slots: `[tokens]` int64, where their keys and values are.
        drafted: `[tokens]` bool, whether the draft has computed them too.
        borrowed: how many of the first slots belong to everybody.
    """

    tokens: IntArray
    slots: IntArray
    drafted: BoolArray
    borrowed: int = 0

    def __post_init__(self) -> None:
        if not len(self.tokens) == len(self.slots) == len(self.drafted) >= self.borrowed:
            raise ValueError(
                "Tokens, slots and drafted marks of a cached prompt must be rows of one length, no shorter than what it borrows."
            )

    def __len__(self) -> int:
        return len(self.tokens)

    def head(self, length: int) -> "CachedPrompt":
        """The first tokens."""
        return CachedPrompt(self.tokens[:length], self.slots[:length], self.drafted[:length], min(self.borrowed, length))


EMPTY = CachedPrompt(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, bool))


class HistoryCache:
    """Prompts by user, the least recently used first to go; lives off the slots that nobody else needs.

    Attributes:
        evictable: slots that the cache would give back.
    """

    def __init__(self, pool: SlotPool, common: IntArray | None = None) -> None:
        """`common` are the tokens that every prompt begins with."""
        self._pool = pool
        self._prompts: OrderedDict[str, CachedPrompt] = OrderedDict()
        self._common = EMPTY.tokens if common is None else common
        self._shared = EMPTY
        self.evictable = 0

    @property
    def pinned(self) -> int:
        """Slots that are everybody's, and are never given back."""
        return len(self._shared)

    @property
    def slots(self) -> int:
        """Slots that the cache holds."""
        return self.pinned + self.evictable

    def known(self, key: str | None, prompt: IntArray) -> int:
        """How many leading tokens of a prompt need not be computed; its last token always is."""
        entry = EMPTY if key is None else self._prompts.get(key, EMPTY)
        return max(_common_prefix(entry.tokens, prompt[:-1]), _common_prefix(self._shared.tokens, prompt[:-1]))

    def take(self, key: str | None, prompt: IntArray) -> CachedPrompt:
        """Hands over what is known of a prompt, and forgets the user's entry."""
        entry = EMPTY if key is None else self._pop(key)
        own, shared = _common_prefix(entry.tokens, prompt[:-1]), _common_prefix(self._shared.tokens, prompt[:-1])
        kept = own if own > shared else 0
        self._release(entry.slots[max(kept, entry.borrowed) :])
        return entry.head(kept) if kept else self._shared.head(shared)

    def keep(self, key: str | None, prompt: CachedPrompt) -> None:
        """Takes over the computed prompt of a request that has ended; without a key, only what everybody shares."""
        common = len(self._common)
        if common and not len(self._shared) and _common_prefix(self._common, prompt.tokens) == common:
            self._shared = CachedPrompt(prompt.tokens[:common], prompt.slots[:common], prompt.drafted[:common], common)
            prompt = CachedPrompt(prompt.tokens, prompt.slots, prompt.drafted, common)
        if key is None or len(prompt) == prompt.borrowed:
            self._release(prompt.slots[prompt.borrowed :])
            return
        self._drop(self._pop(key))
        self._prompts[key] = prompt
        self.evictable += len(prompt) - prompt.borrowed

    def make_room(self, slots: int) -> None:
        """Evicts until so many slots are free, or nothing is left to evict."""
        while self._pool.free < slots and self._prompts:
            self._drop(self._pop(next(iter(self._prompts))))

    def clear(self) -> None:
        """Forgets every user."""
        self.make_room(self._pool.total + 1)

    def _pop(self, key: str) -> CachedPrompt:
        entry = self._prompts.pop(key, EMPTY)
        self.evictable -= len(entry) - entry.borrowed
        return entry

    def _drop(self, entry: CachedPrompt) -> None:
        self._release(entry.slots[entry.borrowed :])

    def _release(self, slots: IntArray) -> None:
        if len(slots):
            self._pool.release(slots)


def _common_prefix(tokens: IntArray, prompt: IntArray) -> int:
    length = min(len(tokens), len(prompt))
    differing = np.flatnonzero(tokens[:length] != prompt[:length])
    return int(differing[0]) if len(differing) else length
