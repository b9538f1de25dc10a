"""What a forward costs on this machine: a fixed part and a part per token.

Invariant: costs are seconds of wall clock as a user waits for them, so whatever a forward drags along (preparing it, reading its results)
is inside; two numbers measured in different ways cannot be weighed against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


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

    @property
    def balance(self) -> float:
        """The tokens that cost as much as the fixed part."""
        return self.fixed / self.per_token if self.per_token else float("inf")


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
