"""Log-probabilities of what may follow a prefix (constrained decoding), from the rows of a forward.

Invariant: a row's numbers follow from its state, its prefix and what its request normalises over, whatever other rows stand beside it. Rows
are projected onto the tokens that the catalog uses after prefixes of their length. All tokens are read only for requests that normalise
over all, and then block by block.
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
from drafting.device import NEGATIVE_INFINITY, arange, concat, on_device
from drafting.trie.eligibility import BatchEligibility
from drafting.trie.item_trie import ItemTrie

# As the bits of a float32, -2^23 is minus infinity, and 2^23 more is 0.
_INFINITY_BITS = torch.tensor(-(1 << 23), dtype=torch.int32)
# Stands for minus infinity, of which a prefix without children would make NaN: its exponential is 0 beside that of any logit.
_PADDING = -1e38
# A vocabulary of no more tokens has all its logits made at once: making fewer of them would save too little.
_WHOLE = 8192
_NORMALISATIONS = tuple(Normalisation)
_VOCABULARY = _NORMALISATIONS.index(Normalisation.VOCABULARY)


@dataclass(frozen=True)
class RowKinds:
    """For the rows of a forward, part by part: how long their prefixes are and what they normalise over. The host knows this.

    Attributes:
        depths: for each part `[rows]` int64, the lengths of the prefixes of its rows.
        over: for each part, what its rows normalise over.
    """

    depths: Sequence[IntArray]
    over: Sequence[Normalisation]

    @classmethod
    def of(cls, parts: Sequence[ForwardPart], over: Sequence[Normalisation]) -> "RowKinds":
        """The kinds of the output rows of a forward's parts; `over` has an entry for each part."""
        return cls([part.output_depths for part in parts], over)

    @classmethod
    def uniform(cls, rows: int, depth: int, over: Normalisation) -> "RowKinds":
        """So many rows, all after prefixes of one length, that normalise over the same."""
        return cls([np.full(rows, depth)], [over])

    @property
    def any_over_vocabulary(self) -> bool:
        """True if a row normalises over the vocabulary."""
        return Normalisation.VOCABULARY in self.over

    def groups(self, are_whole: bool, device: torch.device) -> Iterator["RowKind"]:
        """Group the rows by kind.

        Args:
            are_whole: True if rows that normalise over the vocabulary are of one kind whatever their depths, because all logits are made.
        """
        depths = concat(self.depths)
        one = self.over[0] if len(set(self.over)) == 1 else None
        if one is not None and (len(depths) == 1 or (depths == depths[0]).all()):
            yield RowKind((int(depths[0]),), one, None)
            return
        if one is Normalisation.VOCABULARY and are_whole:
            yield RowKind(tuple(np.unique(depths).tolist()), one, None)
            return
        over = np.repeat([_NORMALISATIONS.index(each) for each in self.over], [len(each) for each in self.depths])
        kinds = (np.where(over == _VOCABULARY, 0, depths) if are_whole else depths) * len(_NORMALISATIONS) + over
        for kind in np.unique(kinds).tolist():
            rows = np.flatnonzero(kinds == kind)
            yield RowKind(tuple(np.unique(depths[rows]).tolist()), _NORMALISATIONS[kind % len(_NORMALISATIONS)], on_device(rows, device))


@dataclass(frozen=True)
class RowKind:
    """Rows that are computed together.

    Attributes:
        depths: the lengths of their prefixes, ascending; several only where they normalise over the vocabulary.
        rows: `[rows]` int64, their indices among all rows of the forward; None for all of them.
    """

    depths: tuple[int, ...]
    over: Normalisation
    rows: Tensor | None


@dataclass(frozen=True)
class Continuations:
    """Log-probabilities of all that may follow the rows of one kind.

    Attributes:
        rows: as in `RowKind`.
        log_probs: `[rows, width]` float32, as of `continuation_log_probs`; `width` is the most children of a prefix of these lengths.
    """

    rows: Tensor | None
    log_probs: Tensor


def continuation_log_probs(
    trie: ItemTrie, nodes: Tensor, rows: Rows, kinds: RowKinds, width: int, eligible: BatchEligibility | None
) -> Tensor:
    """Log-probabilities of the children of trie nodes, `[rows, width]` float32; -inf where there is none.

    They are normalised over the whole vocabulary, as in the paper (section 3), over all tokens of the level, or over all children of each
    node, eligible or not: a filter changes no score. Where the model has gone wrong, so that a logit that is read is not finite or the row
    has none to normalise by, all of the row's children are NaN: its first column tells, whatever constrained decoding masks.

    Args:
        nodes: `[rows]` int64 trie nodes, whose depths are those in `kinds`.
        rows: of the forward, one after each node.
        width: at least the number of children of every node.
        eligible: the children that may be entered; None if all may.
    """
    log_probs: Tensor | None = None
    for part in continuations(trie, nodes, rows, kinds, eligible):
        found = part.log_probs
        if part.rows is None and found.shape[1] == width:
            return found
        if log_probs is None:
            log_probs = found.new_full((len(rows), width), NEGATIVE_INFINITY)
        own = log_probs[:, : found.shape[1]]
        own.copy_(found) if part.rows is None else own.index_copy_(0, part.rows, found)
    assert log_probs is not None
    return log_probs


