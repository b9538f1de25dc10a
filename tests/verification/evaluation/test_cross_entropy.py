"""The blocked cross-entropy is PyTorch's, in value and gradients."""

import pytest
import torch
from torch.nn import functional

from verification.evaluation.baselines.cross_entropy import BLOCK, cross_entropy


def of_the_library(hidden: torch.Tensor, vectors: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(hidden @ vectors.T, targets)


@pytest.mark.parametrize("positions", [1, BLOCK, 3 * BLOCK + 5])
def test_value_and_gradients_are_those_of_the_library(positions: int):
    generator = torch.Generator().manual_seed(positions)
    hidden = torch.randn(positions, 8, generator=generator, dtype=torch.float64)
    vectors = 3 * torch.randn(50, 8, generator=generator, dtype=torch.float64)
    targets = torch.randint(50, (positions,), generator=generator)
    found = []
    for loss_of in (cross_entropy, of_the_library):
        leaves = [hidden.clone().requires_grad_(), vectors.clone().requires_grad_()]
        loss = 3 * loss_of(*leaves, targets)
        torch.autograd.backward(loss)
        found.append([loss.detach(), *(leaf.grad for leaf in leaves)])
    torch.testing.assert_close(*found)
