"""The loss of a target that also learns from a neighbour model: distillation of a closed-form recommender.

Sparse data show few of the items that could have followed. A neighbour model (EASE, item-kNN) ranks all of them by what all users did, so
its candidates after a history are labels of a second kind, soft ones. At the first level of an identifier the model learns how the
candidates are spread over the codes; further down, how those that share the true item's codes so far are spread over the next one.

Invariant: candidates follow from the items that the sample shows before the label, never from the label, and are none of these items.
"""

import numpy as np
import torch
from torch import nn

from drafting.alignment.data.samples import IGNORED_LABEL, Batch
from drafting.array_types import DoubleArray, IntArray
from drafting.neighbours.candidates import CatalogNeighbours

CANDIDATES = 50
# Scores of EASE lie between 0 and about 1, those of its best candidates around 0.2.
TEMPERATURE = 0.05


class NeighbourLoss:
    """Cross-entropy with label smoothing, and with soft labels from a neighbour model, in nats per label.

    Histories must be lists of identifiers and nothing else, as in a bare prompt of a causal model.
    """

    def __init__(self, neighbours: CatalogNeighbours, identifiers: IntArray, share: float, smoothing: float = 0.0) -> None:
        """
        Args:
            identifiers: `[items, length]`, the catalog's identifiers as token ids.
            share: of the soft labels in the loss, from 0 to 1.
            smoothing: share of each true label that is spread over all tokens.
        """
        self._neighbours, self._identifiers = neighbours, identifiers
        self._share, self._smoothing = share, smoothing
        # Of items that share an identifier the first stands for all.
        self._item_of = {tuple(row): item for item, row in reversed(list(enumerate(identifiers.tolist())))}

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        logits, labels = model(input_ids=batch["input_ids"]).logits[:, :-1], batch["labels"][:, 1:]
        scored = labels != IGNORED_LABEL
        predicted = logits[scored].float()
        hard = nn.functional.cross_entropy(predicted, labels[scored], label_smoothing=self._smoothing)
        rows, tokens, weights = (torch.from_numpy(part).to(predicted.device) for part in self.soft_labels(batch))
        soft = -(predicted.log_softmax(-1)[rows, tokens] * weights).sum() / max(1, len(predicted))
        loss: torch.Tensor = (1 - self._share) * hard + self._share * soft
        return loss

    def soft_labels(self, batch: Batch) -> tuple[IntArray, IntArray, np.ndarray]:
        """The soft labels of a batch: number of the label among all of the batch, token and weight, each `[entries]`."""
        length = self._identifiers.shape[1]
        tokens, labels = batch["input_ids"].cpu().numpy(), batch["labels"].cpu().numpy()
        # What a tokenizer puts before a prompt is no identifier and the same for all.
        lead = int(np.isin(tokens[0], self._identifiers).argmax())
        items = tokens[:, lead:].reshape(len(tokens), -1, length)
        answers = labels[:, lead::length] != IGNORED_LABEL
        parts: list[tuple[IntArray, IntArray, DoubleArray]] = []
        for number, (row, place) in enumerate(np.argwhere(answers).tolist()):
            history = [self._item_of[tuple(each)] for each in items[row, :place].tolist()]
            found, scores = self._neighbours.candidates(history, CANDIDATES, excluded=history)
            if not len(found):
                continue
            spread = np.exp((scores - scores.max()) / TEMPERATURE)
            spread /= spread.sum()
            codes, true = self._identifiers[found], items[row, place]
            # `[candidates, length]`: whether a candidate has the true codes of all levels before.
            alike = np.cumprod(np.column_stack([np.ones(len(found), np.int64), codes[:, :-1] == true[:-1]]), axis=1).astype(np.bool_)
            candidate, level = np.nonzero(alike)
            parts.append((number * length + level, codes[candidate, level], spread[candidate]))
        if not parts:
            return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32)
        rows, codes, weights = (np.concatenate(column) for column in zip(*parts, strict=True))
        return rows, codes, weights.astype(np.float32)
