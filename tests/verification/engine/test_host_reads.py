"""How often a step makes the host wait for the device, counted on a CPU by the operations that would wait on a GPU."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from drafting.beam.rule import STRICT, SearchRule, Verification
from drafting.plans.costs import ForwardCosts
from drafting.plans.plan import Plan
from tests.speculation import COSTS, Speculation
from verification.request import BeamRequest, Think
from verification.result import StepReport

T = TypeVar("T")

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


@pytest.fixture(autouse=True)
def levels_are_judged_as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("drafting.device", "verification.verifiers.level"):
        monkeypatch.setattr(f"{module}.is_async", lambda device: True)


@pytest.fixture(scope="module")
def speculation(tmp_path_factory: pytest.TempPathFactory) -> Speculation:
    return Speculation(Path(tmp_path_factory.mktemp("reads")))


def run(speculation: Speculation, plan: Plan | str, requests: int, rule: SearchRule = STRICT) -> list[tuple[StepReport, int]]:
    """Each step's report and how often it waited; nothing that is sent may wait, nor a request that is added."""
    engine = speculation.engine(DEPTH, plan)
    rng = np.random.default_rng(0)
    for number in range(requests):
        prompt = np.concatenate([[1], speculation.identifiers[rng.integers(150, size=5)].reshape(-1)])
        request = BeamRequest(str(number), prompt, K, K, rng.permutation(150)[:20], rule)
        assert waits(partial(engine.add, request))[1] == 0
    found = []
    while engine.running:
        found.append(waits(engine.step))
    return found


def waits(call: Callable[[], T]) -> tuple[T, int]:
    with _Calls() as calls, _Operations() as operations:
        result = call()
    assert calls.waiting_copies == 0
    return result, calls.reads + operations.waits


@pytest.mark.parametrize("requests", [1, 6])
def test_plain_search_reads_once_a_step(speculation: Speculation, requests: int) -> None:
    assert [reads for _, reads in run(speculation, "none", requests)] == [1] * DEPTH


@pytest.mark.parametrize("requests", [1, 6])
@pytest.mark.parametrize("rule", [STRICT, SearchRule(Verification.GUMBEL, seed=1), SearchRule(Verification.RELAXED, seed=1)])
def test_a_step_reads_once_for_each_drafted_level_and_once_for_all_that_are_judged(
    speculation: Speculation, rule: SearchRule, requests: int
) -> None:
    found = run(speculation, "beam:40", requests, rule)
    assert found[0][0].draft_forwards == DEPTH - 1
    assert found[0][0].accepted
    assert [reads for _, reads in found] == [report.draft_forwards + 1 for report, _ in found]


@pytest.mark.parametrize("requests", [1, 6])
def test_children_are_drafted_without_reading(speculation: Speculation, requests: int) -> None:
    found = run(speculation, "trie", requests)
    assert [(report.accepted, reads) for report, reads in found] == [(requests, 1)] * 2


@pytest.mark.parametrize(("requests", "costs"), [(1, COSTS[1]), (6, COSTS[2])])
def test_learning_reads_nothing_of_its_own(speculation: Speculation, requests: int, costs: ForwardCosts) -> None:
    found = run(speculation, speculation.planner(DEPTH, costs), requests)
    assert any(report.draft_forwards for report, _ in found)
    assert [reads for _, reads in found] == [report.draft_forwards + 1 for report, _ in found]


@pytest.mark.parametrize("rule", [STRICT, SearchRule(Verification.GUMBEL, seed=1)], ids=lambda rule: rule.verification.value)
def test_texts_are_read_once_a_step_however_many_there_are(speculation: Speculation, rule: SearchRule) -> None:
    """Beside the read of the searches that share the step."""
    engine = speculation.engine(DEPTH, "trie")
    for number in range(6):
        prompt = np.concatenate([[1], speculation.identifiers[number]])
        think = Think(2 + number, np.array([1, 1]), rule=rule) if number else None
        assert waits(partial(engine.add, BeamRequest(str(number), prompt, K, K, think=think)))[1] == 0
    found = []
    while engine.running:
        searches = len(engine._running)
        report, reads = waits(engine.step)
        found.append((reads, bool(searches) + bool(report.thought_tokens)))
    assert [reads for reads, _ in found] == [expected for _, expected in found]
    assert {expected for _, expected in found} == {1, 2}
