"""The loss of a target that is normalised over the children of each prefix."""

import torch
from torch import Tensor, nn

from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.data.samples import Batch
from drafting.alignment.soft_loss import SoftTokens


class ChildrenLoss:
    """Mean cross-entropy per label, in nats, over the children of each prefix in the catalog's trie."""

    def __init__(
        self, log_probs: ChildrenLogProbs, *, smoothing: float = 0.0, soft: SoftTokens | None = None, soft_share: float = 0.0
    ) -> None:
        """
        Args:
            smoothing: share of each true label that is spread over all children of its prefix.
            soft: labels of a second kind.
            soft_share: of these in the loss, from 0 to 1.
        """
        self._log_probs, self._smoothing = log_probs, smoothing
        self._soft, self._soft_share = soft, soft_share

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        levels, true = self._log_probs(model, batch)
        agreed = torch.stack([part.log_probs.gather(1, part.slots[:, None])[:, 0] for part in levels]).mean()
        if self._smoothing:
            spread = torch.stack([part.log_probs.sum(1) / part.counts for part in levels]).mean()
            agreed = (1 - self._smoothing) * agreed + self._smoothing * spread
        if self._soft is None:
            return -agreed
        tokens, weights = self._soft.of(batch, true)
        soft = agreed.new_zeros(())
        for level, part in enumerate(levels):
            # Where the prefix is another one, the weight is 0 and any child will do.
            slots = self._log_probs.slots(part.prefixes[:, None].expand(tokens.shape[:2]), tokens[..., level])
            log_probs = part.log_probs.gather(1, slots.clamp(0, part.log_probs.shape[1] - 1))
            soft = soft + (log_probs * weights[..., level]).sum()
        return -((1 - self._soft_share) * agreed + self._soft_share * soft / true.numel())
