"""Cross-entropy with label smoothing, the loss of a target while it trains."""

import torch
from torch import nn

from drafting.alignment.data.samples import IGNORED_LABEL, Batch


class SmoothedLoss:
    """Mean cross-entropy per label, in nats, against labels that leave `share` of their weight to all tokens alike."""

    def __init__(self, share: float, *, has_decoder: bool) -> None:
        """`has_decoder`: logits are of the labels themselves, as of encoder-decoder models; a causal model's are of the token before."""
        self._share = share
        self._has_decoder = has_decoder

    def __call__(self, model: nn.Module, batch: Batch) -> torch.Tensor:
        if self._has_decoder:
            logits, labels = model(**batch).logits, batch["labels"]
        else:
            logits = model(**{name: part for name, part in batch.items() if name != "labels"}).logits[:, :-1]
            labels = batch["labels"][:, 1:]
        scored = labels != IGNORED_LABEL
        return nn.functional.cross_entropy(logits[scored].float(), labels[scored], label_smoothing=self._share)
