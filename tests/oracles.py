"""Slow, obvious implementations to compare the fast ones with."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from verification.evaluation.generate import PrefixTable, generate_beams


def generate_lists(
    model: Any, prompts: Sequence[np.ndarray], table: PrefixTable, k: int, depth: int, renormalise: bool = False
) -> list[list[tuple[tuple[int, ...], float]]]:
    """transformers' constrained beam search over prompts of one length: per prompt, k pairs of identifier and score, best first."""
    tokens = np.stack(prompts)
    sequences, scores = generate_beams(model, tokens, table, k, depth, renormalise)
    pairs = [(tuple(row), score) for row, score in zip(sequences.tolist(), scores.tolist(), strict=True)]
    return [pairs[start : start + k] for start in range(0, len(pairs), k)]


def brute_force_beam(
    score: Callable[[list[tuple[int, ...]]], np.ndarray],
    identifiers: np.ndarray,
    allowed: np.ndarray,
    k: int,
    beam_width: int | Sequence[int],
) -> list[tuple[tuple[int, ...], float]]:
    """Beam search written out over the allowed items' prefixes.

    Args:
        score: log-probabilities `[prefixes, vocabulary]` of the token after each prefix.
        allowed: `[items]` bool.
        beam_width: of all levels but the last, or of each of them.
    """
    eligible = [tuple(map(int, row)) for row in identifiers[allowed]]
    if not eligible:
        return []
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
        beam = grown[: k if level == depth else beam_width if isinstance(beam_width, int) else beam_width[level - 1]]
    return beam


def model_scores(model: Any, prompt: np.ndarray) -> Callable[[list[tuple[int, ...]]], np.ndarray]:
    """Log-probabilities of the token after each prefix, by plain forwards."""

    def score(prefixes: list[tuple[int, ...]]) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.tensor([[*prompt, *prefix] for prefix in prefixes])).logits[:, -1].log_softmax(-1).numpy()

    return score


def over_children(
    score: Callable[[list[tuple[int, ...]]], np.ndarray], identifiers: np.ndarray
) -> Callable[[list[tuple[int, ...]]], np.ndarray]:
    """The same, with log-probabilities normalised over the children of each prefix; -inf for other tokens."""
    rows = list(map(tuple, identifiers.tolist()))

    def normalised(prefixes: list[tuple[int, ...]]) -> np.ndarray:
        found = np.full_like(log_probs := score(prefixes), -np.inf)
        for rank, prefix in enumerate(prefixes):
            children = sorted({row[len(prefix)] for row in rows if row[: len(prefix)] == prefix})
            found[rank, children] = log_probs[rank, children] - np.logaddexp.reduce(log_probs[rank, children].astype(np.float64))
        return found

    return normalised
