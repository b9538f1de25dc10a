"""How well log-probabilities agree with soft labels.

A soft label is a distribution over items, and its cross-entropy with a model is the sum over the items' tokens, each behind its own prefix.
A forward over what users did gives probabilities behind the true item's prefixes alone. So at the first level all items count, and further
down those that share the true item's tokens so far: of the items' cross-entropy exactly the part that this forward knows.
"""

import torch
from torch import Tensor

from drafting.alignment.data.samples import Batch
from drafting.alignment.data.soft_labels import ITEMS, SHARES
from drafting.array_types import IntArray


class SoftTokens:
    """Soft labels as tokens of a catalog's identifiers."""

    def __init__(self, identifiers: IntArray) -> None:
        """`identifiers`: `[items, length]` token ids."""
        self._identifiers = torch.from_numpy(identifiers)

    def of(self, batch: Batch, true: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and weights of a batch's soft labels, `[labels, candidates, length]` int64 and float32.

        Args:
            true: `[labels, length]`, the identifiers of the items that followed; weights are 0 where a candidate has another prefix.
        """
        self._identifiers = self._identifiers.to(true.device)
        tokens = self._identifiers[batch[ITEMS].long()]
        alike = (tokens[..., :-1] == true[:, None, :-1]).cumprod(-1)
        return tokens, batch[SHARES][..., None] * torch.nn.functional.pad(alike, (1, 0), value=1)
