"""Slow, obvious implementations to compare the fast ones with."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from transformers import AutoModelForCausalLM


class DictTrie:
    """Valid next tokens of a prefix, one dict entry per prefix."""

    def __init__(self, identifiers: np.ndarray) -> None:
        self.next: dict[tuple[int, ...], list[int]] = {}
        for row in {tuple(map(int, row)) for row in identifiers}:
            for depth in range(len(row)):
                self.next.setdefault(row[:depth], [])
                if row[depth] not in self.next[row[:depth]]:
                    self.next[row[:depth]].append(row[depth])
        for tokens in self.next.values():
            tokens.sort()

    def allow(self, prompt_length: int) -> Callable[[int, torch.Tensor], list[int]]:
        return lambda _, tokens: self.next[tuple(tokens[prompt_length:].tolist())]


def generate_lists(
    model: AutoModelForCausalLM, prompts: Sequence[np.ndarray], trie: DictTrie, k: int, depth: int
) -> list[list[tuple[tuple[int, ...], float]]]:
    """transformers' constrained beam search over prompts of one length: per prompt, k pairs of identifier and score, best first.

    `length_penalty=0` makes transformers report the sum of log-probabilities, not their mean.
    """
    tokens = torch.tensor(np.stack(prompts))
    with torch.inference_mode():
        output = model.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            num_beams=k,
            num_return_sequences=k,
            max_new_tokens=depth,
            do_sample=False,
            length_penalty=0.0,
            early_stopping=False,
            prefix_allowed_tokens_fn=trie.allow(tokens.shape[1]),
            return_dict_in_generate=True,
            output_scores=True,
        )
    scores = _path_scores(model, output.sequences, tokens.shape[1]) if k == 1 else output.sequences_scores
    pairs = [(tuple(row[tokens.shape[1] :].tolist()), float(score)) for row, score in zip(output.sequences, scores, strict=True)]
    return [pairs[start : start + k] for start in range(0, len(pairs), k)]


def _path_scores(model: AutoModelForCausalLM, sequences: torch.Tensor, prompt_length: int) -> torch.Tensor:
    """Log-probability of what follows the prompt, `[sequences]`; greedy search reports none."""
    with torch.inference_mode():
        log_probs = model(sequences).logits[:, prompt_length - 1 : -1].log_softmax(-1)
    return log_probs.gather(2, sequences[:, prompt_length:, None]).sum((1, 2))


def brute_force_beam(
    score: Callable[[list[tuple[int, ...]]], np.ndarray], identifiers: np.ndarray, allowed: np.ndarray, k: int, beam_width: int
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search written out over the allowed items' prefixes.

    Args:
        score: log-probabilities `[prefixes, vocabulary]` of the token after each prefix.
        allowed: `[items]` bool.
    """
    eligible = [tuple(map(int, row)) for row in identifiers[allowed]]
    depth = identifiers.shape[1]
    beam: list[tuple[tuple[int, ...], float]] = [((), 0.0)]
    for level in range(1, depth + 1):
        prefixes = {row[:level] for row in eligible}
        log_probs = score([prefix for prefix, _ in beam])
        grown = [
            ((*prefix, token), total + float(log_probs[rank, token]))
            for rank, (prefix, total) in enumerate(beam)
            for token in sorted({p[-1] for p in prefixes if p[:-1] == prefix})
        ]
        grown.sort(key=lambda pair: -pair[1])
        beam = grown[: k if level == depth else beam_width]
    return beam
