"""The tokens that a catalog uses at one level, onto which a model's rows are projected."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.device import on_device


@dataclass(frozen=True, eq=False)
class TokenSet:
    """Some tokens of a vocabulary; the object is its own key in caches.

    Attributes:
        numbers: `[tokens]` int64, ascending token ids, at least one.
        device: the model's.
    """

    numbers: IntArray
    device: torch.device

    def __len__(self) -> int:
        return len(self.numbers)

    def __reduce__(self) -> tuple[type["TokenSet"], tuple[IntArray, torch.device]]:
        """Send another process nothing but the numbers."""
        return TokenSet, (self.numbers, self.device)

    @cached_property
    def first(self) -> int | None:
        """The first id, where the others follow it without a gap; else None."""
        first = int(self.numbers[0])
        return first if int(self.numbers[-1]) - first == len(self) - 1 else None

    @cached_property
    def ids(self) -> Tensor:
        """`[tokens]` int64, the numbers on the device."""
        return on_device(self.numbers, self.device)

    def columns(self, tokens: Tensor) -> Tensor:
        """Where token ids, of any shape, stand in the set; the column of some other for one that is none of it."""
        if (first := self.first) is not None:
            return (tokens - first).clamp_(0, len(self) - 1)
        return self._columns.take(tokens.clamp(max=len(self._columns) - 1))

    @cached_property
    def _columns(self) -> Tensor:
        """`[largest id + 1]` int64."""
        columns = np.zeros(int(self.numbers[-1]) + 1, np.int64)
        columns[self.numbers] = np.arange(len(self))
        return on_device(columns, self.device)
