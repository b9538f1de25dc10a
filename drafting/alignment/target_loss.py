"""The losses of a target: what a training step minimises, and what a validation loss is, by the settings."""

from drafting.alignment.bases import Base
from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.children_loss import ChildrenLoss
from drafting.alignment.course import Loss
from drafting.alignment.settings import CHILDREN, TargetSettings
from drafting.alignment.smoothing import SmoothedLoss
from drafting.alignment.soft_loss import SoftTokens
from drafting.catalog.catalog import Catalog


def target_losses(start: Base, catalog: Catalog, settings: TargetSettings, *, soft: bool) -> tuple[Loss | None, Loss | None]:
    """The losses of training and of validation batches; None for the model's own, the mean cross-entropy over the vocabulary.

    Args:
        soft: training batches have soft labels.
    """
    identifiers, smoothing = catalog.token_ids(start.tokenizer.get_vocab()), settings.label_smoothing
    tokens, soft_share = SoftTokens(identifiers) if soft else None, settings.neighbour_share
    if settings.normalise == CHILDREN:
        log_probs = ChildrenLogProbs(start.model, identifiers, start.start_token)
        return ChildrenLoss(log_probs, smoothing=smoothing, soft=tokens, soft_share=soft_share), ChildrenLoss(log_probs)
    if not smoothing and tokens is None:
        return None, None
    has_decoder = start.start_token is not None
    return SmoothedLoss(has_decoder=has_decoder, smoothing=smoothing, soft=tokens, soft_share=soft_share), None


def mark_normalisation(start: Base, settings: TargetSettings) -> None:
    """Let the model's `generation_config.json` say what its probabilities are normalised over, for whoever searches with it."""
    start.model.generation_config.renormalize_logits = settings.normalise == CHILDREN
