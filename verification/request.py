"""Requests to the engine.

Invariant: they hold plain numbers and numpy arrays, so a request can be made in a process that imports no torch; results likewise.
"""

import reprlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from drafting.array_types import IntArray
from drafting.beam.rule import STRICT, Normalisation, SearchRule, Tolerance, Verification
from drafting.catalog.item_values import Cap
from drafting.prompts.thinking import ThinkingTokens
from drafting.prompts.user_state import UserState
from drafting.trie.item_set import ItemSet
from verification.blend import Blend
from verification.lengths import check_lengths, is_whole, levels_sentence
from verification.scored import Scored


def checked_user(user: UserState | Sequence[int] | IntArray, catalog_items: int) -> UserState | IntArray:
    """Check that the catalog has all items of a user, and return the user; a history of indices becomes an array.

    Raises:
        ValueError: as `item_indices`.
    """
    if not isinstance(user, UserState):
        return item_indices(user, catalog_items, "The history names")
    for events in (user.events, *user.behaviours.values()):
        item_indices([event.item for event in events], catalog_items, "The history names")
    return user


def item_indices(items: Sequence[int] | IntArray, catalog_items: int, subject: str) -> IntArray:
    """Catalog indices as an array, `[items]` int64.

    Args:
        items: whole numbers, or an array of any integer type.
        catalog_items: items of the catalog.
        subject: how a sentence about them begins, such as "The history names".

    Raises:
        ValueError: something else is among them, or an item that the catalog does not have; the message is a sentence.
    """
    if isinstance(items, np.ndarray) and items.ndim == 1:
        items = items.tolist()
    if isinstance(items, str | bytes | np.ndarray) or not isinstance(items, Sequence):
        raise ValueError(f"{subject} {reprlib.repr(items)}, which is not a row of catalog indices.")
    if not all(map(is_whole, items)):
        wrong = next(item for item in items if not is_whole(item))
        raise ValueError(
            f"{subject} {reprlib.repr(wrong)}, but items are whole numbers here, catalog indices from 0 to {catalog_items - 1}: "
            "`Catalog.indices_of` looks up names."
        )
    if len(items) and not 0 <= min(items) <= max(items) < catalog_items:
        wrong = next(item for item in items if not 0 <= item < catalog_items)
        raise ValueError(f"{subject} an item that the catalog of {catalog_items} items does not have, index {wrong}.")
    return np.fromiter(items, np.int64, len(items))


@dataclass(frozen=True, eq=False)
class PromptTokens:
    """A prompt that has been built elsewhere: `tokens` `[tokens]` int64."""

    tokens: IntArray


@dataclass(frozen=True)
class ReservedPlaces:
    """Places of a list that only some items may take.

    Attributes:
        places: number of identifiers; fewer are listed where fewer are eligible.
        items: the items that may take these places, all of them among the request's `allowed_items`.
    """

    places: int
    items: ItemSet


@dataclass(frozen=True)
class Think:
    """How the target writes free text behind the prompt, before the beams begin.

    However the text ends, the beams begin behind the prompt, the text, `end` and `after`: with `end` itself, with one of `stops`, which is
    left out, or because it has become too long.

    Attributes:
        max_tokens: the most tokens that the target may write.
        end: `[n]` int64, at least one token: the text is complete when its last tokens are these.
        after: `[n]` int64, the tokens between `end` and the beams.
        stops: other tokens that complete the text, such as the end of a sequence.
        rule: a strict one writes the token with the highest logit, of equal ones that with the smallest id; others sample from the
            vocabulary, by their seed and temperature.
    """

    max_tokens: int
    end: IntArray
    after: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    stops: frozenset[int] = frozenset()
    rule: SearchRule = STRICT

    def __post_init__(self) -> None:
        if self.max_tokens < 1 or not len(self.end):
            raise ValueError(f"A text needs a token and an end, got max_tokens = {self.max_tokens} and an end of {len(self.end)} tokens.")

    @classmethod
    def of(cls, thinking: ThinkingTokens | None, max_tokens: int, stops: frozenset[int], rule: SearchRule) -> "Think":
        """A text of at most `max_tokens` tokens, written as the target's `prompt.json` says.

        Raises:
            ValueError: the file says nothing of texts, or allows fewer tokens; the message is a sentence.
        """
        if thinking is None:
            raise ValueError("This model can't think before a list: its prompt.json has no field think.")
        if not 1 <= max_tokens <= thinking.max_tokens:
            raise ValueError(f"The text before a list has 1 to {thinking.max_tokens} tokens, as prompt.json says, not {max_tokens}.")
        return cls(max_tokens, thinking.end, thinking.after, stops, rule)

    @property
    def most_tokens(self) -> int:
        """The most tokens by which the prompt may grow."""
        return self.max_tokens + len(self.end) + len(self.after)


@dataclass(frozen=True)
class Thought:
    """A text that the target has written for a request, whose prompt it is a part of now.

    Attributes:
        tokens: token ids of the text, its end left out.
        written: number of tokens that the target wrote, one in each forward, those that end the text included.
        prompt_tokens: tokens of the prompt before the text.
        cached_tokens: number of these that were found in the prefix cache.
    """

    tokens: tuple[int, ...]
    written: int
    prompt_tokens: int
    cached_tokens: int


