"""Log-probabilities of prefixes of the trie after a prompt, computed level by level without an engine."""

from collections.abc import Sequence
from copy import deepcopy

import numpy as np
import torch
from torch import Tensor

from drafting.array_types import FloatArray, IntArray
from drafting.beam.continuations import RowKinds, continuation_log_probs
from drafting.beam.expand import Frontier, ScoredContinuations, expand_beam
from drafting.beam.forward import ForwardPart, forward_batch
from drafting.beam.model import TreeModel
from drafting.beam.rows import Rows
from drafting.beam.rule import Normalisation
from drafting.beam.tree import SequenceState, TokenTree, to_device
from drafting.device import on_device
from drafting.trie.arrays import ROOT, children_of
from drafting.trie.item_trie import ItemTrie

# Nodes per forward: attention's cost grows with its square.
CHUNK = 512


class PrefixScorer:
    """Scores prefixes of one prompt at a time; every forward sees only what it needs of the tree."""

    def __init__(self, model: TreeModel, trie: ItemTrie, normalise: Normalisation = Normalisation.VOCABULARY) -> None:
        """`normalise`: what log-probabilities are normalised over."""
        self._normalise = normalise
        self._model = model
        self._trie = trie
        self._tree = TokenTree(model.total_slots, trie.depth, model.device)
        self._next_slot = 0

    @torch.inference_mode()
    def whole_trie(self, prompt: IntArray) -> FloatArray:
        """`[inner nodes]` log-probability of each node above the leaves given its parent; 0 for the root."""
        trie = self._trie
        found = torch.zeros(trie.level_starts[-2], device=self._model.device)
        sequence, log_probs = self._start(prompt)
        below = [(sequence, np.array([ROOT]), np.array([sequence.root]), log_probs)]
        for depth in range(1, trie.depth):
            grown = []
            for sequence, parents, indices, log_probs in below:
                nodes, rows = children_of(trie.first_child, parents)
                reached, above = (on_device(array, self._model.device) for array in (nodes, rows))
                here = on_device(parents, self._model.device)
                found[reached] = self._below(here, log_probs, depth)[above, reached - trie.child_offsets[here][above]]
                if depth < trie.depth - 1:
                    for chunk in np.split(np.arange(len(nodes)), range(CHUNK, len(nodes), CHUNK)):
                        branch = deepcopy(sequence)
                        added = self._add(branch, indices[rows[chunk]], nodes[chunk], depth)
                        grown.append((branch, nodes[chunk], added, self._score(branch, added)))
            below = grown
        return found.cpu().numpy()

    @torch.inference_mode()
    def beams(self, prompt: IntArray, widths: Sequence[int], least: int = 0) -> dict[int, tuple[IntArray, FloatArray]]:
        """Plain beam searches of several widths: per width the inner levels' trie nodes and log-probabilities, `[levels, most]` each.

        Args:
            least: prefixes of a level that are told, if more than the width: the best behind the beam, which are not continued.
        """
        trie = self._trie
        start, first = self._start(prompt)
        found = {}
        for width in widths:
            sequence, log_probs, indices = deepcopy(start), first, np.array([start.root])
            scores = torch.zeros(1, device=self._model.device)
            parents = torch.zeros(1, dtype=torch.int64, device=self._model.device)
            most = max(width, least)
            nodes_of = np.full((trie.depth - 1, most), -1, np.int64)
            scores_of = np.full((trie.depth - 1, most), -np.inf, np.float32)
            for depth in range(1, trie.depth):
                slots = on_device(sequence.slots[indices], self._model.device)
                frontier = Frontier(slots, parents, (len(indices),), scores)
                below = self._below(parents, log_probs, depth)
                selection = expand_beam(ScoredContinuations(frontier, trie.child_offsets[parents], below + scores[:, None]), most)
                nodes_of[depth - 1], scores_of[depth - 1] = selection.nodes[0].cpu().numpy(), selection.cum_log_probs[0].cpu().numpy()
                kept = min(width, int((selection.nodes[0] >= 0).sum()))
                parents, scores = selection.nodes[0, :kept], selection.cum_log_probs[0, :kept]
                if depth < trie.depth - 1:
                    above = {int(slot): int(index) for slot, index in zip(sequence.slots[indices], indices, strict=True)}
                    rows = np.array([above[slot] for slot in selection.parent_slots[0, :kept].tolist()])
                    indices = self._add(sequence, rows, nodes_of[depth - 1, :kept], depth)
                    log_probs = self._score(sequence, indices)
            found[width] = nodes_of, scores_of
        return found

    def _below(self, parents: Tensor, log_probs: Tensor, depth: int) -> Tensor:
        """`[parents, most children]` log-probabilities of the nodes at `depth` below trie nodes, after whose rows a forward says these."""
        kinds = RowKinds.uniform(len(parents), depth - 1, self._normalise)
        return continuation_log_probs(self._trie, parents, Rows.of(log_probs), kinds, self._trie.max_children[depth - 1], None)

    def _start(self, prompt: IntArray) -> tuple[SequenceState, Tensor]:
        slots = np.arange(len(prompt))
        sequence = SequenceState(slots, np.zeros(self._model.total_slots, np.int64))
        self._next_slot = len(prompt)
        self._tree.add_prompt(*(on_device(array, self._model.device) for array in (slots, prompt)))
        return sequence, self._score(sequence, slots)[-1:]

    def _add(self, sequence: SequenceState, parents: IntArray, nodes: IntArray, depth: int) -> IntArray:
        """Append nodes below sequence and return their sequence; no two nodes of a prompt share a slot, whatever branch they are on."""
        slots = np.arange(self._next_slot, self._next_slot + len(parents))
        self._next_slot += len(parents)
        added = sequence.append(slots, depth, nodes)
        above = on_device(sequence.slots[parents], self._model.device)
        new, depths, indices, reached = to_device([sequence.node_fields(added)], self._model.device)
        self._tree.add_nodes(new, parents=above, tokens=self._trie.token[reached], depths=depths, indices=indices)
        return added

    def _score(self, sequence: SequenceState, added: IntArray) -> Tensor:
        """Log-probabilities `[added, vocabulary]` after each added column."""
        return (
            self._model.score(forward_batch(self._tree, [ForwardPart(sequence, added, len(added))], self._model.has_encoder))
            .logits()
            .float()
            .log_softmax(1)
        )
