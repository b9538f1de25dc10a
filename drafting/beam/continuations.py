"""Log-probabilities of what may follow a prefix (constrained decoding), from the rows of a forward.

Invariant: a row's numbers follow from its state, its prefix and what its request normalises over, whatever other rows stand beside it. Rows
are projected onto the tokens that the catalog uses after prefixes of their length; all tokens are looked at only by who normalises over
them, and block by block.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import IntArray
from drafting.beam.forward import ForwardPart
from drafting.beam.rows import Rows
from drafting.beam.rule import Normalisation
from drafting.device import arange, concat, on_device
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie

# As the bits of a float32, -2^23 is minus infinity, and 2^23 more is 0.
_INFINITY_BITS = torch.tensor(-(1 << 23), dtype=torch.int32)
# In place of minus infinity, of which a prefix without children would make NaN: its exponential is 0 beside that of any logit.
_PADDING = -1e38
# Of so many tokens all logits are made at once: then there is too little to save.
_WHOLE = 8192
_NORMALISATIONS = tuple(Normalisation)
_VOCABULARY = _NORMALISATIONS.index(Normalisation.VOCABULARY)


@dataclass(frozen=True)
class RowKinds:
    """The kinds of the rows of a forward, known on the host, part by part.

    Attributes:
        depths: of each part `[rows]` int64, lengths of the prefixes.
        over: what the rows of each part normalise over.
    """

    depths: Sequence[IntArray]
    over: Sequence[Normalisation]

    @classmethod
    def of(cls, parts: Sequence[ForwardPart], over: Sequence[Normalisation]) -> "RowKinds":
        """The kinds of the rows that the parts of a forward want, each of which normalises as `over` says."""
        return cls([part.output_depths for part in parts], over)

    @classmethod
    def alike(cls, rows: int, depth: int, over: Normalisation) -> "RowKinds":
        """Rows after prefixes of one length."""
        return cls([np.full(rows, depth)], [over])

    @property
    def any_over_vocabulary(self) -> bool:
        """True if a row normalises over the vocabulary."""
        return Normalisation.VOCABULARY in self.over

    def groups(self, are_whole: bool, device: torch.device) -> Iterator[tuple[int, Normalisation, Tensor | None]]:
        """Depth, normalisation and indices of rows that are computed together; no indices where these are all.

        Args:
            are_whole: rows that normalise over the vocabulary are computed together, whatever their depths; the one that is told is 0.
        """
        one = self.over[0] if len(set(self.over)) == 1 else None
        if are_whole and one is Normalisation.VOCABULARY:
            yield 0, one, None
            return
        depths = concat(self.depths)
        if one is not None and (depths == depths[0]).all():
            yield int(depths[0]), one, None
            return
        over = np.repeat([_NORMALISATIONS.index(each) for each in self.over], [len(each) for each in self.depths])
        kinds = (np.where(over == _VOCABULARY, 0, depths) if are_whole else depths) * len(_NORMALISATIONS) + over
        for kind in np.unique(kinds).tolist():
            depth, number = divmod(kind, len(_NORMALISATIONS))
            yield depth, _NORMALISATIONS[number], on_device(np.flatnonzero(kinds == kind), device)


def continuation_log_probs(
    trie: ItemTrie, nodes: Tensor, rows: Rows, kinds: RowKinds, width: int, eligible: BatchEligibility | None
) -> Tensor:
    """Log-probabilities of the children of trie nodes, `[rows, width]` float32; -inf where there is none.

    They are normalised over the whole vocabulary, as in the paper (section 3), over all tokens of the level, or over all children of each
    node, eligible or not: a filter changes no score. Where the model has gone wrong, so that a logit that is read is not finite or the row
    has none to normalise by, all of the row is NaN: its first column tells, whatever constrained decoding masks.

    Args:
        nodes: `[rows]` int64.
        rows: after each node.
        width: at least the number of children of every node, and no more than the most children of any in the trie.
        eligible: children that may be entered; None for all.
    """
    first, end = trie.children(nodes)
    # Children are neighbours: whole windows of tokens are read, where looking up node by node would take three times as long.
    tokens = trie.token.unfold(0, width, 1).index_select(0, first)
    padding = trie.padding_mask(first, end, width)
    are_whole = rows.head.vocabulary <= _WHOLE
    normaliser = rows.log_normaliser() if not are_whole and kinds.any_over_vocabulary else None
    log_probs: Tensor | None = None
    for depth, over, some in kinds.groups(are_whole, nodes.device):
        if some is None:
            log_probs = _of_kind(trie, depth, over, rows, tokens, padding, normaliser)
            break
        part = None if normaliser is None else normaliser.index_select(0, some)
        found = _of_kind(trie, depth, over, rows.take(some), tokens.index_select(0, some), padding.index_select(0, some), part)
        log_probs = torch.empty_like(padding) if log_probs is None else log_probs
        log_probs.index_copy_(0, some, found)
    assert log_probs is not None
    return log_probs if eligible is None else log_probs.add_(_eligibility_mask(eligible, first, width))


def _of_kind(
    trie: ItemTrie, depth: int, over: Normalisation, rows: Rows, tokens: Tensor, padding: Tensor, normaliser: Tensor | None
) -> Tensor:
    """`continuation_log_probs` of rows of one kind; without `normaliser`, those over the vocabulary are made at once."""
    if over is Normalisation.VOCABULARY and normaliser is None:
        log_probs = rows.logits().float().log_softmax(1).gather(1, tokens)
    else:
        level = trie.level_tokens[depth]
        logits, columns = rows.project(level), level.columns(tokens)
        if over is Normalisation.CHILDREN:
            logits = logits.gather(1, columns)
            # Before the masks: their -inf is ours.
            broken = _broken(logits)
            return logits.add_(padding.clamp(min=_PADDING)).log_softmax(1).add_(broken).add_(padding)
        if over is Normalisation.LEVEL:
            logits = logits.log_softmax(1)
        log_probs = logits.gather(1, columns)
        if over is Normalisation.VOCABULARY and normaliser is not None:
            log_probs.sub_(normaliser[:, None])
    # Adding 0 or -inf takes no branch, where filling by a mask mispredicts one at every other element.
    return log_probs.add_(_broken(log_probs)).add_(padding)


def _broken(numbers: Tensor) -> Tensor:
    """`[rows, 1]`: 0 times a finite number is 0, times any other NaN."""
    return numbers.amin(1, keepdim=True).mul_(0)


def child_mask(trie: ItemTrie, nodes: Tensor, width: int, eligible: BatchEligibility | None) -> Tensor:
    """`[rows, width]` float32, 0 for each child of trie nodes that may be entered, -inf elsewhere; see `continuation_log_probs`."""
    first, end = trie.children(nodes)
    mask = trie.padding_mask(first, end, width)
    return mask if eligible is None else mask.add_(_eligibility_mask(eligible, first, width))


def _eligibility_mask(eligible: BatchEligibility, first: Tensor, width: int) -> Tensor:
    return torch.add(_INFINITY_BITS, eligible.allowed(first, width), alpha=1 << 23).view(torch.float32)


def child_nodes(first_child: Tensor, width: int) -> Tensor:
    """`[rows, width]` int64, the trie nodes from each row's first child on."""
    return first_child[:, None] + arange(width, first_child.device)
