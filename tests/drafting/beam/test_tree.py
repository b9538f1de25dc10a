"""What goes to the model in one forward."""

import numpy as np
import torch

from drafting.beam.model import TreeBatch, build_layout


def make_batch() -> TreeBatch:
    visible = torch.tensor([1, 2, 1])
    layout = build_layout([np.array([4, 5]), np.array([7])], [2, 1], visible, torch.tensor([[0], [1], [0]]))
    return TreeBatch(torch.tensor([1, 2, 3]), torch.tensor([0, 1, 0]), torch.tensor([4, 5, 7]), torch.tensor([1, 2]), (layout,))


def test_a_batch_moves_as_a_whole():
    """With a device per rank, a tensor that stays behind would fail the forward on all ranks but one."""
    moved = make_batch().to(torch.device("meta"))
    parts = [*vars(moved).values(), *(part for layout in moved.attention for part in vars(layout).values())]
    tensors = [part for part in parts if isinstance(part, torch.Tensor)]
    assert len(tensors) == 9
    assert {part.device.type for part in tensors} == {"meta"}


def test_a_batch_that_is_there_is_not_copied():
    batch = make_batch()
    assert batch.to(torch.device("cpu")) is batch
