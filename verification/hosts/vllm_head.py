"""The head of a model that vLLM has loaded: each device's share of the vocabulary, and how shares come together.

Invariant: what stands here is what `compute_logits` of the model was seen to do: one logits processor of vLLM's own over one layer of plain
weights, and nothing behind it. Every rank computes the logits of its own tokens; sums over ranks are vLLM's collectives.
"""

from collections.abc import Callable, Collection
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from vllm.distributed import tensor_model_parallel_all_gather, tensor_model_parallel_all_reduce
from vllm.model_executor.layers.logits_processor import LogitsProcessor
from vllm.model_executor.layers.vocab_parallel_embedding import UnquantizedEmbeddingMethod, VocabParallelEmbedding

from drafting.trie.token_set import TokenSet
from verification.hosts.head import LinearHead, Treatment, in_place_of
from verification.hosts.vllm_attention import INT8
from verification.hosts.vllm_int8 import Int8Head


class LivingSets:
    """The sets of tokens that workers have been sent, while they live in this process.

    In another process a set is a new object each time, which lives no longer than its call: numbers say which are the same, and which live.
    """

    def __init__(self) -> None:
        self._numbers: WeakKeyDictionary[TokenSet, int] = WeakKeyDictionary()
        self._count = count()

    def of(self, tokens: TokenSet) -> tuple[int, list[int]]:
        """The number of a set, and those of all that live."""
        if tokens not in self._numbers:
            self._numbers[tokens] = next(self._count)
        return self._numbers[tokens], list(self._numbers.values())


