"""The loss of a run's last epoch, from a log that knows each epoch; and what each label counts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainerControl, TrainerState, TrainingArguments

from drafting.alignment.course import Course, LogEpochEnds, loss_of_last_epoch
from drafting.alignment.data.samples import IGNORED_LABEL, LengthBucketSampler
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import LoopSettings
from drafting.alignment.training import _arguments, _SampleTrainer


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


class OwnLoss(torch.nn.Module):
    """A model whose labels are their own losses; it takes their mean as the library's do, over the number of labels that it is told."""

    def forward(self, labels: torch.Tensor, num_items_in_batch: torch.Tensor | None = None, **_: Any) -> dict[str, torch.Tensor]:
        losses = labels[labels != IGNORED_LABEL].float()
        return {"loss": losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)}


def test_labels_are_counted_once_on_several_devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's loss is a mean over the labels of one device, as a course expects, and not of all."""
    arguments = _arguments(RunDirectory(tmp_path / "out"), LoopSettings())
    trainer = _SampleTrainer(LengthBucketSampler(np.ones(1, np.int64), 1, seed=0), Course(labels=5), model=OwnLoss(), args=arguments)
    # The other one has seven labels.
    monkeypatch.setattr(TrainingArguments, "world_size", 2)
    monkeypatch.setattr(type(trainer.accelerator), "num_processes", 2)
    monkeypatch.setattr(trainer.accelerator, "gather", lambda labels: torch.stack([labels, torch.tensor(7)]))
    batch = {"labels": torch.tensor([[1, 2, IGNORED_LABEL, 3]])}
    told = trainer._get_num_items_in_batch([batch], torch.device("cpu"))
    loss = trainer.compute_loss(trainer.model.train(), batch, num_items_in_batch=told)
    assert loss.item() == pytest.approx((1 + 2 + 3) / 5)


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
