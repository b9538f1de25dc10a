"""Results of the engine: lists with their cost, and the report of a step.

Invariant: they hold plain numbers, and go over the wire from the engine process as they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from drafting.beam.rule import STRICT, SearchRule, Tolerance
from verification.explanation import Explanation


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
        prompt_tokens: tokens of the prompt, before any text of the target.
        cached_tokens: prompt tokens found in the prefix cache.
        target_forwards, draft_forwards: forwards that this request took part in.
        drafted_nodes: tree nodes that a draft added.
        used_by: by kind of draft (`beam`, `children`, `items`, `last`), drafted nodes that the target's beams used, where there are any.
        accepted_depths: the levels that the target accepted from a draft, each one forward saved.
        plan: the plan's name, for a planner with what it drafted, such as `auto:beam`.
        thought_tokens: tokens of text that the target wrote before the search, a forward each.
        candidates: items of a neighbour model that the target scored for a blended list, or items whose scores were asked for.
        rounds: searches that a list with caps has taken, one after the other; 1 for others.
    """

    prompt_tokens: int
    cached_tokens: int = 0
    target_forwards: int = 0
    draft_forwards: int = 0
    drafted_nodes: int = 0
    used_by: Mapping[str, int] = field(default_factory=dict)
    accepted_depths: tuple[int, ...] = ()
    plan: str = "none"
    thought_tokens: int = 0
    candidates: int = 0
    rounds: int = 1

    @property
    def used_nodes(self) -> int:
        """Drafted nodes that the target's beams used."""
        return sum(self.used_by.values())

    @property
    def accepted_steps(self) -> int:
        """Forwards of the target that drafts have saved."""
        return len(self.accepted_depths)


@dataclass(frozen=True)
class Precision:
    """The precision of a target's lists.

    Attributes:
        dtype: "float32", "bfloat16" or "float16".
        is_exact: True if a list depends neither on its batch, nor on what is cached or drafted: to the last bit with `make_exact`, but for
            the order of equal scores (closer than 1e-5) in float32, if weights are not quantized. Relaxed lists depend on drafts by nature.
    """

    dtype: str
    is_exact: bool


class Source(StrEnum):
    """Which models propose an identifier of a blended list: the target, whose own list has it, the neighbour model, or both."""

    MODEL = "model"
    NEIGHBOURS = "neighbours"
    BOTH = "both"


@dataclass(frozen=True)
class BlendedList:
    """The scores that rank a blended list, and the models that propose its identifiers, in the order of their ranks.

    Attributes:
        scores: log-probability plus weighted logarithm of the neighbour score (see `verification.blend`).
        sources: which models propose it.
    """

    scores: tuple[float, ...]
    sources: tuple[Source, ...]


@dataclass(frozen=True)
class BeamResult:
    """The finished list of one request, best first; a Gumbel sample by its perturbed scores.

    Attributes:
        thought: token ids of the text that the target wrote before it, without its end; None if it was not asked to.
        blend: of a blended list, whose items are in the order of these scores; None for others.
        explanation: what was considered on the way to it; None if the request does not ask.
        scores: of a request for scores, which has no items: the log-probabilities, as bytes of float32, of the items that it names.
        tolerance: how far the list may be from the exact one; None for one that is searched exactly, whatever its request allows.
    """

    request_id: str
    items: tuple[RankedItem, ...]
    usage: Usage
    rule: SearchRule = STRICT
    thought: tuple[int, ...] | None = None
    blend: BlendedList | None = None
    explanation: Explanation | None = None
    scores: bytes | None = None
    tolerance: Tolerance | None = None

    @property
    def identifiers(self) -> int:
        """Number of identifiers; items may share one."""
        return len({item.rank for item in self.items})

    @property
    def firsts(self) -> list[RankedItem]:
        """The first item of each identifier, best identifier first."""
        first = {item.rank: item for item in reversed(self.items)}
        return [first[rank] for rank in sorted(first)]


@dataclass(frozen=True)
class StepReport:
    """The work of one engine step.

    Attributes:
        finished: the lists that it completed.
        tokens: tokens of the target's forward.
        seconds: wall-clock time of the step.
        target_seconds: seconds of it in the target's forward; on a GPU, which is given its work ahead, until all of it was given.
        draft_tokens, draft_forwards: tokens and forwards of the draft model.
        draft_seconds: time for drafting, with the draft's forwards; on a GPU as `target_seconds`.
        draft_failed: True if the draft failed and was dropped.
        accepted: levels accepted from drafts.
        failed: ids of requests that it ended without a list, because the target's logits for them were not finite.
        thought_tokens: tokens of text that the target wrote for requests that think.
        scored_nodes: tokens of the target's forward that are prefixes of candidates whose scores are asked for.
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
    failed: tuple[str, ...] = ()
    thought_tokens: int = 0
    scored_nodes: int = 0

    @classmethod
    def sum(cls, reports: Sequence["StepReport"]) -> "StepReport":
        """Several engines' steps as one."""
        return cls(
            finished=tuple(result for report in reports for result in report.finished),
            tokens=sum(report.tokens for report in reports),
            seconds=sum(report.seconds for report in reports),
            target_seconds=sum(report.target_seconds for report in reports),
            draft_tokens=sum(report.draft_tokens for report in reports),
            draft_forwards=sum(report.draft_forwards for report in reports),
            draft_seconds=sum(report.draft_seconds for report in reports),
            draft_failed=any(report.draft_failed for report in reports),
            accepted=sum(report.accepted for report in reports),
            failed=tuple(request_id for report in reports for request_id in report.failed),
            thought_tokens=sum(report.thought_tokens for report in reports),
            scored_nodes=sum(report.scored_nodes for report in reports),
        )
