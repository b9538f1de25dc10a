"""The progress bar of a training run."""

from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class ProgressBar(TrainerCallback):  # type: ignore[misc]
    """A progress bar with loss and tokens per second."""

    def __init__(self, tokens_per_step: float) -> None:
        """`tokens_per_step` counts the tokens of all processes, without padding."""
        self._tokens_per_step = tokens_per_step
        self._bar: tqdm[Any] | None = None
        self._first_step = 0

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._first_step = state.global_step
        if state.is_world_process_zero:
            self._bar = tqdm(total=state.max_steps, initial=state.global_step, desc="training", unit="step")

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._bar:
            self._bar.update(state.global_step - self._bar.n)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: Any,
    ) -> None:
        if self._bar and logs and "loss" in logs:
            elapsed = self._bar.format_dict["elapsed"]
            speed = (state.global_step - self._first_step) * self._tokens_per_step / max(elapsed, 1e-9)
            self._bar.set_postfix_str(f"loss {logs['loss']:.3f}, {speed:,.0f} tokens/s", refresh=False)

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._bar:
            self._bar.close()
            self._bar = None