@dataclass(frozen=True)
class BeamRequest:
    """One recommendation list to search for.

    Attributes:
        request_id: unique among running requests.
        prompt: `[tokens]` int64, at least one.
        k: identifiers to return.
        beam_width: prefixes kept at each level, at least `k`; the largest of `beam_widths` where these are given.
        excluded_items: `[n]` int64, catalog indices of items that must not be returned.
        rule: how prefixes are ranked and drafts verified.
        cache_key: requests of one key share prompts in the prefix cache; None keeps nothing.
        allowed_items: the only items that may be returned; None allows all.
        catalog: the name of the catalog, where one model serves several.
        reserved: places of a strict list that only some items may take; see `verification.engine.reserved`.
        think: text that the target writes before the search begins; None for none.
        thought: the text that it has written, once it has.
        blend: candidates that a strict list is blended with; see `verification.engine.blend`.
        explain: number of prefixes beside the beam that an explanation shows of each level; None for no explanation.
        scored: candidates whose log-probabilities are asked for in place of a list; then k and beam width are 1.
        beam_widths: prefixes kept at each level but the last, the last of them at least `k`; None for `beam_width` at all of them. Where
            an upper one is smaller than `k`, a list may be shorter although more items are eligible.
        normalise: what log-probabilities are normalised over; None for the engine's default.
        caps: how many items with the same value of an attribute the list may have, one cap for an attribute; see
            `verification.engine.capped`.
        tolerance: how far a strict list may be from plain beam search's; None for exactly that list. Lists with reserved places, a blend,
            caps or an explanation are exact in any case.
        retrieved: `[n]` int64, catalog indices of a retriever's best items, best first, for plans that draft some; they change no list.
    """

    request_id: str
    prompt: IntArray
    k: int
    beam_width: int
    excluded_items: IntArray = field(default_factory=lambda: np.empty(0, np.int64))
    rule: SearchRule = STRICT
    cache_key: str | None = None
    allowed_items: ItemSet | None = None
    catalog: str = ""
    reserved: ReservedPlaces | None = None
    think: Think | None = None
    thought: Thought | None = None
    blend: Blend | None = None
    explain: int | None = None
    scored: Scored | None = None
    beam_widths: tuple[int, ...] | None = None
    normalise: Normalisation | None = None
    caps: tuple[Cap, ...] = ()
    tolerance: Tolerance | None = None
    retrieved: IntArray = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if self.prompt.ndim != 1 or not len(self.prompt):
            raise ValueError(f"A prompt is a row of at least one token, got an array of shape {self.prompt.shape}.")
        check_lengths(self.k, self.beam_width, self.beam_widths, self.rule.verification)
        if self.tolerance is not None and self.rule.verification is not Verification.STRICT:
            raise ValueError("Only strict lists have a tolerance: sampled ones have no exact list to be close to.")
        if self.blend is not None and self.rule.verification is not Verification.STRICT:
            raise ValueError("Only strict lists can be blended.")
        if self.blend is not None and self.blend.every and self.caps:
            raise ValueError("A list of every candidate has no caps.")
        if self.reserved is None:
            return
        if not 1 <= self.reserved.places <= self.k:
            raise ValueError(f"Between 1 and k = {self.k} places can be reserved, got {self.reserved.places}.")
        if self.rule.verification is not Verification.STRICT:
            raise ValueError("Places can only be reserved in strict lists.")

    def forgotten(self) -> "BeamRequest":
        """A copy without `cache_key`, so that nothing of the request is cached."""
        return replace(self, cache_key=None)

    @property
    def last_width(self) -> int:
        """Number of prefixes that are kept at the last level but one."""
        return self.beam_widths[-1] if self.beam_widths else self.beam_width

    @property
    def own_tokens(self) -> int:
        """Number of tokens of the prompt, without any text of the target."""
        return len(self.prompt) if self.thought is None else self.thought.prompt_tokens

    @property
    def most_tokens(self) -> int:
        """The most tokens that the prompt has when the search begins."""
        return len(self.prompt) + (0 if self.think is None else self.think.most_tokens)

    @property
    def blended_nodes(self) -> int:
        """Number of tree nodes for the candidates that the list is blended with."""
        return 0 if self.blend is None else self.blend.prefixes

    @property
    def candidates(self) -> int:
        """Number of items that the request brings for the target to score."""
        if self.scored is not None:
            return len(self.scored.rows)
        return 0 if self.blend is None else self.blend.items

    def check_catalog(self, items: int, depth: int) -> None:
        """Raise ValueError if the request is about items or levels that a catalog of so many does not have."""
        if self.beam_widths is not None and len(self.beam_widths) != depth - 1:
            raise ValueError(levels_sentence(len(self.beam_widths), depth))
        for verb, named in (("excludes", self.excluded_items), ("brings", self.retrieved)):
            if len(named) and not 0 <= named.min() <= named.max() < items:
                raise ValueError(f"A request {verb} an item that the catalog of {items} items does not have.")
        filters = (self.allowed_items, None if self.reserved is None else self.reserved.items)
        if any(allowed is not None and allowed.catalog_items != items for allowed in filters):
            raise ValueError(f"A request's filter is of another catalog than this one of {items} items.")
        if any(len(cap.values.codes) != items for cap in self.caps):
            raise ValueError(f"A request's caps are of another catalog than this one of {items} items.")
