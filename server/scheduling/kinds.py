"""Kinds of requests of which only some may run at a time, because they take many steps, or much of each.

Invariant: a list that is of no such kind takes as many steps as an identifier has tokens, or few more, and only a part of each step. A
request for scores that is of no such kind takes one step, or few where many run.
"""

from enum import Enum

from server.scheduling.wide import is_wide, level_nodes
from verification.request import BeamRequest

# Of a step's tokens, the part that candidates for scores may have: lists beside them take hardly longer, and alone they are nearly as fast.
SCORES_SHARE = 4
# They share that part, so more large ones at a time would only all be later.
SCORES_TOGETHER = 4


class Kind(Enum):
    """A kind; a request that writes text before a list with caps is of the first alone."""

    TEXT = "text"
    CAPPED = "capped"
    SCORES = "scores"
    WIDE = "wide"


def scored_tokens(step_tokens: int) -> int:
    """The prefixes of candidates that a step of so many tokens computes."""
    return max(1, step_tokens // SCORES_SHARE)


def is_scored_at_once(prefixes: int, step_tokens: int) -> bool:
    """True if so many prefixes fit into what a request for scores gets of one step beside as many large ones as may run."""
    return prefixes <= scored_tokens(step_tokens) // (SCORES_TOGETHER + 1)


def kinds_of(request: BeamRequest, step_tokens: int) -> set[Kind]:
    """The kinds that a request is of where steps have so many tokens; most are of none."""
    kinds = {
        Kind.TEXT: request.think is not None,
        Kind.CAPPED: bool(request.caps) and request.think is None,
        Kind.SCORES: request.scored is not None and not is_scored_at_once(request.scored.prefixes, step_tokens),
        Kind.WIDE: is_wide(level_nodes(request.beam_width, has_reserved=request.reserved is not None), step_tokens),
    }
    return {kind for kind, belongs in kinds.items() if belongs}
