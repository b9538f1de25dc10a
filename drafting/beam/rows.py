"""What a forward says of the tokens that may follow: a state for each row, and the head that makes logits of states.

Invariant: a logit is the one that the whole model would give, whichever tokens are asked for. A tensor over rows and vocabulary is made
only for those who ask for all logits.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from drafting.trie.token_set import TokenSet


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


@dataclass(frozen=True)
class WholeHead:
    """The head of rows whose states are the logits already."""

    vocabulary: int

    def logits(self, states: Tensor) -> Tensor:
        """The very same."""
        return states

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """As `Head.project`."""
        return states.index_select(1, tokens.ids).float()

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As `Head.log_normaliser`."""
        return states.float().logsumexp(1)


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
