"""Strict top-K verification: a level is accepted exactly when every prefix that the target selects was drafted.

Invariant: the selection is the target's own, made by the same `expand_beam` that a plain search uses on the same log-probabilities; the
draft only decides whether the next level's log-probabilities are at hand already. The list therefore equals plain beam search's, whatever
was drafted (paper, section 3.1). With shared noise in the scores the same holds for the sample that a plain search would draw.
"""

from dataclasses import dataclass

from torch import Tensor

from drafting.beam.expand import Candidates, Frontier, Selection, expand_beam, find_nodes


@dataclass(frozen=True)
class Verdict:
    """The next beam of each request, and how much of it was drafted.

    Attributes:
        selection: the beam, best first.
        places: `[requests, k]` int64, where each prefix stands among the drafted ones; -1 for one that was not drafted. None if nothing was
            drafted for any request.
    """

    selection: Selection
    places: Tensor | None


def verify_strictly(candidates: Candidates, frontier: Frontier, drafted: Tensor | None, k: int) -> Verdict:
    """Judges one level.

    Args:
        candidates: the target's continuations of the beams in `frontier`.
        drafted: `[requests, nodes]` int64 trie nodes of the next level that the target has scored; -2 pads; None if there are none.
        k: how many prefixes to select.
    """
    selection = expand_beam(candidates, frontier, k)
    return Verdict(selection, None if drafted is None else find_nodes(selection.nodes, drafted))
