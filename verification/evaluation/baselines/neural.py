"""The neural baselines: how their settings are chosen, and the scores that they give.

Invariant: dropout and the number of epochs are chosen on the validation users of a network that learned from the training part; the network
that is compared learns from all that is known, for as many epochs. The same seed and threads give the same network.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from drafting.array_types import FloatArray
from verification.evaluation.baselines.networks import LENGTH, SequenceNetwork
from verification.evaluation.baselines.ranking import CHOSEN_AT, Scorer, merit, quality_of, ranked_lists
from verification.evaluation.baselines.training import Lesson, Training, padded
from verification.evaluation.users import HeldOut

DROPOUTS = (0.2, 0.5)
MOST_EPOCHS = 80
# Training ends after so many epochs without a better one.
PATIENCE = 6
# Without validation users.
DEFAULT_EPOCHS = 20
# What is noted of lists that kept what users have met.
_KEPT = "keep_seen"


@dataclass(frozen=True)
class NeuralSettings:
    """What a network is trained with, and for how long."""

    dropout: float
    epochs: int

    def __str__(self) -> str:
        return f"dropout {self.dropout:g}, {self.epochs} epochs"


def neural_scores(
    name: str,
    validation: HeldOut | None,
    users: HeldOut,
    items: int,
    on_step: Callable[[str], None],
    seeds: int = 1,
    folder: Path | None = None,
    *,
    keep_seen: bool = False,
) -> tuple[str, Iterator[Scorer]]:
    """The chosen settings as a text, and the scores of networks that learned from what `users` know, one a seed.

    Args:
        name: a key of `NETWORKS`.
        validation: users to choose by, with the first seed; None for default settings.
        folder: where networks are kept after each epoch, so that the same call goes on there; None for nowhere.
        keep_seen: choose by lists that keep what the users have met.
    """
    settings = NeuralSettings(DROPOUTS[0], DEFAULT_EPOCHS)
    if validation is not None:
        lessons = [Lesson(name, validation.known, items, dropout, 0) for dropout in DROPOUTS]
        tried = [_chosen(lesson, folder, validation, keep_seen, on_step) for lesson in lessons]
        settings = max(tried, key=lambda pair: pair[0])[1]

    def trained() -> Iterator[Scorer]:
        for seed in range(seeds):
            lesson = Lesson(name, users.known, items, settings.dropout, seed)
            training = Training(lesson, folder)
            if training.epoch > settings.epochs:
                # The network that the settings were chosen by, of the same data, learnt on to see that it gets no better.
                training = Training(lesson)
            while training.epoch < settings.epochs:
                training.advance()
                training.keep()
                on_step(f"final training with seed {seed}, epoch {training.epoch} of {settings.epochs}")
            yield scores_of(training.network, users)

    return str(settings), trained()


def _chosen(
    lesson: Lesson, folder: Path | None, validation: HeldOut, keep_seen: bool, on_step: Callable[[str], None]
) -> tuple[float, NeuralSettings]:
    """The best epoch of one dropout, and its merit on the validation users."""
    training = Training(lesson, folder)
    if training.epoch and bool(training.noted.get(_KEPT)) != keep_seen:
        # Its epochs were judged by lists of the other kind.
        training = Training(lesson, folder, anew=True)
    best = training.noted
    while training.epoch < MOST_EPOCHS and training.epoch - best.get("epoch", 0) < PATIENCE:
        training.advance()
        lists = ranked_lists(validation, scores_of(training.network, validation), CHOSEN_AT, keep_seen=keep_seen)
        quality = quality_of(validation, lists, CHOSEN_AT)
        on_step(f"dropout {lesson.dropout:g}, epoch {training.epoch}: Recall@10 {quality.recall:.4f} of validation users")
        if not best or merit(quality) > best["merit"]:
            best.update({"epoch": training.epoch, "merit": merit(quality), _KEPT: keep_seen})
        training.keep()
    return best["merit"], NeuralSettings(lesson.dropout, int(best["epoch"]))


def scores_of(network: SequenceNetwork, users: HeldOut) -> Scorer:
    """The scores of a network as it is now, whatever it learns later."""
    frozen = copy.deepcopy(network).eval()

    @torch.inference_mode()
    def scores(rows: range) -> FloatArray:
        histories = [np.array(users.histories[user][-LENGTH:], np.int64) for user in rows]
        lengths = [len(history) for history in histories]
        hidden = frozen(padded(histories, max(lengths), frozen.items))
        newest = hidden[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
        found: FloatArray = frozen.logits(newest).numpy()
        return found

    return scores
