"""A proxy of how well identifiers can be learnt: the lists of a tiny target that is trained for minutes, for validation users.

Invariant: the same data, catalog and settings give the same figures on the same number of threads, and none comes from the test part.
Catalogs of the same items are judged by the same users and the same candidates, so their figures can be compared with each other, and with
nothing else: a target that is worth serving is larger and trained longer.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from drafting.alignment.data.loading import load_split
from drafting.alignment.data.met_labels import check_labels_are_new
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.settings import TargetSettings
from drafting.alignment.target import train_target
from drafting.catalog.catalog import Catalog
from verification.evaluation.users import held_out
from verification.evaluation.validation import served_quality


@dataclass(frozen=True)
class ProxySettings:
    """How the tiny target is trained and judged.

    Attributes:
        base: preset that it is made of.
        epochs: passes over the training part.
        users: most validation users, spread evenly.
        rule: how one stream of interactions is split.
        seed: of the weights and the order of the samples.
        keep_seen: keep what users have met in their lists.
    """

    base: str = "draft"
    epochs: float = 4.0
    users: int = 1000
    rule: SplitRule = field(default_factory=SplitRule)
    seed: int = 0
    keep_seen: bool = False


@dataclass(frozen=True)
class ProxyQuality:
    """Recall@10 with its standard error and NDCG@10 on validation users, and what training came to.

    Attributes:
        loss: of the validation part, of a whole identifier: the sum over its tokens, in nats; None without validation items.
        seconds: of training and searching.
    """

    recall: float
    error: float
    ndcg: float
    loss: float | None
    users: int
    seconds: float


def judge_identifiers(data: Path, catalog: Catalog, settings: ProxySettings) -> ProxyQuality:
    """Train the tiny target on the training part, with every item of a history, and judge its lists.

    Raises:
        SetupError: the data or the catalog cannot be used.
    """
    started = time.monotonic()
    split = load_split(data, catalog, settings.rule)
    if not settings.keep_seen:
        check_labels_are_new(split)
    users = held_out(split, "valid", settings.users)
    training = TargetSettings(
        epochs=settings.epochs,
        batch_size=128,
        learning_rate=4e-3,
        weight_decay=0.1,
        subsequences=True,
        left_out=0.2,
        split=settings.rule.kind,
        min_items=settings.rule.min_items,
        label_kind=settings.rule.label_kind,
        seed=settings.seed,
        checkpoint_steps=1_000_000,
    )
    with TemporaryDirectory(prefix="atspeed-proxy-") as directory:
        model = Path(directory) / "model"
        metrics = train_target(data, catalog, settings.base, model, settings=training)
        quality = served_quality(model, catalog, users, keep_seen=settings.keep_seen)
    return ProxyQuality(
        recall=quality.recall,
        error=quality.recall_error,
        ndcg=quality.ndcg,
        loss=None if metrics.valid_loss is None else metrics.valid_loss * catalog.identifier_length,
        users=len(users),
        seconds=time.monotonic() - started,
    )
