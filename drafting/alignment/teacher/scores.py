"""Teacher scores: the target's distributions at every answer and tree node, level by level.

Invariant: a distribution is the target's softmax over the codes of its level. Its largest probabilities, and those of the codes with which
lists continue, are stored one by one (float16, three digits); the rest is one mass, shared evenly by the other codes when it is read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.alignment.levels import LevelCodes
from drafting.alignment.tree_batch import TreeWindows, answer_rows, tree_batch
from drafting.array_types import IntArray
from drafting.trie.arrays import offsets_of, ranges

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class TopCodes:
    """The stored entries of distributions.

    Attributes:
        codes: `[rows, top]` int16; the number of codes of the widest level where there is no entry.
        probabilities: `[rows, top]` float16.
    """

    codes: npt.NDArray[np.int16]
    probabilities: npt.NDArray[np.float16]

    @classmethod
    def empty(cls, rows: int, top: int, levels: LevelCodes) -> "TopCodes":
        """Allocate `rows` rows without entries."""
        return cls(np.full((rows, top), levels.widest, np.int16), np.zeros((rows, top), np.float16))


def dense(codes: Tensor, probabilities: Tensor, size: int) -> Tensor:
    """Distributions over a level of `size` codes from stored entries, `[rows, size]`; the other codes share the rest evenly.

    Args:
        codes: `[rows, top]` int64; `size` or more where there is no entry.
        probabilities: `[rows, top]` float32.
    """
    kept = codes < size
    held = probabilities.masked_fill(~kept, 0.0)
    rest = (1.0 - held.sum(1)).clamp(min=0.0) / (size - kept.sum(1)).clamp(min=1)
    full = rest[:, None].repeat(1, size + 1).scatter_(1, codes.clamp(max=size), held)[:, :size]
    return full / full.sum(1, keepdim=True)


@torch.inference_mode()
def score_windows(
    model: torch.nn.Module, windows: TreeWindows, taken: npt.NDArray[np.int16], levels: LevelCodes, top: int
) -> tuple[TopCodes, TopCodes]:
    """Compute the distributions of `model` at the answers and the nodes.

    Args:
        taken: `[nodes, codes]`, see `ListTrees`; the codes with which lists continue are always stored.
        top: number of codes to store per distribution.

    Returns:
        entries of the answers (`[answers of all windows]` rows) and of the nodes (`[nodes]` rows).
    """
    device = next(model.parameters()).device
    answers = TopCodes.empty(int(windows.answers.sum()), top, levels)
    nodes = TopCodes.empty(len(windows.node_token), top, levels)
    answer_offsets = offsets_of(windows.answers)
    for chosen in _batches(windows):
        batch, positions = tree_batch(windows, chosen, pad_token_id=0)
        inputs = {name: batch[name].to(device) for name in ("input_ids", "position_ids", "attention_mask")}
        logits = model(**inputs, use_cache=False).logits.flatten(0, 1)
        counts = windows.answers[chosen]
        rows = ranges(answer_offsets[chosen], counts)
        answer_levels = np.arange(len(rows)) % len(levels.sizes)
        _keep(answers, rows, logits[answer_rows(batch["labels"]).to(device)], answer_levels, levels, None)
        node_rows = torch.from_numpy(positions.row * batch["input_ids"].shape[1] + positions.column).to(device)
        _keep(nodes, positions.index, logits[node_rows], windows.node_depth[positions.index], levels, taken)
    return answers, nodes


def _batches(windows: TreeWindows) -> Iterator[IntArray]:
    """Batches of windows of similar widths, each of at most `BATCH_TOKENS` padded tokens or of one window."""
    widths = windows.widths(trees=True)
    order = np.argsort(widths, kind="stable")
    start = 0
    while start < len(order):
        ends = np.arange(start + 1, len(order) + 1)
        fitting = int(np.count_nonzero(widths[order[start:]] * (ends - start) <= BATCH_TOKENS))
        yield order[start : start + max(1, fitting)]
        start += max(1, fitting)


def _keep(
    kept: TopCodes, rows: IntArray, logits: Tensor, row_levels: IntArray, levels: LevelCodes, taken: npt.NDArray[np.int16] | None
) -> None:
    """Store the entries of a batch in the `rows` of `kept`."""
    top = kept.codes.shape[1]
    for level, tokens in enumerate(levels.tokens):
        here = np.flatnonzero(row_levels == level)
        codes = torch.from_numpy(tokens).to(logits.device)
        probabilities = logits[torch.from_numpy(here).to(logits.device)][:, codes].float().softmax(1)
        rank = probabilities
        if taken is not None:
            rank = rank + torch.from_numpy(taken[rows[here], : len(tokens)] > 0).to(logits.device)
        best = rank.topk(min(top, len(tokens)), dim=1).indices
        width = best.shape[1]
        kept.codes[rows[here], :width] = best.cpu().numpy()
        kept.probabilities[rows[here], :width] = probabilities.gather(1, best).cpu().numpy()
