"""`StepBudget`: how many tokens may share a step, so that it ends in time.

Invariant: the budget follows from what forwards cost on this machine now. A curve through forwards that were measured at start says how
many tokens fit into the bound, and every step that ran says how far that curve is off: drafts, which it does not know of, and other
programs on the machine both make steps longer.
"""

from dataclasses import dataclass

from drafting.plans.costs import CostCurve

# How much one step weighs against the earlier ones; a single hiccup must not halve the budget.
_SHARE = 0.05
# One step counts as at most so many times as slow as those before it: a machine that was suspended has not become a thousand times slower.
# There is no such bound below: a step that was fast is proof, and a curve that was measured on a busy machine may be off by any factor.
_MOST_RISE = 8.0


@dataclass
class StepBudget:
    """The tokens that a step may have, and what follows from each step for the next.

    Attributes:
        most_tokens: the hard bound.
        seconds: maximum duration of a step; None for no limit.
        curve: cost curve of forwards; None if unknown, then only the hard limit applies.
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
        """Take over how long a step of so many planned tokens has taken."""
        if self.curve is None or not (expected := self.curve.seconds(tokens)):
            return
        slowdown = min(seconds / expected, _MOST_RISE * self._slowdown)
        self._slowdown += _SHARE * (slowdown - self._slowdown)
