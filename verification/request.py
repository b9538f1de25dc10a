"""What the engine is asked and what it answers: the carriers that every floor above shares.

Invariant: these types hold plain numbers and numpy arrays, never tensors of a device, so a request can be made and an answer read in a
process that has no model.
"""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

MAX_BEAM_WIDTH = 256


@dataclass(frozen=True)
class BeamRequest:
    """One recommendation list to search for.

    Attributes:
        request_id: unique among the requests that run at the same time.
        prompt: `[tokens]` int64, at least one token.
        k: how many identifiers to return.
        beam_width: how many prefixes the search keeps at each level, at least `k`.
        excluded_items: `[n]` int64, catalog indices of the items that must not be returned.
    """

    request_id: str
    prompt: npt.NDArray[np.int64]
    k: int
    beam_width: int
    excluded_items: npt.NDArray[np.int64] = field(default_factory=lambda: np.empty(0, np.int64))

    def __post_init__(self) -> None:
        if self.prompt.ndim != 1 or not len(self.prompt):
            raise ValueError(f"A prompt is a row of at least one token, got an array of shape {self.prompt.shape}.")
        if not 1 <= self.k <= self.beam_width <= MAX_BEAM_WIDTH:
            raise ValueError(f"1 <= k <= beam_width <= {MAX_BEAM_WIDTH} must hold, got k = {self.k} and beam_width = {self.beam_width}.")


@dataclass(frozen=True)
class RankedItem:
    """One line of a recommendation list.

    Attributes:
        item: catalog index.
        score: the identifier's log-probability under the target, natural logarithm, over the full vocabulary.
        rank: 1 for the best identifier; items that share an identifier share its rank.
    """

    item: int
    score: float
    rank: int


@dataclass(frozen=True)
class Usage:
    """What a list cost.

    Attributes:
        prompt_tokens: tokens of the prompt.
        cached_tokens: how many of them were not computed because an earlier request had left their keys and values.
        target_forwards: forwards of the target that this request took part in.
        draft_forwards: forwards of the draft that this request took part in.
        drafted_nodes: tree nodes that a draft added.
        accepted_steps: levels that the target accepted from a draft, each one forward saved.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    accepted_steps: int = 0


@dataclass(frozen=True)
class BeamResult:
    """The finished list of one request, best first."""

    request_id: str
    items: tuple[RankedItem, ...]
    usage: Usage


@dataclass(frozen=True)
class StepReport:
    """What one engine step did.

    Attributes:
        finished: the lists that this step completed.
        tokens: tokens in the target's forward.
        seconds: wall-clock time of the whole step.
    """

    finished: tuple[BeamResult, ...]
    tokens: int
    seconds: float
