"""The systems that are compared: our engine, and what users have without it.

Invariant: each system gets the same prompt on the same checkpoint and reports only the time of its own search; loading, warm-up and the
translation of its answer stay outside.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from drafting.catalog import Catalog
from drafting.prompt import PromptBuilder, PromptTemplate
from verification.hosts.checkpoint import load_tokenizer

IntArray = npt.NDArray[np.int64]
Identifiers = list[tuple[int, ...]]


@dataclass(frozen=True)
class Outcome:
    """One search.

    Attributes:
        seconds: wall-clock time.
        identifiers: the k identifiers found as token ids, best first.
        target_forwards: forwards of the model.
        tokens: tokens in all of these forwards; 0 where the system does not tell.
    """

    seconds: float
    identifiers: Identifiers
    target_forwards: int
    tokens: int = 0


class System(Protocol):
    """Something that finds the k best identifiers after a history (catalog indices, oldest first)."""

    def search(self, history: list[int], k: int) -> Outcome: ...


class EngineSystem:
    """This project's engine, one request at a time."""

    def __init__(self, target: Path, catalog: Catalog, host: str, threads: int) -> None:
        from verification.recommender import Recommender

        self._recommender = Recommender.load(target, catalog, host=host, threads=threads, kv_memory_gib=0.5)
        self._identifiers = catalog.token_ids(load_tokenizer(target).get_vocab())

    def search(self, history: list[int], k: int) -> Outcome:
        engine = self._recommender.engine
        started = time.perf_counter()
        engine.add(self._recommender.request("", history, k))
        tokens = forwards = 0
        finished: tuple[Any, ...] = ()
        while not finished:
            report = engine.step()
            finished, tokens, forwards = report.finished, tokens + report.tokens, forwards + 1
        seconds = time.perf_counter() - started
        first = {item.rank: item.item for item in reversed(finished[0].items)}
        return Outcome(seconds, [tuple(self._identifiers[first[rank]].tolist()) for rank in sorted(first)], forwards, tokens)


class PrefixTable:
    """Valid next tokens of every prefix in a dictionary: the trie that users of `prefix_allowed_tokens_fn` write."""

    def __init__(self, identifiers: IntArray) -> None:
        follows: dict[tuple[int, ...], set[int]] = {}
        for row in map(tuple, identifiers.tolist()):
            for depth, token in enumerate(row):
                follows.setdefault(row[:depth], set()).add(token)
        self.next = {prefix: sorted(tokens) for prefix, tokens in follows.items()}

    def after(self, prompt_length: int) -> Callable[[int, torch.Tensor], list[int]]:
        """The function that `generate` asks for the allowed tokens."""
        return lambda _, tokens: self.next[tuple(tokens[prompt_length:].tolist())]


class GenerateSystem:
    """transformers' `generate` with beams constrained by a prefix function."""

    def __init__(self, target: Path, catalog: Catalog, threads: int) -> None:
        from transformers import AutoModelForCausalLM

        torch.set_num_threads(threads)
        tokenizer = load_tokenizer(target)
        identifiers = catalog.token_ids(tokenizer.get_vocab())
        self._prompts = PromptBuilder(PromptTemplate.load(target), tokenizer, identifiers)
        self._table = PrefixTable(identifiers)
        self._depth = catalog.identifier_length
        self._model: Any = AutoModelForCausalLM.from_pretrained(target).eval()

    def search(self, history: list[int], k: int) -> Outcome:
        started = time.perf_counter()
        prompt = self._prompts.build(history)
        sequences, _ = generate_beams(self._model, prompt[None], self._table, k, self._depth)
        return Outcome(time.perf_counter() - started, [tuple(row) for row in sequences.tolist()], self._depth)


@torch.inference_mode()
def generate_beams(model: Any, prompts: IntArray, table: PrefixTable, k: int, depth: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Constrained beam search by transformers.

    Args:
        prompts: `[prompts, tokens]`.

    Returns:
        identifiers `[prompts * k, depth]`, best first, and the sums of their log-probabilities `[prompts * k]`; None for k = 1, where
        transformers searches greedily and reports no score.
    """
    tokens = torch.from_numpy(prompts)
    output = model.generate(
        tokens,
        attention_mask=torch.ones_like(tokens),
        num_beams=k,
        num_return_sequences=k,
        max_new_tokens=depth,
        do_sample=False,
        length_penalty=0.0,
        prefix_allowed_tokens_fn=table.after(tokens.shape[1]),
        return_dict_in_generate=True,
        output_scores=True,
    )
    return output.sequences[:, tokens.shape[1] :], output.sequences_scores if k > 1 else None


def make_system(name: str, target: Path, catalog: Catalog, threads: int) -> System:
    """The system called `atspeed/vllm`, `atspeed/transformers`, `vllm` or `transformers`."""
    if name == "vllm":
        from verification.hosts.vllm_beam_search import VllmBeamSearch

        return VllmBeamSearch(target, catalog, threads)
    makers: dict[str, Callable[[], System]] = {
        "atspeed/vllm": lambda: EngineSystem(target, catalog, "vllm", threads),
        "atspeed/transformers": lambda: EngineSystem(target, catalog, "transformers", threads),
        "transformers": lambda: GenerateSystem(target, catalog, threads),
    }
    return makers[name]()
