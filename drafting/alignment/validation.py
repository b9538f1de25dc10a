"""Validation after each epoch: the lists that the model would give are judged, the best epoch's model is kept, and a run may stop early.

Invariant: an interrupted run continues to the same model. What an epoch was worth is written before any checkpoint of its last step; what
was written about epochs after the checkpoint's is measured again. Each kept model bears the number of its epoch, and the model of the best
epoch that the checkpoint knows stays beside that of a later epoch, because the same epoch, learnt again on several threads, may be worth
less.
"""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import torch
from accelerate import PartialState
from accelerate.utils import broadcast_object_list
from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from drafting.alignment.data.interactions import Split
from drafting.alignment.runs import RunDirectory, checkpoint_step
from drafting.alignment.settings import ListQuality, TrainingError, ValidatedEpoch
from drafting.cache import whole_file

# Judges the lists of a model directory for the validation part of a split.
Validate = Callable[[Path, Split], ListQuality]


class EpochValidation(TrainerCallback):  # type: ignore[misc]
    """Judges every epoch, keeps the best one's model as `run.best` of it, and stops the run when `patience` epochs have not bettered it."""

    def __init__(self, run: RunDirectory, patience: int | None, measure: Callable[[Path], ListQuality]) -> None:
        """`measure` judges a model directory."""
        self._run = run
        self._patience = patience
        self._measure = measure
        self._write: Callable[[Path], None] = lambda path: None
        self._valid_loss: Callable[[], float | None] = lambda: None
        self._steps = self._end = 1
        self.epochs: list[ValidatedEpoch] = []

    def begin(self, steps: int, end: int, done: int, write: Callable[[Path], None], valid_loss: Callable[[], float | None]) -> None:
        """Start, or go on behind step `done`, with epochs of so many `steps`.

        Args:
            end: last step of the run, with which its last epoch may end before its time.
            write: writes the model to a directory, called in every process.
            valid_loss: the loss over the validation part.

        Raises:
            TrainingError: the best model of the epochs before is gone.
        """
        self._steps, self._end, self._write, self._valid_loss = steps, end, write, valid_loss
        known = msgspec.json.decode(self._run.validated.read_bytes(), type=list[ValidatedEpoch]) if self._run.validated.is_file() else []
        self.epochs = self._ended(known, done)
        if self.epochs and not self._run.best(self.best.epoch).is_dir() and not self._run.model.is_dir():
            raise TrainingError(
                f"{self._run.partial} holds an interrupted run without the model of its best epoch, {self.best.epoch}: it was removed, or "
                "another version of atspeed began the run. Remove that directory, and begin anew."
            )

    @property
    def best(self) -> ValidatedEpoch:
        """The epoch with the highest NDCG, the first of equal ones."""
        return _best(self.epochs)

    @property
    def is_over(self) -> bool:
        """True if the epochs since the best one have used up the patience."""
        return self._patience is not None and bool(self.epochs) and self.epochs[-1].epoch - self.best.epoch >= self._patience

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if state.global_step % self._steps and state.global_step < state.max_steps:
            return
        process = PartialState()
        directory = self._run.partial / "epoch"
        # What is drawn here must not be missing from what dropout draws.
        with torch.random.fork_rng():
            loss = self._valid_loss()
            self._write(directory)
            found: list[ListQuality | None] = [self._measure(directory) if process.is_main_process else None]
            if process.num_processes > 1:
                broadcast_object_list(found)
        quality = found[0]
        assert quality is not None
        epoch = math.ceil(state.global_step / self._steps)
        self.epochs.append(ValidatedEpoch(epoch, quality.recall, quality.ndcg, loss))
        if process.is_main_process:
            self._keep(directory, state.global_step)
            tqdm.write(
                f"epoch {epoch}: Recall@{quality.k} {quality.recall:.4f}, NDCG@{quality.k} {quality.ndcg:.4f} of {quality.users:,} users"
            )
        control.should_training_stop |= self.is_over

    def _keep(self, directory: Path, step: int) -> None:
        """Write down what was found by the end of a step, and keep the model of the newest epoch if it is the best."""
        if self.epochs[-1] is self.best:
            kept = self._run.best(self.best.epoch)
            shutil.rmtree(kept, ignore_errors=True)
            directory.rename(kept)
        else:
            shutil.rmtree(directory)
        with whole_file(self._run.validated) as building:
            building.write_bytes(msgspec.json.encode(self.epochs))
        # Interrupted now, the run would go on from this checkpoint, and know no later epoch.
        checkpoint = self._run.last_checkpoint(step - 1)
        known = [] if checkpoint is None else self._ended(self.epochs, checkpoint_step(checkpoint))
        needed = {self._run.best(_best(epochs).epoch) for epochs in (self.epochs, known) if epochs}
        for path in self._run.all_best:
            if path not in needed:
                shutil.rmtree(path)

    def _ended(self, epochs: list[ValidatedEpoch], step: int) -> list[ValidatedEpoch]:
        """The epochs that have ended by a step."""
        return [epoch for epoch in epochs if min(epoch.epoch * self._steps, self._end) <= step]


def _best(epochs: list[ValidatedEpoch]) -> ValidatedEpoch:
    return max(epochs, key=lambda epoch: epoch.ndcg)
