"""Wide requests: those with beams of which one level would fill a step.

Invariant: a level of a wide request is computed in pieces of at most half a step while others run or wait, and only one wide request runs
at a time; so it takes half of every step, and the others the other half, whichever came first. The engine process runs requests by this
rule, and the API process foresees their waits by it. Without others, a piece is a whole step.
"""

from verification.request import BeamRequest

# Levels of up to so many nodes are never cut, nor count as wide, however small steps are: they were computed at once before others were.
LEAST_PIECE = 256


def piece_nodes(step_tokens: int, *, is_alone: bool = False) -> int:
    """The most nodes of one request that a step of so many tokens computes: its piece."""
    return max(LEAST_PIECE, step_tokens if is_alone else step_tokens // 2)


def shared_budget(step_tokens: int) -> int:
    """The tokens of a step in which a wide request runs: its piece, which may be longer than a small step, and half a step for others."""
    return max(step_tokens, piece_nodes(step_tokens) + step_tokens // 2)


def level_nodes(beam_width: int, *, has_reserved: bool) -> int:
    """The most nodes of a level: reserved places take a search of their own, of beams as wide."""
    return 2 * beam_width if has_reserved else beam_width


def is_wide(nodes: int, step_tokens: int) -> bool:
    """True if levels of so many nodes have to be cut."""
    return nodes > piece_nodes(step_tokens)


def level_tokens(request: BeamRequest, step_tokens: int) -> int:
    """The most tokens that a level of a request puts into a step of so many, beside others; its prompt and its candidates aside."""
    if request.scored is not None:
        return 0
    return min(level_nodes(request.beam_width, has_reserved=request.reserved is not None), piece_nodes(step_tokens))


def work_until(own: int, others: int) -> int:
    """Tokens of both kinds, wide and narrow, that are computed by the time that `own` tokens of one kind are.

    As each kind gets half of every step, these are `own`, and as many of the `others` tokens of the other kind, or all if they are fewer.
    """
    return own + min(own, others)
