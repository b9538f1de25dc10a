"""vLLM's `beam_search`: plain, or constrained to the catalog by a grammar over tokens (`structured_outputs`).

Its best form: xgrammar's `Token(id)`, a rule for each distinct set of what can follow, and log-probabilities that are made after the mask
(`processed_logprobs`). With the default, `raw_logprobs`, the best 2 x width tokens of the whole vocabulary are taken first and those that
the grammar forbids are dropped, so lists come out short. And a prefix cache of small blocks, so that a list's beams share their prompt.
"""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR"}

import torch
from vllm import LLM
from vllm.sampling_params import BeamSearchParams, StructuredOutputsParams

# The most `logprobs` that a request may ask for; beam search asks for twice the width.
MOST_LOGPROBS = 2048
# Tokens of a block, which is cached whole or not at all: on CPUs 128 by default, and no fewer than these.
CPU_BLOCK = 32


def trie_grammar(identifiers: Any) -> str:
    """A grammar of exactly these rows `[items, depth]` of token ids; prefixes that the same may follow share a rule."""
    follows: dict[tuple[int, ...], dict[int, None]] = {}
    for row in map(tuple, identifiers.tolist()):
        for depth, token in enumerate(row):
            follows.setdefault(row[:depth], {})[token] = None
    rules: dict[str, str] = {}

    def rule(prefix: tuple[int, ...]) -> str:
        choices = (
            f"Token({token}) {rule((*prefix, token))}" if (*prefix, token) in follows else f"Token({token})" for token in follows[prefix]
        )
        return rules.setdefault(" | ".join(choices), f"r{len(rules)}")

    root = rule(())
    return "\n".join([f"root ::= {root}", *(f"{name} ::= {body}" for body, name in rules.items())])


def load(spec: dict[str, Any]) -> Callable[..., list[list[int]]]:
    """Load the target into an engine of this process."""
    torch.set_num_threads(spec["threads"])
    identifiers = np.load(spec["identifiers"])
    llm = LLM(
        spec["target"],
        dtype=spec["dtype"],
        block_size=None if torch.cuda.is_available() else CPU_BLOCK,
        max_model_len=512,
        max_logprobs=MOST_LOGPROBS,
        logprobs_mode=spec["logprobs"],
        structured_outputs_config={"backend": "xgrammar"},
        enforce_eager=True,
        kv_cache_memory_bytes=2**29,
        distributed_executor_backend="uni",
        disable_log_stats=True,
    )
    constraint = StructuredOutputsParams(grammar=trie_grammar(identifiers)) if spec["constrained"] else None

    def search(prompt: list[int], k: int) -> list[list[int]]:
        depth = identifiers.shape[1]
        params = BeamSearchParams(beam_width=k, max_tokens=depth, ignore_eos=True, structured_outputs=constraint)
        output = llm.beam_search([{"prompt_token_ids": prompt}], params, use_tqdm=False)[0]
        # As our engine does: the same prompts come again for lists of other lengths.
        llm.reset_prefix_cache()
        return [list(sequence.tokens[len(prompt) :]) for sequence in output.sequences]

    return search
