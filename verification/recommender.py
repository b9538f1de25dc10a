"""The recommender: a model, its prompt, a catalog and an engine that fit together, made from a model directory.

This is what a notebook, the offline command and the engine process use; they differ only in where requests come from. Invariant: nothing
that could make a request fail is left unchecked here, so a recommender that loads can serve every request within its limits.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch

from drafting.catalog import Catalog
from drafting.prompt import PromptBuilder, PromptTemplate
from drafting.tree import TreeModel
from drafting.trie import ItemTrie
from verification.engine import SpeculativeBeamEngine
from verification.hosts.checkpoint import HostError, load_config, load_tokenizer
from verification.request import BeamRequest, BeamResult

OFFLINE_BATCH_TOKENS = 1024


class Recommender:
    """Makes requests out of histories and searches them on one engine."""

    def __init__(self, catalog: Catalog, prompts: PromptBuilder, target: TreeModel, trie: ItemTrie, model_name: str) -> None:
        """`trie` must hold the catalog's identifiers as the target's token ids, on the target's device."""
        self.catalog = catalog
        self.prompts = prompts
        self.model_name = model_name
        self.engine = SpeculativeBeamEngine(target, trie)
        self._target = target

    @classmethod
    def load(
        cls,
        target: Path,
        catalog: Catalog,
        *,
        host: str = "transformers",
        dtype: str = "auto",
        threads: int | None = None,
        kv_memory_gib: float = 1.0,
        tensor_parallel: int = 1,
    ) -> "Recommender":
        """Loads a model directory for a catalog.

        Args:
            host: "vllm" or "transformers".
            dtype: "auto", "float32", "bfloat16" or "float16".
            threads: CPU threads for the model; None leaves torch's choice.
            kv_memory_gib: memory for keys and values.
            tensor_parallel: how many devices share the model (vLLM only).

        Raises:
            HostError, CatalogError, PromptError: the parts are unusable or do not fit together; the message is a sentence.
        """
        if threads is not None:
            torch.set_num_threads(threads)
        config = load_config(target)
        tokenizer = load_tokenizer(target)
        identifiers = catalog.token_ids(tokenizer.get_vocab())
        prompts = PromptBuilder(PromptTemplate.load(target), tokenizer, identifiers)
        longest = prompts.max_tokens + catalog.identifier_length
        if longest > config.max_position_embeddings:
            raise HostError(
                f"The prompt can grow to {prompts.max_tokens} tokens and an identifier adds {catalog.identifier_length}, but the model in "
                f"{target} reads at most {config.max_position_embeddings}: lower max_items in its prompt.json."
            )
        if int(identifiers.max()) >= config.vocab_size:
            raise HostError(f"The tokenizer of {target} has tokens that its model does not know: resize the model's embeddings.")
        model = load_host(host, target, dtype=dtype, kv_memory_gib=kv_memory_gib, longest=longest, tensor_parallel=tensor_parallel)
        return cls(catalog, prompts, model, ItemTrie.build(identifiers, model.device), target.resolve().name)

    def request(
        self, request_id: str, history: Sequence[int], k: int, beam_width: int | None = None, excluded_items: Sequence[int] = ()
    ) -> BeamRequest:
        """A request for the k best identifiers after `history` (catalog indices, oldest first).

        Raises:
            PromptError: the history is empty.
            ValueError: k or the beam width is out of range.
        """
        return BeamRequest(request_id, self.prompts.build(history), k, beam_width or k, np.asarray(excluded_items, np.int64))

    def recommend(
        self,
        histories: Iterable[Sequence[int]],
        k: int,
        beam_width: int | None = None,
        excluded_items: Iterable[Sequence[int]] | None = None,
    ) -> Iterator[BeamResult]:
        """Searches many histories, as many at a time as make a full forward, and yields their lists in the order given."""
        exclusions = iter(excluded_items) if excluded_items is not None else None
        finished: dict[int, BeamResult] = {}
        next_out = 0
        for number, history in enumerate(histories):
            excluded = next(exclusions) if exclusions is not None else ()
            request = self.request(str(number), history, k, beam_width, excluded)
            while self.engine.running and not self._has_room(request):
                self._advance(finished)
            self.engine.add(request)
            while next_out in finished:
                yield finished.pop(next_out)
                next_out += 1
        while self.engine.running:
            self._advance(finished)
        for number in sorted(finished):
            yield finished[number]

    def _has_room(self, request: BeamRequest) -> bool:
        tokens = self.engine.next_tokens() + self.engine.tokens_needed(request)
        return tokens <= OFFLINE_BATCH_TOKENS and self.engine.has_room(request)

    def _advance(self, finished: dict[int, BeamResult]) -> None:
        for result in self.engine.step().finished:
            finished[int(result.request_id)] = result

    def close(self) -> None:
        """Frees the model."""
        self._target.close()


def load_host(
    name: str, model_dir: Path, *, dtype: str, kv_memory_gib: float, longest: int | None = None, tensor_parallel: int = 1
) -> TreeModel:
    """Loads a model on the host called `name`; a host is imported only when it is asked for.

    Raises:
        HostError: no such host, or the model cannot be served on it.
    """
    if name == "transformers":
        from verification.hosts.transformers import TransformersHost

        if tensor_parallel != 1:
            raise HostError("The transformers host runs on one device: tensor parallelism needs the vLLM host.")
        return TransformersHost(model_dir, dtype=dtype, kv_memory_gib=kv_memory_gib)
    if name == "vllm":
        try:
            from verification.hosts.vllm import VllmHost
        except ImportError as error:
            raise HostError(
                f"vLLM cannot be imported ({error}): install the extra 'cpu' or 'gpu', or use the transformers host."
            ) from error
        return VllmHost(model_dir, dtype=dtype, kv_memory_gib=kv_memory_gib, longest=longest, tensor_parallel=tensor_parallel)
    raise HostError(f"There is no host {name!r}: choose 'vllm' or 'transformers'.")