class ShardedHead:
    """This rank's share of a head, `linear`, whose first token is number `first` of the vocabulary."""

    def __init__(self, linear: LinearHead, first: int, is_sharded: bool) -> None:
        self._linear = linear
        self._first = first
        self._is_sharded = is_sharded
        self._owned: dict[int, tuple[slice, TokenSet | None]] = {}

    def project(self, states: Tensor, tokens: TokenSet, number: int, living: Collection[int]) -> Tensor:
        """As `Head.project`, on every rank; see `LivingSets.of` for `number` and `living`."""
        if not self._is_sharded:
            return self._linear.project(states, tokens)
        columns, own = self._own(tokens, number, living)
        logits = torch.zeros(len(states), len(tokens), device=states.device)
        if own is not None:
            logits[:, columns] = self._linear.project(states, own)
        summed: Tensor = tensor_model_parallel_all_reduce(logits)
        return summed

    @property
    def makes_logits(self) -> bool:
        """True if all logits are made here, because vLLM would make them otherwise."""
        return isinstance(self._linear, Int8Head) and not self._is_sharded

    def logits(self, states: Tensor) -> Tensor:
        """As `Head.logits`, of this rank's tokens."""
        return self._linear.logits(states)

    def _own(self, tokens: TokenSet, number: int, living: Collection[int]) -> tuple[slice, TokenSet | None]:
        """Where this rank's tokens stand among `tokens`, and these, counted from its first; None if there are none.

        They are kept, and with them the weights that are gathered for them, as long as the caller's set lives.
        """
        for dead in self._owned.keys() - living:
            del self._owned[dead]
        if number not in self._owned:
            local = tokens.numbers - self._first
            begin, end = local.searchsorted([0, self._linear.vocabulary]).tolist()
            own = TokenSet(local[begin:end], self._linear.weight.device) if begin < end else None
            self._owned[number] = slice(begin, end), own
        return self._owned[number]

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As `Head.log_normaliser`, on every rank."""
        if not self._is_sharded:
            return self._linear.log_normaliser(states)
        # A share may be nothing but padding.
        empty = states.new_full((len(states),), float("-inf"), dtype=torch.float32)
        own = self._linear.log_normaliser(states) if self._linear.vocabulary else empty
        gathered: Tensor = tensor_model_parallel_all_gather(own[:, None])
        return gathered.logsumexp(1)


def _state_size(model: Any, hidden_size: int) -> int | None:
    """Size of the states that a model's head reads; None if it is not known.

    Some families project what their layers write onto smaller embeddings. vLLM's products on a CPU don't check sizes: they write beyond.
    """
    sizes = {module.embedding_dim for module in model.modules() if isinstance(module, VocabParallelEmbedding)}
    if hidden_size in sizes:
        return hidden_size
    return sizes.pop() if len(sizes) == 1 else None


def _find_head(model: Any, states: Tensor, kind: type[LinearHead]) -> ShardedHead | None:
    """This rank's share of a model's head; None if its logits come about otherwise.

    Args:
        states: `[1, size]`, with which it is tried.
        kind: what multiplies by its weights.
    """
    processors = [module for module in model.modules() if type(module) is LogitsProcessor]
    calls: list[tuple[nn.Module, Tensor | None]] = []
    answers: list[Tensor | None] = []
    with ExitStack() as patched:
        for processor in processors:

            def recorded(head: Any, states: Tensor, bias: Tensor | None = None, run: Any = processor.forward) -> Tensor | None:
                calls.append((head, bias))
                answers.append(run(head, states, bias))
                return answers[-1]

            patched.enter_context(in_place_of(processor, recorded))
        answer = model.compute_logits(states)
    if len(processors) != 1 or len(calls) != 1 or answer is not answers[0]:
        return None
    (processor,), ((layer, bias),) = processors, calls
    return _share(processor, layer, bias, states.dtype, kind)


def _share(processor: Any, layer: Any, bias: Tensor | None, dtype: torch.dtype, kind: type[LinearHead] = LinearHead) -> ShardedHead | None:
    is_plain = type(layer.quant_method) is UnquantizedEmbeddingMethod and layer.weight.dtype == dtype == (processor.head_dtype or dtype)
    if not is_plain or processor.logits_as_input or len(layer.weight.shape) != 2 or not len(layer.weight):
        return None
    shard = layer.shard_indices
    first, last = shard.org_vocab_start_index, min(shard.org_vocab_end_index, processor.org_vocab_size)
    # vLLM caps before it scales.
    cap = None if processor.soft_cap is None else processor.soft_cap * processor.scale
    linear = kind(layer.weight.detach(), bias, max(last - first, 0), Treatment(processor.scale, cap))
    return ShardedHead(linear, first, layer.tp_size > 1)


class HeadWorker:
    """The head in vLLM's worker; runs on every tensor-parallel rank, and answers on the first."""

    vllm_config: Any
    model_runner: Any
    device: torch.device
    rank: int

    tree_head: ShardedHead | None

    @torch.inference_mode()
    def find_head(self) -> bool:
        """Prepare projections onto some tokens; false if all logits have to be made."""
        model, config = self.model_runner.get_model(), self.vllm_config.model_config
        size = _state_size(model, config.get_hidden_size())
        self.tree_head = None
        if size is not None:
            kind = Int8Head if config.quantization == INT8 else LinearHead
            self.tree_head = _find_head(model, torch.zeros(1, size, dtype=config.dtype, device=self.device), kind)
        return self.tree_head is not None

    @torch.inference_mode()
    def tree_logits(self, states: Tensor) -> Tensor | None:
        """Logits `[rows, vocabulary]` of states."""
        if self.tree_head is not None and self.tree_head.makes_logits:
            return self.tree_head.logits(states)
        logits: Tensor | None = self.model_runner.get_model().compute_logits(states.to(self.device))
        return logits if self.rank == 0 else None

    @torch.inference_mode()
    def tree_project(self, states: Tensor, tokens: TokenSet, number: int, living: Collection[int]) -> Tensor | None:
        """See `ShardedHead.project`."""
        assert self.tree_head is not None
        logits = self.tree_head.project(states.to(self.device), tokens, number, living)
        return logits if self.rank == 0 else None

    @torch.inference_mode()
    def tree_log_normaliser(self, states: Tensor) -> Tensor | None:
        """See `Head.log_normaliser`."""
        assert self.tree_head is not None
        normaliser = self.tree_head.log_normaliser(states.to(self.device))
        return normaliser if self.rank == 0 else None


@dataclass(frozen=True)
class VllmHead:
    """The head of a model in vLLM's workers, which `call` calls."""

    call: Callable[..., list[Tensor]]
    vocabulary: int
    sets: LivingSets

    def logits(self, states: Tensor) -> Tensor:
        """As `Head.logits`."""
        return self.call("tree_logits", args=(states,))[0][:, : self.vocabulary]

    def project(self, states: Tensor, tokens: TokenSet) -> Tensor:
        """As `Head.project`."""
        return self.call("tree_project", args=(states, tokens, *self.sets.of(tokens)))[0]

    def log_normaliser(self, states: Tensor) -> Tensor:
        """As `Head.log_normaliser`."""
        return self.call("tree_log_normaliser", args=(states,))[0]
