"""The neural baselines: how their settings are chosen, and the scores that they give.

Invariant: dropout and the number of epochs are chosen on the validation users of a network that learned from the training part; the network
that is compared learns from all that is known, for as many epochs. The same seed and threads give the same network.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from drafting.array_types import FloatArray
from verification.evaluation.baselines.networks import LENGTH, SequenceNetwork
from verification.evaluation.baselines.ranking import CHOSEN_AT, Scorer, merit, quality_of, ranked_lists
from verification.evaluation.baselines.task import BaselineTask
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


def neural_scores(name: str, task: BaselineTask) -> tuple[str, Iterator[Scorer]]:
    """The chosen settings as a text, and the scores of networks that learned from what the task's users know, one a seed.

    Args:
        name: a key of `NETWORKS`.
    """
    settings = NeuralSettings(DROPOUTS[0], DEFAULT_EPOCHS)
    if task.validation is not None:
        # The first seed chooses.
        lessons = [Lesson(name, task.validation.known, task.items, dropout, 0) for dropout in DROPOUTS]
        tried = [_chosen(lesson, task.validation, task) for lesson in lessons]
        settings = max(tried, key=lambda pair: pair[0])[1]

    def trained() -> Iterator[Scorer]:
        for seed in range(task.networks):
            lesson = Lesson(name, task.users.known, task.items, settings.dropout, seed)
            training = Training(lesson, task.folder)
            if training.epoch > settings.epochs:
                # The network that the settings were chosen by, of the same data, learnt on to see that it gets no better.
                training = Training(lesson)
            while training.epoch < settings.epochs:
                training.advance()
                training.keep()
                task.tell(name, f"final training with seed {seed}, epoch {training.epoch} of {settings.epochs}")
            yield scores_of(training.network, task.users)

    return task.shown(settings), trained()


def _chosen(lesson: Lesson, validation: HeldOut, task: BaselineTask) -> tuple[float, NeuralSettings]:
    """The best epoch of one dropout, and its merit on the validation users."""
    training = Training(lesson, task.folder)
    if training.epoch and bool(training.noted.get(_KEPT)) != task.keep_seen:
        # Its epochs were judged by lists of the other kind.
        training = Training(lesson, task.folder, anew=True)
    best = training.noted
    while training.epoch < MOST_EPOCHS and training.epoch - best.get("epoch", 0) < PATIENCE:
        training.advance()
        lists = ranked_lists(validation, scores_of(training.network, validation), CHOSEN_AT, keep_seen=task.keep_seen)
        quality = quality_of(validation, lists, CHOSEN_AT)
        found = f"Recall@10 {quality.recall:.4f} of validation users"
        task.tell(lesson.name, f"dropout {lesson.dropout:g}, epoch {training.epoch}: {found}")
        if not best or merit(quality) > best["merit"]:
            best.update({"epoch": training.epoch, "merit": merit(quality), _KEPT: task.keep_seen})
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
