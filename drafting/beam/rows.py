"""The output of a forward: a hidden state for each row, and the head that makes logits of states.

Invariant: a logit is the one that the whole model would give, whichever tokens are asked for. A tensor over rows and vocabulary is made
only where all logits are asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from drafting.device import is_async
from drafting.trie.token_set import TokenSet

# A sum of exponentials beyond is made again with the largest logit taken off: some term may have been lost, or be infinite.
_LEAST_SUM, _MOST_SUM = 1e-20, 1e37
# Logits whose exponentials are summed at a time: so many stay in a processor's cache.
_SUMMED = 1 << 16


class Head(Protocol):
    """The last layer of a model, and what its family does with its logits."""

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        ...

    def logits(self, states: Tensor) -> Tensor:
        """`[rows, vocabulary]` of any float type, of states `[rows, size]`."""
        ...

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """`[rows, tokens]` float32: the logits of these tokens alone."""
        ...

    def log_normaliser(self, states: Tensor) -> Tensor:
        """`[rows]` float32: the logarithm of the sum of the exponentials of all logits."""
        ...


def log_of_sums(sums: Tensor, exactly: Callable[[Tensor], Tensor]) -> Tensor:
    """`[rows]` float32, the logarithms of sums of exponentials, on a CPU, where reading them is free.

    The largest logit is first taken off only where that changes something, which saves two passes over all logits. A row's number follows
    from its own sum.

    Args:
        sums: `[rows]` float32 or float64.
        exactly: makes those of some rows, `[rows]` int64, whose sums leave the range of their type or are no numbers.
    """
    low, high = (float(each) for each in sums.aminmax())
    if low > _LEAST_SUM and high < _MOST_SUM:
        return sums.log_().float()
    rows = torch.nonzero(~((sums > _LEAST_SUM) & (sums < _MOST_SUM)))[:, 0]
    return sums.log_().float().index_copy_(0, rows, exactly(rows))


@dataclass(frozen=True)
class WholeHead:
    """The head of rows whose states are the logits already."""

    vocabulary: int

    def logits(self, states: Tensor) -> Tensor:
        """The very same."""
        return states

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """As `Head.project`."""
        if (first := tokens.first) is not None:
            return states[:, first : first + len(tokens)].float()
        return states.index_select(1, tokens.ids).float()

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As `Head.log_normaliser`."""
        if is_async(states.device):
            return states.float().logsumexp(1)
        sums = torch.empty(len(states), dtype=torch.float32, device=states.device)
        rows = max(1, _SUMMED // self.vocabulary)
        # One piece of memory for all parts: fresh memory costs as much as the exponentials.
        exponentials = torch.empty(min(rows, len(states)), self.vocabulary, dtype=torch.float32, device=states.device)
        for part, its_sums in zip(torch.split(states, rows), torch.split(sums, rows), strict=True):
            own = exponentials[: len(part)]
            torch.exp(part, out=own) if part.dtype is torch.float32 else own.copy_(part).exp_()
            torch.sum(own, 1, out=its_sums)
        return log_of_sums(sums, lambda rows: states.index_select(0, rows).float().logsumexp(1))


@dataclass(frozen=True)
class Rows:
    """The rows of a forward after which the next token is wanted.

    Attributes:
        states: `[rows, size]`, what the head reads.
    """

    states: Tensor
    head: Head

    @classmethod
    def of(cls, logits: Tensor) -> "Rows":
        """Rows of which all logits are there, `[rows, vocabulary]`."""
        return cls(logits, WholeHead(logits.shape[1]))

    def __len__(self) -> int:
        return len(self.states)

    @property
    def are_logits(self) -> bool:
        """True if all logits are there already."""
        return isinstance(self.head, WholeHead)

    def between(self, first: int, last: int) -> "Rows":
        """The rows from `first` up to `last`."""
        return Rows(self.states[first:last], self.head)

    def take(self, rows: Tensor) -> "Rows":
        """Some rows, by their indices `[rows]`; a copy."""
        return Rows(self.states.index_select(0, rows), self.head)

    def logits(self) -> Tensor:
        """`[rows, vocabulary]` of any float type."""
        return self.head.logits(self.states)

    def project(self, tokens: TokenSet) -> Tensor:
        """`[rows, tokens]` float32, of these tokens alone."""
        return self.head.project(self.states, tokens)

    def log_normaliser(self) -> Tensor:
        """`[rows]` float32: the logarithm of the sum of the exponentials of all logits."""
        return self.head.log_normaliser(self.states)
