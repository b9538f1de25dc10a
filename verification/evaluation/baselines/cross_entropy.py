"""Cross-entropy over all items, block by block of positions.

Invariant: value and gradients are those of `functional.cross_entropy` of the products, but no matrix of all positions by all items is ever
kept: a block is turned into its gradients while it is in the processor's cache, where the whole would go through memory five times.
"""

from typing import Any

import torch
from torch.autograd.function import once_differentiable

# Positions at a time: 32 x 20,000 items are 2.5 MB.
BLOCK = 32


def cross_entropy(hidden: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The mean of -log softmax(hidden @ vectors.T)[target].

    Args:
        hidden: `[positions, dims]` float.
        vectors: `[items, dims]` float, of each item.
        targets: `[positions]` int64, items.
    """
    loss: torch.Tensor = _Blocked.apply(hidden, vectors, targets)  # type: ignore[no-untyped-call]
    return loss


class _Blocked(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses, of_hidden, of_vectors = [], torch.empty_like(hidden), torch.zeros_like(vectors)
        for rows, into, wanted in zip(*(torch.split(each, BLOCK) for each in (hidden, of_hidden, targets)), strict=True):
            logits = rows @ vectors.T
            normalisers, wanted = logits.logsumexp(1, keepdim=True), wanted.unsqueeze(1)
            losses.append(normalisers - logits.gather(1, wanted))
            gradient = logits.sub_(normalisers).exp_()
            gradient.scatter_add_(1, wanted, torch.full_like(normalisers, -1.0))
            torch.mm(gradient, vectors, out=into)
            of_vectors.addmm_(gradient.T, rows)
        ctx.save_for_backward(of_hidden.div_(len(hidden)), of_vectors.div_(len(hidden)))
        return torch.cat(losses).mean()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, scale: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, None]:
        of_hidden, of_vectors = ctx.saved_tensors
        return of_hidden * scale, of_vectors * scale, None
