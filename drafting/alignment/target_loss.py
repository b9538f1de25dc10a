"""The losses of a target: what a training step minimises, and what a validation loss is, by the settings."""

from drafting.alignment.bases import Base
from drafting.alignment.children import ChildrenLogProbs
from drafting.alignment.children_loss import ChildrenLoss
from drafting.alignment.course import Loss
from drafting.alignment.neighbour_loss import NeighbourLoss
from drafting.alignment.settings import CHILDREN, TargetSettings
from drafting.alignment.smoothing import SmoothedLoss
from drafting.catalog.catalog import Catalog
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourModel


def target_losses(
    start: Base, catalog: Catalog, settings: TargetSettings, neighbours: NeighbourModel | None
) -> tuple[Loss | None, Loss | None]:
    """The losses of training and of validation batches; None for the model's own, the mean cross-entropy over the vocabulary.

    Args:
        neighbours: a model whose candidates are learnt as well.
    """
    identifiers = catalog.token_ids(start.tokenizer.get_vocab())
    taught = None
    if neighbours is not None:
        taught = NeighbourLoss(CatalogNeighbours.of(neighbours, catalog), identifiers, settings.neighbour_share, settings.label_smoothing)
    if settings.normalise == CHILDREN:
        log_probs = ChildrenLogProbs(start.model, identifiers, start.start_token)
        soft = None if taught is None else taught.soft_labels
        return ChildrenLoss(log_probs, settings.label_smoothing, soft, settings.neighbour_share), ChildrenLoss(log_probs)
    if taught is None and settings.label_smoothing:
        return SmoothedLoss(settings.label_smoothing, has_decoder=start.start_token is not None), None
    return taught, None


def mark_normalisation(start: Base, settings: TargetSettings) -> None:
    """Let the model's `generation_config.json` say what its probabilities are normalised over, for whoever searches with it."""
    start.model.generation_config.renormalize_logits = settings.normalise == CHILDREN
