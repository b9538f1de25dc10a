"""How often a step makes the host wait for the device, counted on a CPU by the operations that would wait on a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from drafting.rule import SearchRule, Verification
from tests.speculation import Speculation
from verification.engine import SpeculativeBeamEngine
from verification.request import BeamRequest, StepReport

K = 8
DEPTH = 4
# Operations whose result's size or value the host must know before it can go on.
WAITING = {
    *("_local_scalar_dense", "item", "is_nonzero", "nonzero", "nonzero_numpy", "argwhere", "masked_select", "bincount"),
    *("_unique2", "unique_dim", "unique_consecutive", "repeat_interleave"),
}


class _Calls(TorchFunctionMode):
    """Notes tensors that are read, and arrays that are sent by a copy that waits."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.waiting_copies = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.reads += func in (Tensor.cpu, Tensor.tolist)
        to_device = func is Tensor.to and any(isinstance(given, torch.device) for given in args[1:])
        self.waiting_copies += to_device and not (kwargs or {}).get("non_blocking")
        return func(*args, **(kwargs or {}))


class _Operations(TorchDispatchMode):
    """Notes operations that wait, indexing by a boolean mask among them."""

    def __init__(self) -> None:
        super().__init__()
        self.waits = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masked = name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        )
        self.waits += masked or name in WAITING
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    return Speculation(Path(tmp_path_factory.mktemp("reads")))


def run(speculation: Speculation, plan: str, requests: int, rule: SearchRule | None = None) -> list[tuple[StepReport, int]]:
    """Each step's report and how often it waited; nothing that is sent may wait."""
    engine = speculation.engine(DEPTH, plan)
    rng = np.random.default_rng(0)
    for number in range(requests):
        prompt = np.concatenate([[1], speculation.identifiers[rng.integers(150, size=5)].reshape(-1)])
        engine.add(BeamRequest(str(number), prompt, K, K, *([np.empty(0, np.int64), rule] if rule else [])))
    return steps(engine)


def steps(engine: SpeculativeBeamEngine) -> list[tuple[StepReport, int]]:
    found = []
    while engine.running:
        with _Calls() as calls, _Operations() as operations:
            report = engine.step()
        assert calls.waiting_copies == 0
        found.append((report, calls.reads + operations.waits))
    return found


@pytest.mark.parametrize("requests", [1, 6])
def test_plain_search_reads_once_a_step_and_once_more_for_the_lists(speculation: Speculation, requests: int) -> None:
    assert [reads for _, reads in run(speculation, "none", requests)] == [1, 1, 1, 2]


@pytest.mark.parametrize("requests", [1, 6])
@pytest.mark.parametrize("rule", [None, SearchRule(Verification.GUMBEL, seed=1), SearchRule(Verification.RELAXED, seed=1)])
def test_a_drafted_level_is_read_once_when_drafted_and_once_when_judged(
    speculation: Speculation, rule: SearchRule | None, requests: int
) -> None:
    found = run(speculation, "beam:40", requests, rule)
    first, reads = found[0]
    assert first.draft_forwards == DEPTH - 1
    if requests == 1:
        assert reads == first.draft_forwards + first.accepted + 1 + len(first.finished)
    # However many requests there are: one for each level that is drafted, one for each that is judged, and one for all lists.
    assert reads <= (DEPTH - 1) + DEPTH + 1
    for report, reads in found[1:]:
        # Which nodes an earlier round has left is asked once a level. Searches that stand at different depths end at different levels.
        assert reads <= 2 * report.draft_forwards + DEPTH + (DEPTH if report.finished else 0)


def test_children_are_read_twice_a_level(speculation: Speculation) -> None:
    """How many there are, and where."""
    for requests in (1, 6):
        (first, reads), (last, reads_of_last) = run(speculation, "trie", requests)
        assert first.accepted == last.accepted == requests
        assert (reads, reads_of_last) == (2 + 2, 2 + 2 + 1)