def continuations(trie: ItemTrie, nodes: Tensor, rows: Rows, kinds: RowKinds, eligible: BatchEligibility | None) -> Iterator[Continuations]:
    """`continuation_log_probs` kind by kind, each no wider than it must be: one level may have a thousand times another's children."""
    is_large = rows.head.vocabulary > _WHOLE
    # All of a forward at once: logits may be made block by block, and weights read for each.
    normaliser = rows.log_normaliser() if is_large and kinds.any_over_vocabulary else None
    for kind in kinds.groups(rows.are_logits or not is_large, nodes.device):
        if kind.rows is None:
            yield Continuations(None, _of_kind(trie, kind, nodes, rows, normaliser, eligible))
            continue
        part = None if normaliser is None else normaliser.index_select(0, kind.rows)
        may_enter = None if eligible is None else eligible.take(kind.rows)
        log_probs = _of_kind(trie, kind, nodes.index_select(0, kind.rows), rows.take(kind.rows), part, may_enter)
        yield Continuations(kind.rows, log_probs)


def _of_kind(
    trie: ItemTrie, kind: RowKind, nodes: Tensor, rows: Rows, normaliser: Tensor | None, eligible: BatchEligibility | None
) -> Tensor:
    """`[rows, width]` for one kind; `normaliser` is `[rows]`, for a large vocabulary that rows normalise over, else None."""
    width = max(trie.max_children[depth] for depth in kind.depths)
    if kind.depths == (0,):
        log_probs = _below_root(trie, kind.over, rows, normaliser)
    else:
        first, end = trie.children(nodes)
        # Children are neighbours: whole windows of tokens are read, where looking up node by node would take three times as long.
        tokens = trie.token.unfold(0, width, 1).index_select(0, first)
        log_probs = _below_nodes(trie, kind, rows, tokens, trie.padding_mask(first, end, width), normaliser)
    return log_probs if eligible is None else log_probs.add_(_eligibility_mask(eligible, trie.child_offsets.index_select(0, nodes), width))


def _below_root(trie: ItemTrie, over: Normalisation, rows: Rows, normaliser: Tensor | None) -> Tensor:
    """The children of the root are all tokens of their level in the same order: nothing is gathered."""
    level = trie.root_tokens
    if over is not Normalisation.VOCABULARY:
        log_probs = rows.project(level).log_softmax(1)
    elif normaliser is None:
        log_probs = Rows.of(rows.logits().float().log_softmax(1)).project(level)
    else:
        log_probs = rows.project(level)
    # What was projected may be the model's own.
    return log_probs + _correction(log_probs, normaliser if over is Normalisation.VOCABULARY else None)


def _below_nodes(trie: ItemTrie, kind: RowKind, rows: Rows, tokens: Tensor, padding: Tensor, normaliser: Tensor | None) -> Tensor:
    """Log-probabilities of the children `tokens`, `[rows, width]`; `padding` masks those that are no children."""
    if kind.over is not Normalisation.VOCABULARY:
        return _below_level(trie, kind, rows, tokens, padding)
    if normaliser is None:
        log_probs = rows.logits().float().log_softmax(1).gather(1, tokens)
    elif rows.are_logits:
        log_probs = rows.logits().gather(1, tokens).float()
    else:
        level = trie.level_tokens[kind.depths[0]]
        log_probs = rows.project(level).gather(1, level.columns(tokens))
    # Adding 0 or -inf takes no branch, where filling by a mask mispredicts one at every other element.
    return log_probs.add_(_correction(log_probs, normaliser)).add_(padding)


def _below_level(trie: ItemTrie, kind: RowKind, rows: Rows, tokens: Tensor, padding: Tensor) -> Tensor:
    """As `_below_nodes`, where rows normalise over the level or over children, so that no other token has a probability."""
    level = trie.level_tokens[kind.depths[0]]
    logits, columns = rows.project(level), level.columns(tokens)
    if kind.over is Normalisation.LEVEL:
        log_probs = logits.log_softmax(1).gather(1, columns)
        return log_probs.add_(_correction(log_probs, None)).add_(padding)
    of_children = logits.gather(1, columns)
    # Before the masks: their -inf is ours.
    correction = _correction(of_children, None)
    return of_children.add_(padding.clamp(min=_PADDING)).log_softmax(1).add_(correction).add_(padding)


def _correction(numbers: Tensor, normaliser: Tensor | None) -> Tensor:
    """`[rows, 1]` to add to numbers: minus the normaliser, if there is one; NaN where something in the row is not finite."""
    # 0 times a finite number is 0, any other gives NaN.
    lowest = numbers.amin(1, keepdim=True)
    if normaliser is None:
        return lowest.mul_(0)
    return lowest.sub_(normaliser[:, None]).mul_(0).sub_(normaliser[:, None])


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
