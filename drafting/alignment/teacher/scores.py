"""Teacher scores: the target's distributions at every answer and tree node, level by level.

Invariant: a distribution is the target's softmax over the codes of its level. Its largest probabilities, and at a node those of all codes
with which lists continue, are stored one by one (float16, three digits); the rest is one mass, shared evenly by the other codes when it is
read.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from drafting.alignment.levels import LevelCodes
from drafting.alignment.teacher.forward import TeacherForward
from drafting.alignment.teacher.taken import TakenCodes
from drafting.alignment.tree_batch import TreeWindows
from drafting.array_types import IntArray
from drafting.beam.model import TreeModel
from drafting.trie.arrays import offsets_of, ranges

BATCH_TOKENS = 8192


@dataclass(frozen=True)
class TopCodes:
    """The stored entries of distributions.

    Attributes:
        codes: `[rows, top]` of `code_type`; the number of codes of the widest level where there is no entry.
        probabilities: `[rows, top]` float16.
    """

    codes: npt.NDArray[np.int16 | np.int32]
    probabilities: npt.NDArray[np.float16]

    @classmethod
    def empty(cls, rows: int, top: int, levels: LevelCodes) -> "TopCodes":
        """Allocate `rows` rows without entries."""
        return cls(np.full((rows, top), levels.widest, code_type(levels)), np.zeros((rows, top), np.float16))


def code_type(levels: LevelCodes) -> np.dtype[np.int16 | np.int32]:
    """The type of stored codes, which holds the number of codes of the widest level, too."""
    return np.dtype(np.int16 if levels.widest <= np.iinfo(np.int16).max else np.int32)


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
    model: TreeModel, windows: TreeWindows, taken: TakenCodes, levels: LevelCodes, top: int, node_top: int
) -> tuple[TopCodes, TopCodes]:
    """Compute the distributions of `model` at the answers and the nodes.

    Args:
        model: a host with as many slots as `most_tokens` says.
        taken: the codes with which lists continue, see `ListTrees`; they are all stored.
        top: number of codes to store per answer.
        node_top: number of codes to store per node, as many as are taken from any or more; see `most_taken`.

    Returns:
        entries of the answers (`[answers of all windows]` rows) and of the nodes (`[nodes]` rows).
    """
    answers = TopCodes.empty(int(windows.answers.sum()), top, levels)
    nodes = TopCodes.empty(len(windows.node_token), node_top, levels)
    answer_offsets = offsets_of(windows.answers)
    for chosen in _batches(windows):
        forward = TeacherForward.of(windows, chosen, model.device)
        logits = model.score(forward.batch).logits()
        rows = ranges(answer_offsets[chosen], windows.answers[chosen])
        answer_levels = np.arange(len(rows)) % len(levels.sizes)
        _keep(answers, rows, logits[: forward.answers], answer_levels, levels, None)
        _keep(nodes, forward.nodes, logits[forward.answers :], windows.node_depth[forward.nodes], levels, taken)
    return answers, nodes


def most_tokens(widest: int) -> int:
    """The most tokens of a forward, for windows of at most `widest` tokens with their trees."""
    return max(BATCH_TOKENS, widest)


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


def _keep(kept: TopCodes, rows: IntArray, logits: Tensor, row_levels: IntArray, levels: LevelCodes, taken: TakenCodes | None) -> None:
    """Store the entries of a batch in the `rows` of `kept`."""
    top = kept.codes.shape[1]
    for level, tokens in enumerate(levels.tokens):
        here = np.flatnonzero(row_levels == level)
        codes = torch.from_numpy(tokens).to(logits.device)
        probabilities = logits[torch.from_numpy(here).to(logits.device)][:, codes].float().softmax(1)
        rank = probabilities
        if taken is not None:
            columns, owners = (torch.from_numpy(array).to(logits.device) for array in taken.of(rows[here]))
            # Above all that are not taken, in the order of their own probabilities.
            rank = probabilities.index_put((owners, columns), probabilities[owners, columns] + 1)
        best = rank.topk(min(top, len(tokens)), dim=1).indices
        width = best.shape[1]
        kept.codes[rows[here], :width] = best.cpu().numpy()
        kept.probabilities[rows[here], :width] = probabilities.gather(1, best).cpu().numpy()
