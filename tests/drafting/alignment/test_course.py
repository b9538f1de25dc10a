"""The loss of a run's last epoch, from a log that knows each epoch."""

import numpy as np
import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from drafting.alignment.course import LogEpochEnds, loss_of_last_epoch


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
