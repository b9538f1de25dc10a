"""Graphs of forwards: what a recorded forward gives is what the model gives, whatever else stands in its bucket.

A CPU has no CUDA graphs. A forward traced to its tensor operations, and run again from these, is as deaf to Python: it reads the tensors
that it was recorded with, and nothing that the host decides later.
"""

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeBatch, TreeModel
from drafting.beam.tree import SequenceState, TokenTree
from tests.speculation import SameModel, Speculation, run
from verification.engine.engine import SpeculativeBeamEngine
from verification.hosts.checkpoint import HostError
from verification.hosts.graphs import MOST_TOKENS, Bucket, CudaRecorder, GraphCounts, GraphedModel, graphed, make_buckets

BUCKETS = [Bucket(many, queries, 256) for many in (4, 2, 1) for queries in (48, 16, 4)]


def record(forward: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """Traces operations; like a CUDA graph, each replay writes to the same output."""
    # As for a CUDA graph, a first run goes unrecorded.
    output = forward()
    trace = make_fx(lambda: forward())()

    def replay() -> Tensor:
        trace()
        return output

    return replay


@pytest.fixture(scope="module")
def graphs(speculation: Speculation) -> GraphedModel:
    return GraphedModel(SameModel(speculation.target), BUCKETS, record)


@pytest.fixture(scope="module")
def draft_graphs(speculation: Speculation) -> GraphedModel:
    return GraphedModel(SameModel(speculation.draft), BUCKETS, record)


@pytest.mark.parametrize(("most_requests", "most_columns"), [(1, 10), (8, 300), (64, 3000)])
def test_buckets_hold_every_small_forward(most_requests: int, most_columns: int) -> None:
    buckets = make_buckets(most_requests, most_columns)
    assert max(bucket.tokens for bucket in buckets) <= MOST_TOKENS
    assert buckets[0].tokens == max(bucket.tokens for bucket in buckets)
    assert len(set(buckets)) == len(buckets) < 300
    for requests in range(1, most_requests + 1):
        for queries in (1, 5, MOST_TOKENS // (1 << (requests - 1).bit_length())):
            assert any(b.requests >= requests and b.queries >= queries and b.columns >= most_columns for b in buckets)


def random_batch(tree: TokenTree, rng: np.random.Generator, shapes: list[tuple[int, int]], wanted: int | None) -> TreeBatch:
    """Prompts of which the last tokens are computed; `shapes` are the known and the new tokens of each."""
    slots, parts = rng.permutation(len(tree.token) - 1), []
    for known, new in shapes:
        own, slots = slots[: known + new], slots[known + new :]
        tree.add_prompt(torch.from_numpy(own), torch.from_numpy(rng.integers(40, size=len(own))))
        parts.append(ForwardPart(SequenceState(own, np.zeros(len(tree.token), np.int64)), np.arange(known, known + new), wanted or new))
    return forward_batch(tree, parts)


@pytest.mark.parametrize("wanted", [None, 1, 3])
@pytest.mark.parametrize(
    "shapes", [[(0, 4)], [(0, 3)], [(5, 16)], [(0, 40)], [(0, 4), (9, 3)], [(0, 30), (2, 31)], [(4, 4), (9, 16), (3, 5)]]
)
def test_a_replayed_forward_is_the_models(
    graphs: GraphedModel, speculation: Speculation, shapes: list[tuple[int, int]], wanted: int | None
) -> None:
    tree = TokenTree(speculation.target.total_slots, 4, torch.device("cpu"))
    rng, alone = np.random.default_rng(len(shapes)), SameModel(speculation.target)
    graphs.take_counts()
    for _ in range(3):
        batch = random_batch(tree, rng, shapes, wanted)
        # What is known already is whatever stands in memory: the same for both.
        alone._caches = [cache.clone() for cache in graphs._model._caches]
        np.testing.assert_allclose(graphs.score(batch).logits().numpy(), alone.score(batch).logits().numpy(), atol=1e-5)
        for own, other in zip(graphs._model._caches, alone._caches, strict=True):
            torch.testing.assert_close(own[:-1], other[:-1], atol=1e-5, rtol=0)
            assert own.isfinite().all()
    assert graphs.take_counts() == GraphCounts(replayed=3)
    assert graphs.take_counts() == GraphCounts()


@pytest.mark.parametrize("shapes", [[(0, 20)], [(0, 20), (0, 18)], [(3, 2), (3, 4)]])
def test_no_forward_reads_what_another_has_left(speculation: Speculation, shapes: list[tuple[int, int]]) -> None:
    """The request that had the bucket before left keys and values that are not finite."""
    graphs, alone = GraphedModel(SameModel(speculation.target), BUCKETS, record), SameModel(speculation.target)
    tree, rng = TokenTree(speculation.target.total_slots, 4, torch.device("cpu")), np.random.default_rng(0)
    longer = random_batch(tree, rng, [(known + 9, new) for known, new in shapes], 1)
    batch = random_batch(tree, rng, shapes, 1)
    apart = torch.tensor([slot for slot in longer.attention[0].keys.flatten().tolist() if slot not in batch.attention[0].keys])
    graphs.score(longer)
    for cache in graphs._model._caches:
        cache[apart] = float("nan")
    np.testing.assert_allclose(graphs.score(batch).logits().numpy(), alone.score(batch).logits().numpy(), atol=1e-5)
    assert all(cache[-1].isfinite().all() for cache in graphs._model._caches)


@pytest.mark.parametrize("shapes", [[(0, 200)], [(250, 20)], [(0, 4)] * 5, [(0, 1), (0, 60)]])
def test_what_fits_no_graph_runs_without(graphs: GraphedModel, speculation: Speculation, shapes: list[tuple[int, int]]) -> None:
    tree = TokenTree(speculation.target.total_slots, 4, torch.device("cpu"))
    graphs.take_counts()
    batch = random_batch(tree, np.random.default_rng(0), shapes, None)
    alone = SameModel(speculation.target)
    alone._caches = [cache.clone() for cache in graphs._model._caches]
    assert torch.equal(graphs.score(batch).logits(), alone.score(batch).logits())
    assert graphs.take_counts() == GraphCounts(skipped=1)


@pytest.mark.parametrize("plan", ["none", "trie", "beam:20+children"])
def test_lists_are_those_of_models_without_graphs(
    speculation: Speculation, graphs: GraphedModel, draft_graphs: GraphedModel, plan: str
) -> None:
    requests = speculation.requests(40, np.random.default_rng(3))
    plain = run(speculation.engine(4), requests, np.random.default_rng(4))
    engine = SpeculativeBeamEngine(graphs, speculation.tries[4], draft_graphs, speculation.engine(4, plan).plan)
    graphs.take_counts()
    draft_graphs.take_counts()
    results = run(engine, requests, np.random.default_rng(5))
    for request_id, expected in plain.items():
        assert [item.item for item in results[request_id].items] == [item.item for item in expected.items]
        np.testing.assert_allclose([item.score for item in results[request_id].items], [item.score for item in expected.items], atol=1e-4)
    counts = graphs.take_counts()
    assert counts.replayed > 0
    assert counts.skipped > 0
    assert (draft_graphs.take_counts().replayed > 0) == ("beam" in plan)


def test_a_replay_sees_nothing_of_the_one_before(graphs: GraphedModel, speculation: Speculation) -> None:
    """A long prompt in the bucket first, then a short one with another slot behind each column."""
    tree = TokenTree(speculation.target.total_slots, 4, torch.device("cpu"))
    rng, alone = np.random.default_rng(2), SameModel(speculation.target)
    graphs.take_counts()
    for shapes in ([(240, 4), (200, 3)], [(0, 4), (0, 2)], [(0, 4)], [(3, 1)]):
        batch = random_batch(tree, rng, shapes, None)
        alone._caches = [cache.clone() for cache in graphs._model._caches]
        np.testing.assert_allclose(graphs.score(batch).logits().numpy(), alone.score(batch).logits().numpy(), atol=1e-5)
    assert graphs.take_counts() == GraphCounts(replayed=4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_cuda_graphs_replay_and_a_failed_recording_leaves_the_stream_as_it_was() -> None:
    device = torch.device("cuda", torch.cuda.current_device())
    given, recorder = torch.arange(4.0, device=device), CudaRecorder(device)
    replays = [recorder(lambda factor=factor: given * factor) for factor in (2, 3)]
    given += 1
    assert [replay().tolist() for replay in replays] == [[2, 4, 6, 8], [3, 6, 9, 12]]
    before = torch.cuda.current_stream()
    with pytest.raises(RuntimeError):
        recorder(lambda: given * given.sum().item())
    assert torch.cuda.current_stream() == before
    assert (given * 2).tolist() == [2, 4, 6, 8]


def fail_while_recording(*_: object) -> None:
    """As on a GPU, where the end of a failed recording fails too, and says less."""
    try:
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors might be reported later")
    finally:
        raise RuntimeError("capture ended in another state")


def run_out_of_memory(*_: object) -> None:
    raise torch.OutOfMemoryError("tried to allocate 2 GiB")


@pytest.mark.parametrize(
    ("recording", "sentence"),
    [
        (fail_while_recording, "serve it without: operation not permitted when stream is capturing$"),
        (run_out_of_memory, "no memory left for CUDA graphs: give keys and values less"),
    ],
)
def test_a_recording_that_fails_is_a_sentence_with_the_cause(
    recording: Callable[..., None], sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("verification.hosts.graphs.CudaRecorder", lambda device: None)
    monkeypatch.setattr("verification.hosts.graphs.GraphedModel", recording)
    with pytest.raises(HostError, match=sentence):
        graphed(SimpleNamespace(device=torch.device("cuda"), has_encoder=False), 1, 100)


def test_graphs_on_a_cpu_are_refused(speculation: Speculation) -> None:
    model: TreeModel = speculation.target
    with pytest.raises(HostError, match="need a GPU"):
        graphed(model, 1, 100)
