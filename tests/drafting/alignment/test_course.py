"""The loss of a run's last epoch, from a log that knows each epoch; and what each label counts."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

from drafting.alignment.course import Course, LogEpochEnds, loss_of_last_epoch
from drafting.alignment.data.samples import IGNORED_LABEL
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import LoopSettings
from drafting.alignment.training import _arguments


@pytest.mark.parametrize(("batches", "steps", "every"), [(1, 1, 1), (1, 45, 2), (7, 21, 3), (7, 10, 10)])
def test_the_loss_of_the_last_epoch_is_the_mean_of_its_steps(batches: int, steps: int, every: int) -> None:
    arguments, state, callback = TrainingArguments(), TrainerState(), LogEpochEnds(batches)
    losses = np.random.default_rng(0).random(steps)
    logged = 0
    for step in range(1, steps + 1):
        state.global_step = step
        control = TrainerControl(should_log=step % every == 0, should_training_stop=step == steps)
        callback.on_step_end(arguments, state, control)
        if control.should_log:
            state.log_history += [{"loss": losses[logged:step].mean(), "step": step}, {"eval_loss": 9.0, "step": step}]
            logged = step
    # Where a run ends within an epoch, what is meant is as many steps, in whole entries of the log.
    first = steps - batches if steps % batches == 0 else 0
    assert loss_of_last_epoch(state, batches) == pytest.approx(losses[first:].mean())


def test_labels_are_counted_once_on_several_devices(tmp_path: Path) -> None:
    """The library's loss is a mean over the labels of one device, as a course expects, and not of all."""
    arguments = _arguments(RunDirectory(tmp_path / "out"), LoopSettings())
    assert arguments.average_tokens_across_devices is False


@given(st.lists(st.lists(st.integers(1, 9), min_size=1, max_size=4), min_size=1, max_size=6))
def test_every_label_counts_as_much_whatever_its_batch(batches: list[list[int]]) -> None:
    """The batches' losses of an epoch are on average what one batch of all samples would give."""
    random = np.random.default_rng(0)
    losses = [[random.random(labels) for labels in batch] for batch in batches]
    every = np.concatenate([np.concatenate(batch) for batch in losses])
    course = Course(labels=len(every) / len(batches))
    weighted = []
    for batch in losses:
        labels = torch.full((len(batch), 10), IGNORED_LABEL)
        for row, sample in enumerate(batch):
            labels[row, 10 - len(sample) :] = 1
        weighted.append(course.weighted(torch.tensor(np.concatenate(batch).mean()), {"labels": labels}).item())
    assert np.mean(weighted) == pytest.approx(every.mean())
