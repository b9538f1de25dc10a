"""What no engine can do without: transformers' own forwards of a search's tokens, and of these the matrix products alone.

Invariant: both read as many tokens as a plain search computes at each level, with nothing before them and no cache. The prompt's forward
makes logits of its last token only, the others of all tokens. The products are those that the project's layers need, which leave out what
nobody reads (the last layer of all but a prompt's last token); norms, attention, the choice of beams and memory for results are left out.
"""

import time
from typing import Any

import torch
from torch import Tensor

from benchmarks.systems.prompt_builder import prompt_builder
from benchmarks.systems.question import Outcome, Question, SystemSpec
from drafting.catalog.loading import load_catalog
from drafting.model_files import ModelFiles
from verification.hosts.adapter import load_reference
from verification.hosts.checkpoint import load_config

BARE, PRODUCTS = "bare forwards", "products alone"


class Floor:
    """The forwards of plain searches, without the searches."""

    def __init__(self, spec: SystemSpec) -> None:
        torch.set_num_threads(spec.threads)
        catalog = load_catalog(spec.catalog)
        self._prompts = prompt_builder(spec.target, catalog)
        self._level_sizes = [catalog.trie.level_size(depth) for depth in range(1, catalog.identifier_length)]
        self._model: Any = load_reference(ModelFiles.find(spec.target), load_config(spec.target).dtype)

    @torch.inference_mode()
    def search(self, question: Question) -> list[Outcome]:
        """One outcome per history, without identifiers."""
        outcomes = []
        for history in question.histories:
            levels = [len(self._prompts.build(history)), *(min(question.k, size) for size in self._level_sizes)]
            started = time.perf_counter()
            for number, tokens in enumerate(levels):
                self.forward(tokens, tokens if number else 1)
            outcomes.append(Outcome(time.perf_counter() - started, [], len(levels), sum(levels)))
        return outcomes

    def forward(self, tokens: int, outputs: int) -> None:
        """Read so many tokens, and make the logits of the last `outputs` of them."""
        raise NotImplementedError


class BareForwards(Floor):
    """Transformers' forwards: the least that its modelling code needs."""

    def forward(self, tokens: int, outputs: int) -> None:
        self._model(
            input_ids=torch.zeros(1, tokens, dtype=torch.int64), use_cache=False, logits_to_keep=0 if outputs == tokens else outputs
        )


class ProductsAlone(Floor):
    """The products of rows and weights, of a Llama or Qwen without biases, by PyTorch's default products in the model's precision.

    Their results are written to memory that is there already. Products of packed weights, which hosts make of large ones, take less still
    (`verification.hosts.packing`).
    """

    def __init__(self, spec: SystemSpec) -> None:
        super().__init__(spec)
        self._layers = [
            [
                _joined(layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj),
                _joined(layer.self_attn.o_proj),
                _joined(layer.mlp.gate_proj, layer.mlp.up_proj),
                _joined(layer.mlp.down_proj),
            ]
            for layer in self._model.model.layers
        ]
        self._head = _joined(self._model.lm_head)
        self._results: dict[tuple[int, int], Tensor] = {}

    def forward(self, tokens: int, outputs: int) -> None:
        for layer in self._layers[:-1]:
            for weight in layer:
                self._multiply(tokens, weight)
        heads, *others = self._layers[-1]
        self._multiply(tokens, heads)
        for weight in (*others, self._head):
            self._multiply(outputs, weight)

    def _multiply(self, rows: int, weight: Tensor) -> None:
        torch.mm(self._space(rows, weight.shape[0]), weight, out=self._space(rows, weight.shape[1]))

    def _space(self, rows: int, size: int) -> Tensor:
        """`[rows, size]`, of the values that the last product of this shape has left there."""
        if (rows, size) not in self._results:
            self._results[rows, size] = torch.zeros(rows, size, dtype=self._model.dtype)
        return self._results[rows, size]


def _joined(*modules: Any) -> Tensor:
    """`[in, out]`, projections of the same rows as one, as products of few rows read them fastest."""
    return torch.cat([module.weight.detach() for module in modules]).t().contiguous()
