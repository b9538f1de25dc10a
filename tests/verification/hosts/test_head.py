"""Linear heads: the normaliser in blocks, and a vocabulary that several devices share."""

import pickle
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from drafting.trie.token_set import TokenSet
from tests.verification.hosts.test_vllm import needs_vllm
from verification.hosts.head import LinearHead, Treatment

CPU = torch.device("cpu")


@pytest.mark.parametrize("treatment", [Treatment(), Treatment(0.5, 20.0)])
def test_the_normaliser_is_that_of_all_logits(treatment: Treatment, monkeypatch: pytest.MonkeyPatch):
    """Blocks of tokens and of rows that divide neither; a block of nothing but -inf adds nothing, and NaN stays where it is."""
    monkeypatch.setattr("verification.hosts.head.SUMMED_TOKENS", 16)
    monkeypatch.setattr("verification.hosts.head.SUMMED_ROWS", 3)
    torch.manual_seed(0)
    states, bias = torch.randn(8, 12) * 9, torch.randn(50)
    bias[16:32] = float("-inf") if treatment.cap is None else 0.0
    states[5] = float("nan")
    head = LinearHead(torch.randn(50, 12), bias, 50, treatment)
    torch.testing.assert_close(head.log_normaliser(states), head.logits(states).logsumexp(1), equal_nan=True)


def test_a_device_that_is_given_its_work_ahead_is_given_few_operations(monkeypatch: pytest.MonkeyPatch):
    """Some hundred of a head of 150,000 tokens would take as long as the layers before it."""
    torch.manual_seed(0)
    head, states = LinearHead(torch.randn(150_000, 2), None, 150_000, Treatment()), torch.randn(600, 2)
    expected = head.log_normaliser(states)
    monkeypatch.setattr("verification.hosts.head.is_async", lambda device: True)
    with Counted() as made:
        found = head.log_normaliser(states)
    assert made.operations < 70
    torch.testing.assert_close(found, expected)


class Counted(TorchDispatchMode):
    """Counts operations."""

    operations = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.operations += 1
        return func(*args, **(kwargs or {}))


class Ranks:
    """vLLM's collectives over threads, one of each rank."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._barrier = threading.Barrier(size, timeout=30)
        self._given: dict[int, Tensor] = {}
        self._rank = threading.local()

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return torch.stack(self._all(tensor)).sum(0)

    def all_gather(self, tensor: Tensor) -> Tensor:
        return torch.cat(self._all(tensor), -1)

    def _all(self, tensor: Tensor) -> list[Tensor]:
        self._given[self._rank.number] = tensor
        self._barrier.wait()
        given = [self._given[rank] for rank in range(self.size)]
        self._barrier.wait()
        return given

    def run(self, work: Callable[[int], Tensor]) -> list[Tensor]:
        """What `work` answers on each rank."""
        answers: dict[int, Tensor] = {}

        def on(rank: int) -> None:
            self._rank.number = rank
            answers[rank] = work(rank)

        threads = [threading.Thread(target=on, args=(rank,)) for rank in range(self.size)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[rank] for rank in range(self.size)]


@needs_vllm
@pytest.mark.parametrize(("vocabulary", "size"), [(300, 2), (301, 4), (50, 2)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_shares_of_a_vocabulary_by_vllm_make_all_logits(vocabulary: int, size: int, has_bias: bool, monkeypatch: pytest.MonkeyPatch):
    """Sharded as vLLM shards it, padded to 64 rows, so that a rank may hold less than the others, or padding alone."""
    from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

    from verification.hosts import vllm_head

    ranks, padded = Ranks(size), -(-vocabulary // (64 * size)) * 64 * size
    monkeypatch.setattr(vllm_head, "tensor_model_parallel_all_reduce", ranks.all_reduce)
    monkeypatch.setattr(vllm_head, "tensor_model_parallel_all_gather", ranks.all_gather)
    torch.manual_seed(0)
    # Padding that were read would be seen.
    weight, bias = torch.full((padded, 16), 1e4), torch.full((padded,), 1e4)
    weight[:vocabulary], bias[:vocabulary] = torch.randn(vocabulary, 16), torch.randn(vocabulary)
    processor = SimpleNamespace(head_dtype=None, logits_as_input=False, org_vocab_size=vocabulary, scale=2.0, soft_cap=5.0)
    heads = []
    for rank in range(size):
        shard = VocabParallelEmbedding._get_indices(padded, padded, vocabulary, vocabulary, rank, size)
        rows = slice(rank * padded // size, (rank + 1) * padded // size)
        layer = SimpleNamespace(quant_method=UnquantizedEmbeddingMethod(), weight=weight[rows], shard_indices=shard, tp_size=size)
        heads.append(vllm_head._share(processor, layer, bias[rows] if has_bias else None, torch.float32))
    whole = LinearHead(weight, bias if has_bias else None, vocabulary, Treatment(2.0, 10.0))
    states = torch.randn(7, 16)
    for answer in ranks.run(lambda rank: heads[rank].log_normaliser(states)):
        torch.testing.assert_close(answer, whole.log_normaliser(states))
    # A range over two shares, one within a share, tokens with gaps, and the last ones alone.
    last, sets = vocabulary - 1, vllm_head.LivingSets()
    for numbers in (range(3, vocabulary - 2), range(3, 9), (0, 5, vocabulary // 2, last - 1), (last - 7, last)):
        tokens = TokenSet(np.array(numbers), CPU)
        sent = sets.of(tokens)
        for answer in ranks.run(lambda rank, tokens=tokens, sent=sent: heads[rank].project(states, tokens, *sent)):
            torch.testing.assert_close(answer, whole.project(states, tokens))
        # What another process sends is an equal set, but never the same object: weights are gathered once even so.
        for head in heads:
            assert head._own(pickle.loads(pickle.dumps(tokens)), *sets.of(tokens))[1] is head._own(tokens, *sent)[1]


@needs_vllm
def test_weights_that_vllm_gathered_for_a_catalog_that_is_gone_are_freed(monkeypatch: pytest.MonkeyPatch):
    """Through the calls that other processes get: ten versions of two levels come, each a while beside the one before."""
    from verification.hosts import vllm_head

    monkeypatch.setattr(vllm_head, "tensor_model_parallel_all_reduce", lambda logits: logits)
    linear = LinearHead(torch.randn(60, 8), None, 60, Treatment())
    worker = vllm_head.HeadWorker()
    worker.tree_head, worker.device, worker.rank = vllm_head.ShardedHead(linear, 0, is_sharded=True), CPU, 0

    def call(method: str, args: tuple[object, ...]) -> list[Tensor]:
        return [getattr(worker, method)(*pickle.loads(pickle.dumps(args)))]

    states, versions = torch.randn(2, 8), []
    head = vllm_head.VllmHead(call, 60, vllm_head.LivingSets())
    for version in range(10):
        versions = [*versions[-1:], [TokenSet(np.array([level, level + 2 + version, 50]), CPU) for level in (0, 20)]]
        for tokens in [tokens for levels in versions for tokens in levels] * 2:
            torch.testing.assert_close(head.project(states, tokens), linear.logits(states)[:, tokens.ids])
        assert len(linear._gathered) == 2 * len(versions)
