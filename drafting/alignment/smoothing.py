"""Cross-entropy over the vocabulary with label smoothing and soft labels, the loss of a target while it trains."""

from torch import Tensor, nn

from drafting.alignment.data.samples import IGNORED_LABEL, Batch
from drafting.alignment.data.soft_labels import ITEMS, SHARES
from drafting.alignment.soft_loss import SoftTokens


class SmoothedLoss:
    """Mean cross-entropy per label, in nats, against labels that leave a share of their weight to all tokens alike."""

    def __init__(self, *, has_decoder: bool, smoothing: float = 0.0, soft: SoftTokens | None = None, soft_share: float = 0.0) -> None:
        """
        Args:
            has_decoder: logits are of the labels themselves, as of encoder-decoder models; a causal model's are of the token before.
            smoothing: share of each true label that is spread over all tokens.
            soft: labels of a second kind.
            soft_share: of these in the loss, from 0 to 1.
        """
        self._has_decoder, self._smoothing = has_decoder, smoothing
        self._soft, self._soft_share = soft, soft_share

    def __call__(self, model: nn.Module, batch: Batch) -> Tensor:
        inputs = {name: part for name, part in batch.items() if name not in (ITEMS, SHARES)}
        if self._has_decoder:
            logits, labels = model(**inputs).logits, batch["labels"]
        else:
            del inputs["labels"]
            logits, labels = model(**inputs).logits[:, :-1], batch["labels"][:, 1:]
        scored = labels != IGNORED_LABEL
        predicted = logits[scored].float()
        hard = nn.functional.cross_entropy(predicted, labels[scored], label_smoothing=self._smoothing)
        if self._soft is None:
            return hard
        true = labels[scored].view(len(batch[ITEMS]), -1)
        tokens, weights = self._soft.of(batch, true)
        log_probs = predicted.log_softmax(-1).view(*true.shape, -1).gather(2, tokens.transpose(1, 2))
        agreed = (log_probs * weights.transpose(1, 2)).sum() / true.numel()
        loss: Tensor = (1 - self._soft_share) * hard - self._soft_share * agreed
        return loss
