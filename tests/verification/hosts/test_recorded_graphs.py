"""The whole engine on a stand-in for a GPU with all its forwards recorded: replays under other contents, and what they would hide."""

from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel

from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeBatch
from drafting.beam.rows import Rows
from drafting.beam.rule import SearchRule, Verification
from drafting.beam.tree import SequenceState, TokenTree
from drafting.plans.fixed_plan import FixedPlan
from drafting.trie.item_trie import ItemTrie
from tests.kernel_launches import KernelLaunches, MergeLaunches
from tests.recorded_graphs import GraphRecorder
from tests.speculation import Speculation, run
from tests.stand_in import DEVICE, DeviceTensor, Punished, StandIn, stand_in
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.graphs import Bucket, GraphCounts, GraphedModel, graphed
from verification.hosts.transformers import TransformersHost

tree_kernel = pytest.importorskip("verification.hosts.tree_kernel", reason="needs Triton", exc_type=ImportError)
BUCKETS = [Bucket(many, queries, 256) for many in (8, 4, 2, 1) for queries in (48, 4)]
SLOTS = 4096


@pytest.fixture
def device() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


@pytest.fixture(autouse=True)
def launches(device: StandIn, monkeypatch: pytest.MonkeyPatch) -> KernelLaunches:
    """As on a GPU, the kernel attends."""
    made = KernelLaunches(device)
    monkeypatch.setattr(tree_kernel, "_attend_stretch", made)
    monkeypatch.setattr(tree_kernel, "_merge_stretches", MergeLaunches(device))
    return made


def host(model: PreTrainedModel) -> TransformersHost:
    return TransformersHost.from_model(deepcopy(model).to(DEVICE), SLOTS)


def batch_of(tree: TokenTree, rng: np.random.Generator, shapes: list[tuple[int, int]]) -> TreeBatch:
    """Prompts of which the last tokens are to be computed; `shapes` are the known and the new tokens of each."""
    slots, parts = rng.permutation(len(tree.token) - 1), []
    for known, new in shapes:
        own, slots = slots[: known + new], slots[known + new :]
        tokens = rng.integers(40, size=len(own))
        tree.add_prompt(*(DeviceTensor(torch.from_numpy(array)) for array in (own, tokens)))
        parts.append(ForwardPart(SequenceState(own, np.zeros(len(tree.token), np.int64)), np.arange(known, known + new), min(new, 3)))
    return forward_batch(tree, parts)


