"""Wide requests: those with beams of which one level would fill a step.

Invariant: a level of a wide request is computed in pieces of at most half a step while others run or wait, and only one wide request runs
at a time; so it takes half of every step, and the others the other half, whichever came first. The engine process runs requests by this
rule, and the API process foresees their waits by it. Without others, a piece is a whole step.
"""

from verification.request import BeamRequest

# Requests with beams of up to so many prefixes are never cut, nor count as wide, however small steps are: they were computed at once before
# others were.
LEAST_PIECE = 256


def piece(step_tokens: int, *, is_alone: bool = False) -> int:
    """The nodes of one request that a step of so many tokens may compute."""
    return max(LEAST_PIECE, step_tokens if is_alone else step_tokens // 2)


def shared_budget(step_tokens: int) -> int:
    """The tokens of a step in which a wide request runs: its piece, which may be longer than a small step, and half a step for others."""
    return max(step_tokens, piece(step_tokens) + step_tokens // 2)


def is_wide(beam_width: int, step_tokens: int) -> bool:
    """True if levels of so many prefixes have to be cut."""
    return beam_width > piece(step_tokens)


def level_tokens(request: BeamRequest, step_tokens: int) -> int:
    """The most tokens that a level of a request puts into a step of so many, beside others; its prompt and its candidates aside."""
    if request.scored is not None:
        return 0
    searches = 1 if request.reserved is None else 2
    return min(searches * request.beam_width, piece(step_tokens))


def work_until(own: int, others: int) -> int:
    """Tokens of both kinds, wide and narrow, that are computed by the time that `own` tokens of one kind are.

    As each kind gets half of every step, these are `own`, and as many of the `others` tokens of the other kind, or all if they are fewer.
    """
    return own + min(own, others)
