"""CUDA graphs without CUDA, on the stand-in: a recording is operations on memory, and a replay runs these very operations again.

A replay is deaf to Python: it reads the addresses that it was recorded with and the numbers that were decided then. All recordings share a
pool, as CUDA's do: whatever they have allocated holds garbage before each replay, so that nobody reads what another one has left there.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tests.stand_in import StandIn

Run = Callable[[], Tensor]


@dataclass
class GraphRecorder:
    """As `verification.hosts.graphs.CudaRecorder`.

    Attributes:
        pool: memory that recordings have allocated.
        replays: number of replays.
    """

    device: StandIn
    pool: list[Tensor] = field(default_factory=list)
    replays: int = 0

    def __call__(self, run: Run) -> Run:
        """Record `run`; raise `Punished` if it reads, or is sent something."""
        for _ in range(2):
            run()
        steps: list[tuple[Any, Any, Any, Tensor | None]] = []

        def record(func: Any, args: Any, kwargs: Any, result: Any) -> None:
            known = {_address(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)}
            fresh = result if isinstance(result, Tensor) and _address(result) not in known else None
            if fresh is not None:
                self.pool.append(fresh)
            steps.append((func, args, kwargs, fresh))

        self.device.recorded = record
        try:
            output = run()
        finally:
            self.device.recorded = None

        def replay() -> Tensor:
            self.replays += 1
            for tensor in self.pool:
                _spoil(tensor)
            for func, args, kwargs, fresh in steps:
                result = func(*args, **kwargs)
                if fresh is not None:
                    fresh.copy_(result)
            return output

        return replay


def _address(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def _spoil(tensor: Tensor) -> None:
    if tensor.dtype.is_floating_point:
        tensor.fill_(float("nan"))
    else:
        tensor.fill_(1 if tensor.dtype is torch.bool else torch.iinfo(tensor.dtype).max)