@pytest.mark.parametrize("plan", ["none", "trie", "beam:20+children"])
def test_lists_are_those_of_a_processor_and_every_step_reads_once(
    device: StandIn, launches: KernelLaunches, speculation: Speculation, plan: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`graphed` as on a GPU, but for what records: prompts join beams at random."""
    rules = [SearchRule(), SearchRule(Verification.GUMBEL, seed=3)]
    requests = [
        replace(request, request_id=f"{number}/{request.request_id}", rule=rule)
        for number, rule in enumerate(rules)
        for request in speculation.requests(5, np.random.default_rng(number))
    ]
    plain = run(speculation.engine(4), requests, np.random.default_rng(4))
    recorder = GraphRecorder(device)
    monkeypatch.setattr("verification.hosts.graphs.CudaRecorder", lambda _: recorder)
    monkeypatch.setattr("verification.hosts.graphs.make_buckets", lambda *_: BUCKETS)
    models = [graphed(host(model), 8, 64) for model in (speculation.target_model, speculation.draft.model)]
    engine = SpeculativeBeamEngine(models[0], ItemTrie.build(speculation.identifiers[:, :4], DEVICE), models[1], FixedPlan.parse(plan))
    step, found = engine.step, []

    def policed() -> object:
        with device.policed():
            report = step()
        found.append(device.reads)
        return report

    monkeypatch.setattr(engine, "step", policed)
    results = run(engine, requests, np.random.default_rng(5))
    for request_id, expected in plain.items():
        assert [item.item for item in results[request_id].items] == [item.item for item in expected.items]
    assert found == [1] * len(found)
    counts = models[0].take_counts()
    assert counts.replayed > 0
    # A replay launches nothing itself; recordings and the forwards that fit none do, in their only layer.
    assert launches.count >= 3 * 2 * len(BUCKETS)
    assert recorder.replays == counts.replayed + models[1].take_counts().replayed


@pytest.mark.parametrize("shapes", [[(0, 40), (20, 2)], [(30, 3), (0, 34), (9, 1)], [(0, 48), (5, 2), (7, 4), (0, 36)]])
def test_prompts_and_beams_share_a_bucket(device: StandIn, speculation: Speculation, shapes: list[tuple[int, int]]) -> None:
    alone = host(speculation.target_model)
    graphs = GraphedModel(host(speculation.target_model), BUCKETS, GraphRecorder(device))
    tree, rng = TokenTree(SLOTS, 4, DEVICE), np.random.default_rng(len(shapes))
    for turn in range(3):
        batch = batch_of(tree, rng, shapes[turn % len(shapes) :] + shapes[: turn % len(shapes)])
        assert len(batch.attention) > 1
        for own, other in zip(graphs._model._caches, alone._caches, strict=True):  # type: ignore[attr-defined]
            own[: SLOTS - 1] = other[: SLOTS - 1]
        torch.testing.assert_close(held(graphs.score(batch).logits()), held(alone.score(batch).logits()), atol=1e-5, rtol=0)
    assert graphs.take_counts() == GraphCounts(replayed=3)


def test_a_launch_with_what_it_takes_for_granted_missing_is_found(device: StandIn, launches: KernelLaunches) -> None:
    tensors = [DeviceTensor(torch.zeros(2, 2, 16)) for _ in range(8)]
    constants = {"STRETCH": 512}
    for wrong, sentence in ((torch.zeros(2, 2, 16), "an address of the host"), (tensors[1].transpose(0, 1), "as if it was contiguous")):
        with pytest.raises(Punished, match=sentence):
            launches[1, 1, 1](*tensors[:2], wrong, *tensors[3:], 1.0, **constants)
    assert launches.count == 0


class _Planted(SimpleNamespace):
    """A model with a fault that a recording hides until it is replayed with other contents."""

    def __init__(self, model: TransformersHost, fault: str) -> None:
        super().__init__(device=model.device, has_encoder=False, total_slots=model.total_slots, model=model, fault=fault, calls=0)
        self.scale = torch.ones(1, device=DEVICE)

    def score(self, batch: TreeBatch) -> Rows:
        self.calls += 1
        logits: Tensor = self.model.score(batch).logits()
        if self.fault == "a number that the host has decided":
            return Rows.of(logits + self.calls)
        if self.fault == "memory that is another by then":
            return Rows.of(logits * self.scale)
        if self.fault == "a read":
            return Rows.of(logits * float(batch.positions.float().amax().item() >= 0))
        if self.fault == "a copy from the host":
            return Rows.of(logits * torch.ones(1).to(DEVICE, non_blocking=True))
        return Rows.of(logits)


@pytest.mark.parametrize(
    ("fault", "recorded"),
    [
        ("none", True),
        ("a number that the host has decided", True),
        ("memory that is another by then", True),
        ("a read", False),
        ("a copy from the host", False),
    ],
)
def test_what_a_recording_hides_is_found(device: StandIn, speculation: Speculation, fault: str, recorded: bool) -> None:
    planted = _Planted(host(speculation.target_model), fault)
    if not recorded:
        with pytest.raises(Punished, match=r"waits for the device|While a graph is recorded"):
            GraphedModel(planted, BUCKETS, GraphRecorder(device))
        return
    graphs, alone = GraphedModel(planted, BUCKETS, GraphRecorder(device)), host(speculation.target_model)
    tree, rng = TokenTree(SLOTS, 4, DEVICE), np.random.default_rng(0)
    same = []
    for turn, shapes in enumerate([[(0, 4)], [(0, 40), (0, 30)], [(0, 4)]]):
        batch, factor = batch_of(tree, rng, shapes), turn + 1.0 if fault.startswith("memory") else 1.0
        planted.scale = torch.full((1,), factor, device=DEVICE)
        same.append(torch.allclose(held(graphs.score(batch).logits()), factor * held(alone.score(batch).logits()), atol=1e-5))
    assert all(same) == (fault == "none")


def held(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, DeviceTensor)
    return tensor.held
