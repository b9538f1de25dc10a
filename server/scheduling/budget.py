"""How many tokens may share a step, so that it ends in time.

Invariant: the budget follows from what forwards cost on this machine, never from a guess: a curve through measured forwards says how many
tokens fit into the bound, and every step that ran says how far that curve is off now (drafts, which the curve does not know of, and other
programs on the machine both make steps longer). The hard bound on tokens always holds.
"""

from dataclasses import dataclass

from drafting.plans.costs import CostCurve

# How much one step weighs against the earlier ones; a single hiccup must not halve the budget.
_SHARE = 0.05
# A step's measured time is trusted within these bounds only: a machine that was suspended has not become a thousand times slower.
_LEAST_SLOWDOWN, _MOST_SLOWDOWN = 0.25, 8.0


@dataclass
class StepBudget:
    """The tokens that may share a step.

    Attributes:
        most_tokens: the hard bound, whatever the clock says.
        seconds: what a step may take; None for no such bound.
        curve: what a forward costs; None if that is not known, and then only the hard bound holds.
    """

    most_tokens: int
    seconds: float | None = None
    curve: CostCurve | None = None
    _slowdown: float = 1.0

    @property
    def tokens(self) -> int:
        """Tokens that the next step may have; at least one, and a request that is alone runs however many it has."""
        if self.seconds is None or self.curve is None:
            return self.most_tokens
        return int(max(1, min(self.most_tokens, self.curve.tokens_within(self.seconds / self._slowdown))))

    def learn(self, tokens: int, seconds: float) -> None:
        """Takes over how long a step of so many planned tokens has taken."""
        if self.curve is None or not (expected := self.curve.seconds(tokens)):
            return
        slowdown = min(max(seconds / expected, _LEAST_SLOWDOWN), _MOST_SLOWDOWN)
        self._slowdown += _SHARE * (slowdown - self._slowdown)
