"""How long a list may be and how wide the beams that find it, checked alike for every way that a request comes.

Invariant: what is refused is refused in a sentence for the user, before a request is made of it.
"""

import reprlib
from collections.abc import Sequence

import numpy as np

from drafting.beam.rule import LONGEST_LIST, SERVED_BEAM_WIDTH, WIDEST_BEAM, SearchRule, Verification


def beam_width_for(k: int, rule: SearchRule, least: int = SERVED_BEAM_WIDTH, widest: int | None = None) -> int:
    """The beam width of a request that names none: `least` where k is smaller, because a beam of a few prefixes loses good items early.

    A sampled list has k: its sample is of k identifiers, and no wider beam makes it a better one.

    Args:
        widest: the widest beam that the plan drafts for; None for any. A k beyond it is not made smaller.

    Raises:
        ValueError: there are no such lists; the message is a sentence.
    """
    check_lengths(k, k)
    if rule.verification is not Verification.STRICT:
        return k
    return max(k, least if widest is None else min(least, widest))


def check_lengths(
    k: int, beam_width: int, beam_widths: Sequence[int] | None = None, verification: Verification = Verification.STRICT
) -> None:
    """Check the size of a list and the width of the beam that finds it.

    Args:
        beam_widths: those of its levels but the last, where each has its own; `beam_width` is the widest of them.
        verification: of drafts, which says whether the list is a sample.

    Raises:
        ValueError: they do not fit; the message is a sentence.
    """
    if beam_widths is not None:
        _check_widths(k, beam_widths, verification)
    if not (is_whole(k) and is_whole(beam_width)):
        raise ValueError(f"k and beam_width are whole numbers, got beam_width = {beam_width!r} and k = {k!r}.")
    got = f"got beam_width = {beam_width} and k = {k}."
    if beam_width < k:
        raise ValueError(f"beam_width must be at least k, {got}")
    if k < 1 or beam_width > WIDEST_BEAM:
        raise ValueError(f"1 <= k <= beam_width <= {WIDEST_BEAM} must hold, {got}")
    if k > LONGEST_LIST:
        raise ValueError(f"k must be at most {LONGEST_LIST}, {got}")


def _check_widths(k: int, beam_widths: Sequence[int], verification: Verification) -> None:
    if not beam_widths or not all(map(is_whole, beam_widths)) or not 1 <= min(beam_widths) <= max(beam_widths) <= WIDEST_BEAM:
        sentence = f"beam_widths are whole numbers from 1 to {WIDEST_BEAM}, one for each level but the last"
        raise ValueError(f"{sentence}, got {reprlib.repr(list(beam_widths))}.")
    got = f"got {reprlib.repr(list(beam_widths))} and k = {k}."
    if beam_widths[-1] < k:
        raise ValueError(f"The last of beam_widths must be at least k, {got}")
    if verification is Verification.GUMBEL and min(beam_widths) < k:
        # Of a level with fewer prefixes only as many draws are the model's.
        raise ValueError(f"Each of the beam_widths of a gumbel list must be at least k, or it would be no exact sample, {got}")


def width_refusal(width: int, most: int) -> str | None:
    """Reason why a beam is wider than there is memory for; None if it is not."""
    if width <= most:
        return None
    return f"There is memory for beams of up to {most}, not of {width}: ask for a smaller k and beam_width, or raise --max-beam-width."


def levels_sentence(widths: int, depth: int) -> str:
    """The reason why a request with so many `beam_widths` can't be for a catalog whose identifiers have `depth` tokens."""
    if depth == 1:
        return "beam_widths are for identifiers of several tokens, and this catalog's have one: leave it out."
    return (
        f"beam_widths are those of each level but the last, whose width is k: identifiers of {depth} tokens have {depth - 1}, "
        f"and {widths} {'is' if widths == 1 else 'are'} given."
    )


def is_whole(number: object) -> bool:
    """True for Python's and NumPy's integers, which truth values are not."""
    return isinstance(number, int | np.integer) and not isinstance(number, bool)
