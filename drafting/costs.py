"""What a forward costs on this machine: a fixed part and a part per token.

Invariant: costs are seconds of wall clock as a user waits for them, so whatever a forward drags along (preparing it, reading its results)
is inside; two numbers measured in different ways cannot be weighed against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Sizes at which a first measurement counts as one forward each.
OPINION_TOKENS = (1, 16, 64, 256)
# After about 200 forwards, one weighs a third of a new one.
FADING = 0.995
SHORTEST = 1e-9
NOTEWORTHY = 0.1


@dataclass(frozen=True)
class CostCurve:
    """Seconds of a forward: `fixed + per_token * tokens`."""

    fixed: float
    per_token: float

    def __post_init__(self) -> None:
        if not (self.fixed >= 0 and self.per_token >= 0):
            raise ValueError(f"A forward cannot take negative time, got {self.fixed} s and {self.per_token} s per token.")

    @classmethod
    def fit(cls, tokens: Sequence[int], seconds: Sequence[float]) -> "CostCurve":
        """The line through measured forwards that is closest in relative terms, so that long forwards do not drown the short ones.

        Raises:
            ValueError: fewer than two sizes were measured.
        """
        if len(set(tokens)) < 2:
            raise ValueError("A cost curve needs forwards of at least two sizes.")
        weights = 1 / np.array(seconds)
        design = np.stack([np.ones(len(tokens)), np.array(tokens, float)], axis=1)
        (fixed, per_token), *_ = np.linalg.lstsq(design * weights[:, None], np.ones(len(tokens)), rcond=None)
        return cls(max(float(fixed), 0.0), max(float(per_token), 0.0))

    def seconds(self, tokens: int) -> float:
        """Seconds of a forward of so many tokens."""
        return self.fixed + self.per_token * tokens

    def differs(self, other: "CostCurve") -> bool:
        """Whether the other curve would make plans differ: by a tenth at a small or a large forward."""
        return any(abs(self.seconds(tokens) / max(other.seconds(tokens), SHORTEST) - 1) > NOTEWORTHY for tokens in (1, 256))

    @property
    def balance(self) -> float:
        """The tokens that cost as much as the fixed part."""
        return self.fixed / self.per_token if self.per_token else float("inf")


class RunningCurve:
    """A cost curve that follows forwards as they are run, so that a machine that has become faster or slower is noticed.

    Least squares of relative errors: an interruption makes a forward longer, and a long forward weighs little. Old forwards fade; what was
    measured at first stays as a few forwards' worth of opinion, which keeps the two numbers apart while all forwards are of one size.
    """

    def __init__(self, start: CostCurve) -> None:
        self._opinion = [0.0] * 5
        for tokens in OPINION_TOKENS:
            _accumulate(self._opinion, 1, tokens, start.seconds(tokens), 1.0)
        self._seen = [0.0] * 5

    def add(self, forwards: int, tokens: int, seconds: float) -> None:
        """Notes forwards that took so long together."""
        _accumulate(self._seen, forwards, tokens, seconds, FADING)

    def curve(self) -> CostCurve:
        """The line through what was seen last."""
        ff, ft, tt, f, t = (seen + opinion for seen, opinion in zip(self._seen, self._opinion, strict=True))
        determinant = ff * tt - ft * ft
        return CostCurve(max((f * tt - t * ft) / determinant, 0.0), max((t * ff - f * ft) / determinant, 0.0))


def _accumulate(sums: list[float], forwards: int, tokens: int, seconds: float, fading: float) -> None:
    """Adds one row of the normal equations; plain numbers, because this runs in every step and numpy would take longer than the sums."""
    fixed, length = forwards / max(seconds, SHORTEST), tokens / max(seconds, SHORTEST)
    for place, value in enumerate((fixed * fixed, fixed * length, length * length, fixed, length)):
        sums[place] = sums[place] * fading + value


@dataclass(frozen=True)
class ForwardCosts:
    """What each part of a step costs.

    Attributes:
        target: a forward of the target, with everything around it.
        draft: a forward of the draft, with everything around it; None without a draft.
        children: seconds to draft the children of a level, the target's tokens aside.
        level: seconds to judge one more level in a step.
    """

    target: CostCurve
    draft: CostCurve | None = None
    children: float = 0.0
    level: float = 0.0
