"""Narrow beams beside a wide one: expanded as each alone, and about as cheaply."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from drafting.beam.expand import Frontier, ScoredContinuations, Selection, expand_beam, expand_beams

WIDTH = 64
SIZES = [10] * 50 + [1000] + [1] * 5
# The wide one asks for its beam, the others for theirs; one finds less than it asks for.
COUNTS = [10] * 50 + [1000] + [80] * 5


class LargestTensor(TorchDispatchMode):
    """Notes how many elements the largest tensor has."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(each, torch.Tensor):
                self.elements = max(self.elements, each.numel())
        return made


def continuations(sizes: Sequence[int], sampled: bool) -> list[ScoredContinuations]:
    """Of all requests, and then of each alone; scores tie often."""
    rng = np.random.default_rng(0)
    log_probs = torch.from_numpy(-rng.integers(0, 500, (sum(sizes), WIDTH)).astype(np.float32) / 10)
    scores = torch.from_numpy(rng.permutation(log_probs.numpy().reshape(-1)).reshape(log_probs.shape)) if sampled else None
    prefixes = torch.arange(sum(sizes))
    ends = np.cumsum(sizes).tolist()
    found = []
    for first, last in [(0, ends[-1]), *zip([0, *ends[:-1]], ends, strict=True)]:
        own = tuple(sizes) if not found else (last - first,)
        here = prefixes[first:last]
        frontier = Frontier(here + 7, here, own, torch.zeros(last - first), None if scores is None else torch.zeros(last - first))
        found.append(ScoredContinuations(frontier, here * WIDTH, log_probs[first:last], None if scores is None else scores[first:last]))
    return found


def row(selection: Selection, request: int, count: int) -> list[list[float]]:
    """What is selected for a request, and where; of what there is not, only that."""
    fields = [selection.parent_slots, selection.nodes, selection.cum_log_probs, selection.ranking]
    kept = int((selection.nodes[request, :count] >= 0).sum())
    return [table[request, :kept].tolist() for table in fields] + [selection.nodes[request, kept:count].tolist()]


@pytest.mark.parametrize("sampled", [False, True])
def test_narrow_beams_beside_a_wide_one_are_expanded_as_alone(sampled: bool) -> None:
    together, *alone = continuations(SIZES, sampled)
    with LargestTensor() as largest:
        selection = expand_beams(together, COUNTS)
    for request, (each, count) in enumerate(zip(alone, COUNTS, strict=True)):
        assert row(selection, request, count) == row(expand_beam(each, count), 0, count)
    assert largest.elements <= 3 * sum(SIZES) * WIDTH
    first = np.cumsum(SIZES) - SIZES + 7
    assert ((selection.parent_slots >= torch.from_numpy(first)[:, None]).all(1)).all(), "also where there is nothing"
    assert ((selection.parent_slots < torch.from_numpy(first + SIZES)[:, None]).all(1)).all()


def test_beams_of_about_one_size_are_expanded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    (together, *_), calls = continuations([10] * 30 + [20] * 3 + [1] * 4, sampled=False), []
    monkeypatch.setattr("drafting.beam.expand.expand_beam", lambda continuations, k: calls.append(k) or expand_beam(continuations, k))
    expand_beams(together, [10] * 30 + [20] * 3 + [10] * 4)
    assert calls == [20]
