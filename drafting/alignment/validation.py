"""Validation after each epoch: the lists that the model would give are judged, the best epoch's model is kept, and a run may stop early.

Invariant: an interrupted run goes on to the same model. What an epoch was worth is written before any checkpoint of its last step, and what
was written of later epochs than the checkpoint's is measured again.
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
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import ListQuality, ValidatedEpoch

# Judges the lists of a model directory for the validation part of a split.
Validate = Callable[[Path, Split], ListQuality]


class EpochValidation(TrainerCallback):  # type: ignore[misc]
    """Judges every epoch, keeps the best one's model in `run.best`, and stops the run when `patience` epochs have not bettered it."""

    def __init__(self, run: RunDirectory, patience: int | None, measure: Callable[[Path], ListQuality]) -> None:
        """`measure` judges a model directory."""
        self._run = run
        self._patience = patience
        self._measure = measure
        self._write: Callable[[Path], None] = lambda path: None
        self._valid_loss: Callable[[], float | None] = lambda: None
        self._steps = 1
        self.epochs: list[ValidatedEpoch] = []

    def begin(self, steps: int, end: int, done: int, write: Callable[[Path], None], valid_loss: Callable[[], float | None]) -> None:
        """Start, or go on behind step `done`, with epochs of so many `steps`.

        Args:
            end: last step of the run, with which its last epoch may end before its time.
            write: writes the model to a directory, called in every process.
            valid_loss: the loss over the validation part.
        """
        self._steps, self._write, self._valid_loss = steps, write, valid_loss
        known = msgspec.json.decode(self._run.validated.read_bytes(), type=list[ValidatedEpoch]) if self._run.validated.is_file() else []
        self.epochs = [epoch for epoch in known if min(epoch.epoch * steps, end) <= done]

    @property
    def best(self) -> ValidatedEpoch:
        """The epoch with the highest NDCG, the first of equal ones."""
        return max(self.epochs, key=lambda epoch: epoch.ndcg)

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
            self._keep(directory)
            tqdm.write(
                f"epoch {epoch}: Recall@{quality.k} {quality.recall:.4f}, NDCG@{quality.k} {quality.ndcg:.4f} of {quality.users:,} users"
            )
        control.should_training_stop |= self.is_over

    def _keep(self, directory: Path) -> None:
        """Write down what was found, and keep the model of the newest epoch if it is the best."""
        if self.epochs[-1] is self.best:
            shutil.rmtree(self._run.best, ignore_errors=True)
            directory.rename(self._run.best)
        else:
            shutil.rmtree(directory)
        self._run.validated.write_bytes(msgspec.json.encode(self.epochs))
