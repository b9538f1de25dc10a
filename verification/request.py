"""What the engine is asked and what it answers: the carriers that every floor above shares.

Invariant: these types hold plain numbers and numpy arrays, never tensors of a device, so a request can be made and an answer read in a
process that has no model.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.trie.item_set import ItemSet

MAX_BEAM_WIDTH = 256


def check_lengths(k: int, beam_width: int) -> None:
    """Raises ValueError unless a beam of this width can find a list of k; nowhere else is this judged."""
    if not 1 <= k <= beam_width <= MAX_BEAM_WIDTH:
        raise ValueError(f"1 <= k <= beam_width <= {MAX_BEAM_WIDTH} must hold, got k = {k} and beam_width = {beam_width}.")


@dataclass(frozen=True)
class ReservedPlaces:
    """Places of a list that only some items may take.

    Attributes:
        places: how many identifiers; fewer come back where fewer are eligible.
        items: those that may take them, all among the request's `allowed_items`.
    """

    places: int
    items: ItemSet


@dataclass(frozen=True)
class BeamRequest:
    """One recommendation list to search for.

    Attributes:
        request_id: unique among running requests.
        prompt: `[tokens]` int64, at least one.
        k: identifiers to return.
        beam_width: prefixes kept at each level, at least `k`.
        excluded_items: `[n]` int64, catalog indices of items that must not be returned.
        rule: how prefixes are ranked and drafts verified.
        cache_key: requests of one key share the beginnings of their prompts in the prefix cache; None keeps nothing.
        allowed_items: the only items that may be returned; None allows all.
        catalog: its name, where one model serves several.
        reserved: places for some items only, see `verification.engine.reserved`. Only for strict lists: scores of sampled ones can't be
            compared.
    """

    request_id: str
    prompt: npt.NDArray[np.int64]
    k: int
    beam_width: int
    excluded_items: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))
    rule: SearchRule = STRICT
    cache_key: str | None = None
    allowed_items: ItemSet | None = None
    catalog: str = ""
    reserved: ReservedPlaces | None = None

    def __post_init__(self) -> None:
        if self.prompt.ndim != 1 or not len(self.prompt):
            raise ValueError(f"A prompt is a row of at least one token, got an array of shape {self.prompt.shape}.")
        check_lengths(self.k, self.beam_width)
        if self.reserved is None:
            return
        if not 1 <= self.reserved.places <= self.k:
            raise ValueError(f"Between 1 and k = {self.k} places can be reserved, got {self.reserved.places}.")
        if self.rule.verification is not Verification.STRICT:
            raise ValueError("Places can only be reserved in strict lists.")

    def check_items(self, items: int) -> None:
        """Raises ValueError if the request is about items that a catalog of so many does not have."""
        if len(self.excluded_items) and not 0 <= self.excluded_items.min() <= self.excluded_items.max() < items:
            raise ValueError(f"A request excludes an item that the catalog of {items} items does not have.")
        filters = (self.allowed_items, None if self.reserved is None else self.reserved.items)
        if any(allowed is not None and allowed.catalog_items != items for allowed in filters):
            raise ValueError(f"A request's filter is of another catalog than this one of {items} items.")


@dataclass(frozen=True)
class RankedItem:
    """One line of a recommendation list.

    Attributes:
        item: catalog index.
        score: the identifier's log-probability (natural logarithm) under the target, or under the distribution that was sampled.
        rank: 1 for the best identifier; items of one identifier share it.
    """

    item: int
    score: float
    rank: int


@dataclass(frozen=True)
class Usage:
    """The cost of a list.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: how many of them came from the prefix cache.
        target_forwards, draft_forwards: forwards that this request took part in.
        drafted_nodes: tree nodes that a draft added.
        used_nodes: how many of them the target's beams came to hold.
        accepted_depths: the levels that the target accepted from a draft, each one forward saved.
        plan: the plan's name, for a planner with what it drafted, such as `auto:beam`.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    used_nodes: int = 0
    accepted_depths: tuple[int, ...] = ()
    plan: str = "none"

    @property
    def accepted_steps(self) -> int:
        """Forwards of the target that drafts have saved."""
        return len(self.accepted_depths)


@dataclass(frozen=True)
class BeamResult:
    """The finished list of one request, best first; a Gumbel sample by its perturbed scores."""

    request_id: str
    items: tuple[RankedItem, ...]
    usage: Usage
    rule: SearchRule = STRICT


@dataclass(frozen=True)
class StepReport:
    """The work of one engine step.

    Attributes:
        finished: the lists that it completed.
        tokens: in the target's forward.
        seconds: wall-clock time of the step.
        target_seconds: of it, in the target's forward.
        draft_tokens, draft_forwards: of the draft.
        draft_seconds: time for drafting, with the draft's forwards.
        draft_failed: whether the draft failed and was dropped.
        accepted: levels accepted from drafts.
    """

    finished: tuple[BeamResult, ...]
    tokens: int
    seconds: float
    target_seconds: float = 0.0
    draft_tokens: int = 0
    draft_forwards: int = 0
    draft_seconds: float = 0.0
    draft_failed: bool = False
    accepted: int = 0
