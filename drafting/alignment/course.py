"""The course of a run: its loss, what is judged on the way, and where it ends."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from drafting.alignment.data.samples import IGNORED_LABEL, Batch
from drafting.alignment.settings import TrainingError, TrainingMetrics, ValidatedEpoch
from drafting.alignment.validation import EpochValidation

Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


@dataclass(frozen=True)
class Course:
    """How a run differs from plain training: its losses, the validation of its epochs, and where it ends.

    Attributes:
        loss: loss of a training batch; by default the cross-entropy of the model.
        valid_loss: loss of a validation batch; by default the cross-entropy of the model.
        validation: judges each epoch and keeps the best; by default the model of the last epoch is the result.
        trial: a run on fewer interactions; this one ends after its best epoch, on the learning rates of the whole run.
        labels: of a training batch on average, with all items, where every label counts as much, in a batch of long samples and in one of
            short ones; by default every batch counts as much.
        predicted: share of these labels that an epoch predicts, as it leaves items out: a step minimises so much of its mean loss. Reason:
            learning rates and the norm to which gradients are clipped have been chosen so.
    """

    loss: Loss | None = None
    valid_loss: Loss | None = None
    validation: EpochValidation | None = None
    trial: TrainingMetrics | None = None
    labels: float | None = None
    predicted: float = 1.0

    def weighted(self, loss: torch.Tensor, batch: Batch) -> torch.Tensor:
        """The loss of a training batch as a step minimises it, from its mean over the batch's labels."""
        return loss if self.labels is None else loss * ((batch["labels"] != IGNORED_LABEL).sum() / self.labels)

    def last_step(self, batches: int) -> int | None:
        """The step that the run ends at before its time, if that is known, in epochs of so many batches."""
        if self.trial is not None:
            return self.trial.best_epoch * batches
        return self.validation.epochs[-1].epoch * batches if self.validation is not None and self.validation.is_over else None

    @property
    def best_epoch(self) -> int:
        """The epoch whose model is the result; 0 if none was judged, which is the last."""
        if self.trial is not None:
            return self.trial.best_epoch
        return 0 if self.validation is None else self.validation.best.epoch

    @property
    def validated(self) -> tuple[ValidatedEpoch, ...]:
        """The validated epochs, those of the trial if there was one."""
        if self.trial is not None:
            return self.trial.validated
        return () if self.validation is None else tuple(self.validation.epochs)


class StopAt(TrainerCallback):  # type: ignore[misc]
    """Stops a run at a step."""

    def __init__(self, step: int) -> None:
        self._step = step

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_training_stop |= state.global_step >= self._step


class LogEpochEnds(TrainerCallback):  # type: ignore[misc]
    """Logs the loss at the end of each epoch and of the run, so that the log knows each epoch, however short.

    It stands behind the callbacks that evaluate: the trainer forgets a log that is due when an evaluation writes its own.
    """

    def __init__(self, batches: int) -> None:
        """`batches` counts the steps of an epoch."""
        self._batches = batches

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        control.should_log |= state.global_step % self._batches == 0 or control.should_training_stop


class RefuseNotFinite(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose loss is no number: all that it would learn from there on is none."""

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, float] | None = None, **kwargs: Any
    ) -> None:
        if logs and not math.isfinite(logs.get("loss", 0.0)):
            raise TrainingError(f"The loss is not finite at step {state.global_step}: try a lower --learning-rate, or --precision float32.")


def loss_of_last_epoch(state: TrainerState, batches: int) -> float:
    """The mean loss of the last `batches` steps, from the log: an entry is the mean of the steps since the one before.

    The trainer's own mean does not include the steps before an interruption.
    """
    logged = [(entry["step"], entry["loss"]) for entry in state.log_history if "loss" in entry]
    steps, losses = np.array(logged).T
    inside = steps > state.global_step - batches
    return float(np.average(losses[inside], weights=np.diff(steps, prepend=0)[inside]))
