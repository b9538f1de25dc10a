"""Targets that are normalised over what the catalog allows: each token's probability is a share among the children of its prefix.

Invariant: a loss on these log-probabilities is that of a search which renormalises after the trie's mask (`renormalize_logits` of
transformers), so no weight of the model is spent on tokens that the trie excludes, and their logits have no gradient.

The head of a model computes the wanted columns alone, inside the model's own forward: what follows the head there, such as a scale or a cap
of logits, still applies, and logits of the whole vocabulary are never made.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import PartialState
from torch import Tensor, nn
from transformers import PreTrainedModel

from drafting.alignment.data.samples import IGNORED_LABEL, Batch
from drafting.alignment.data.soft_labels import ITEMS, SHARES
from drafting.alignment.levels import LevelCodes
from drafting.array_types import IntArray
from drafting.trie.item_trie import ROOT, ItemTrie

# Rows of the head are gathered label by label while they take no more memory than so many times the logits of the whole level.
_GATHERED = 4


@dataclass(frozen=True)
class LevelLogProbs:
    """Log-probabilities of one level of all labels.

    Attributes:
        log_probs: `[labels, widest]` float32, of the children of each label's prefix in the order of their nodes; 0 behind the last.
        counts: `[labels]`, number of these children.
        prefixes: `[labels]`, node of each prefix.
        slots: `[labels]`, which child is the true one.
    """

    log_probs: Tensor
    counts: Tensor
    prefixes: Tensor
    slots: Tensor


class ChildrenLogProbs:
    """Log-probabilities of a batch's labels over the children of their prefixes."""

    def __init__(self, model: PreTrainedModel, identifiers: IntArray, start_token: int | None = None) -> None:
        """
        Args:
            model: the model itself; what is called may be a wrapper of it.
            identifiers: `[items, length]`, the catalog's identifiers as token ids.
            start_token: what the decoder of an encoder-decoder begins with; None for a causal model.
        """
        device = PartialState().device
        self._model = model
        self._start_token = start_token
        self._trie = trie = ItemTrie.build(identifiers, device)
        self._span = int(identifiers.max()) + 1
        parents = np.repeat(np.arange(trie.nodes), np.diff(trie.first_child))
        # Nodes are in the order of their parents and then of their tokens, so these ascend.
        self._keys = torch.from_numpy(parents).to(device) * self._span + trie.token[1 : trie.nodes]
        levels = LevelCodes.of(identifiers).tokens
        self._levels = [torch.from_numpy(tokens).to(device) for tokens in levels]
        columns = np.zeros(len(trie.token), np.int64)
        tokens = trie.token.cpu().numpy()
        for level, (start, end) in enumerate(zip(trie.level_starts[1:-1], trie.level_starts[2:], strict=True)):
            columns[start:end] = np.searchsorted(levels[level], tokens[start:end])
        self._columns = torch.from_numpy(columns).to(device)

    @property
    def length(self) -> int:
        """Tokens of an identifier."""
        return self._trie.depth

    def __call__(self, model: nn.Module, batch: Batch) -> tuple[list[LevelLogProbs], Tensor]:
        """Run the model on a batch; log-probabilities of each level, and the true identifiers `[labels, length]`, in the batch's order."""
        labels = batch["labels"] if self._start_token is not None else batch["labels"][:, 1:]
        scored = labels != IGNORED_LABEL
        tokens = labels[scored].view(-1, self.length)
        prefixes = [torch.full_like(tokens[:, 0], ROOT)]
        for level in range(self.length):
            prefixes.append(self.child(prefixes[-1], tokens[:, level]))
        inputs = {name: part for name, part in batch.items() if name not in ("labels", ITEMS, SHARES)}
        if self._start_token is not None:
            inputs["decoder_input_ids"] = F.pad(labels[:, :-1], (1, 0), value=self._start_token)
        with self._narrowed(scored, prefixes):
            logits = model(**inputs).logits.float()
        found = []
        for level, part in enumerate(logits.split(list(self._trie.max_children), dim=-1)):
            first, end = self._trie.children(prefixes[level])
            behind = torch.arange(part.shape[1], device=part.device) >= (end - first)[:, None]
            log_probs = part.masked_fill(behind, float("-inf")).log_softmax(-1).masked_fill(behind, 0.0)
            found.append(LevelLogProbs(log_probs, end - first, prefixes[level], prefixes[level + 1] - first))
        return found, tokens

    def child(self, nodes: Tensor, tokens: Tensor) -> Tensor:
        """The child of each node by a token, which it must have."""
        return torch.searchsorted(self._keys, nodes * self._span + tokens) + 1

    def slots(self, prefixes: Tensor, tokens: Tensor) -> Tensor:
        """Which child of each prefix has a token, `[labels, tokens]`; any number if none has."""
        first, _ = self._trie.children(prefixes.flatten())
        return self.child(prefixes, tokens) - first.view(prefixes.shape)

    @contextmanager
    def _narrowed(self, scored: Tensor, prefixes: list[Tensor]) -> Iterator[None]:
        """Let the head give the logits of children only, `[labels, sum of the widest of all levels]`.

        Args:
            scored: `[samples, positions]`, the positions of labels among those that have logits.
            prefixes: per level `[labels]`.
        """
        kept: list[Tensor] = []

        def hold(module: nn.Module, inputs: Any) -> Any:
            kept.append(inputs[0][:, : scored.shape[1]][scored].view(-1, self.length, inputs[0].shape[-1]))
            return (inputs[0][:, :0],)

        def replace(module: Any, inputs: Any, output: Any) -> Tensor:
            hidden = kept.pop()
            return torch.cat([self._logits(module, hidden[:, level], level, prefixes[level]) for level in range(self.length)], dim=-1)

        # Adapters put another head in its place, and take it away again.
        head = self._model.get_output_embeddings()
        hooks = head.register_forward_pre_hook(hold), head.register_forward_hook(replace)
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _logits(self, head: Any, hidden: Tensor, level: int, prefixes: Tensor) -> Tensor:
        """Logits of the children of `prefixes`, `[labels, widest]`; any numbers behind the last."""
        widest, tokens = self._trie.max_children[level], self._levels[level]
        if level == 0:
            return _product(head, hidden, tokens)
        children = self._trie.children(prefixes)[0][:, None] + torch.arange(widest, device=hidden.device)
        if widest * hidden.shape[-1] > _GATHERED * len(tokens):
            # What lies behind a node's children may be of the next level.
            return _product(head, hidden, tokens).gather(1, self._columns[children].clamp(max=len(tokens) - 1))
        tokens = self._trie.token[children]
        logits = (F.embedding(tokens, head.weight) @ hidden[..., None].to(head.weight.dtype))[..., 0]
        return logits if head.bias is None else logits + head.bias[tokens]


def _product(head: Any, hidden: Tensor, tokens: Tensor) -> Tensor:
    """Logits of some tokens, the same of all labels."""
    return F.linear(hidden, head.weight[tokens], None if head.bias is None else head.bias[tokens])
