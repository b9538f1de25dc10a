"""vLLM's own `beam_search`, as users run it without this project: with its scheduler, its prefix cache and its attention.

It is asked without a grammar, so its lists may name items that do not exist; `benchmarks/rivals` asks it with one. Invariant: nothing of
ours is registered in its process, so what is timed is vLLM alone; its weights have the precision that the others compute in; and its prefix
cache serves the beams of a list, and no later question.
"""

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.systems.prompt_builder import prompt_builder
from benchmarks.systems.question import Outcome, Question
from drafting.catalog.catalog import Catalog
from verification.hosts.checkpoint import load_config, resolve_dtype

# Tokens of a block, which is cached whole or not at all: on CPUs 128 by default, more than most prompts here have, and no fewer than these.
CPU_BLOCK = 32


class VllmBeamSearch:
    """Meets `benchmarks.systems.systems.System`."""

    def __init__(self, target: Path, catalog: Catalog, threads: int) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}
        torch.set_num_threads(threads)
        from vllm import LLM
        from vllm.sampling_params import BeamSearchParams

        self._prompts = prompt_builder(target, catalog)
        self._depth = catalog.identifier_length
        self._params = BeamSearchParams
        self._llm: Any = LLM(
            str(target),
            dtype=resolve_dtype(load_config(target), "auto"),
            block_size=None if torch.cuda.is_available() else CPU_BLOCK,
            max_model_len=512,
            max_logprobs=512,  # its beam search asks for twice the beam width
            enforce_eager=True,
            kv_cache_memory_bytes=2**29,
            distributed_executor_backend="uni",
            disable_log_stats=True,
        )

    def search(self, question: Question) -> list[Outcome]:
        """Hand over as many prompts at once as the question has concurrent ones: each is done when all of them are."""
        together = question.concurrency
        groups = [question.histories[start : start + together] for start in range(0, len(question.histories), together)]
        outcomes = [outcome for group in groups for outcome in self._search(group, question.k)]
        # The same histories come again for lists of other lengths, and are to be as new to vLLM then as to the others.
        self._llm.reset_prefix_cache()
        return outcomes

    def _search(self, histories: Sequence[list[int]], k: int) -> list[Outcome]:
        prompts = [self._prompts.build(history).tolist() for history in histories]
        params = self._params(beam_width=k, max_tokens=self._depth, ignore_eos=True)
        started = time.perf_counter()
        outputs = self._llm.beam_search([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
        seconds = time.perf_counter() - started
        return [
            Outcome(seconds, [tuple(sequence.tokens[len(prompt) :]) for sequence in output.sequences], self._depth)
            for prompt, output in zip(prompts, outputs, strict=True)
        ]
