"""The training loop that target and draft share.

Invariant: a run is decided by its samples, its settings and its loss; the same seed, data and number of threads give the same model,
whether or not the run was interrupted on the way.

transformers' `Trainer` does the stepping, so `accelerate launch` scales a run to several devices or machines without code here.
"""

import logging
import math
import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import msgspec
import numpy as np
import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerBase, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as library_logging

from drafting.alignment.data.samples import Batch, LengthBucketSampler, Positions
from drafting.alignment.progress import ProgressBar
from drafting.alignment.runs import TRAINING_FILE, RunDirectory, checkpoint_step
from drafting.alignment.settings import LoopSettings, TrainingMetrics
from drafting.prompt import PromptTemplate

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
_STEPS_PER_LOG = 10

Loss = Callable[[torch.nn.Module, Batch], torch.Tensor]


class Samples(Protocol):
    """What can be trained on: batches by index, and the tokens of each sample.

    Attributes:
        lengths: `[samples]`.
        bucket_lengths: `[samples]`, what samples are put together by.
    """

    lengths: Positions

    @property
    def bucket_lengths(self) -> Positions: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Choose how the samples of an epoch look."""


@contextmanager
def quiet_library() -> Iterator[None]:
    """Keep transformers' bars for every file that it reads or writes, and its remarks on them, from breaking into our bar."""
    shown, verbosity = library_logging.is_progress_bar_enabled(), library_logging.get_verbosity()
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)
        if shown:
            library_logging.enable_progress_bar()


class _SampleTrainer(Trainer):  # type: ignore[misc]
    """The stock trainer, but with our order of samples and, while training, our loss; evaluation always takes the model's own."""

    def __init__(self, order: LengthBucketSampler, loss: Loss | None, **options: Any) -> None:
        self._order = order
        self._loss = loss
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset[Batch] | None = None) -> LengthBucketSampler:
        return self._order

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *args: Any, **options: Any) -> Any:
        if self._loss is None or not model.training:
            return super().compute_loss(model, inputs, *args, **options)
        return self._loss(model, inputs)


def _as_it_is(batch: Batch) -> Batch:
    return batch


def fit(
    run: RunDirectory, model: torch.nn.Module, train: Samples, valid: Samples, settings: LoopSettings, loss: Loss | None = None
) -> tuple[TrainingMetrics, Trainer]:
    """Train `model`, going on from the run's last checkpoint, and returns the trainer that holds the result.

    Args:
        loss: of a training batch; the model's own cross-entropy by default.
    """
    arguments = _arguments(run, settings)
    batches = math.ceil(len(train) / (settings.batch_size * arguments.world_size))
    arguments.logging_steps = max(1, min(_STEPS_PER_LOG, math.ceil(settings.epochs * batches) // 20))
    tokens = int(train.lengths.sum())
    tokens_per_step = tokens / batches
    trainer = _SampleTrainer(
        order=LengthBucketSampler(train.bucket_lengths, settings.batch_size, settings.seed, train.set_epoch),
        loss=loss,
        model=model,
        args=arguments,
        data_collator=_as_it_is,
        train_dataset=train,
        callbacks=[ProgressBar(tokens_per_step)],
    )
    trainer.remove_callback(PrinterCallback)
    checkpoint = run.last_checkpoint
    resumed_from = checkpoint_step(checkpoint) if checkpoint else 0
    if checkpoint:
        logger.warning("Going on from step %d of an interrupted run.", resumed_from)
    started = time.monotonic()
    steps = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).global_step
    seconds = time.monotonic() - started
    valid_loss = float(trainer.evaluate(valid)["eval_loss"]) if len(valid) else None
    # The trainer's own mean over a run leaves out what was trained before an interruption.
    last_epoch = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry and entry["step"] > steps - batches]
    metrics = TrainingMetrics(
        train_loss=float(np.mean(last_epoch)),
        valid_loss=valid_loss,
        steps=steps,
        samples=len(train),
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_second=round((steps - resumed_from) * tokens_per_step / seconds, 1),
        resumed_from_step=resumed_from,
    )
    return metrics, trainer


def _arguments(run: RunDirectory, settings: LoopSettings) -> TrainingArguments:
    return TrainingArguments(
        output_dir=str(run.checkpoints),
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup_share,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_gradient_norm,
        optim="adamw_torch_fused",
        bf16=settings.precision == "bfloat16",
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        disable_tqdm=True,
        report_to=[],
    )


def describe_model(model: PreTrainedModel, name: str, from_scratch: bool) -> dict[str, Any]:
    """What `training.json` says of the model that a run starts from."""
    return {"name": name, "from_scratch": from_scratch, "config": msgspec.json.decode(model.config.to_json_string())}


def versions() -> dict[str, str]:
    """The versions of what decides the numbers."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "transformers": transformers.__version__}


def write_model(
    run: RunDirectory, tokenizer: PreTrainedTokenizerBase, template: PromptTemplate, record: dict[str, Any], metrics: TrainingMetrics
) -> None:
    """Put what `atspeed serve` needs beside the trained weights and publishes the directory."""
    tokenizer.save_pretrained(run.model)
    template.save(run.model)
    (run.model / "training_args.bin").unlink(missing_ok=True)
    contents = msgspec.json.encode(record | {"metrics": msgspec.to_builtins(metrics)})
    (run.model / TRAINING_FILE).write_bytes(msgspec.json.format(contents, indent=2) + b"\n")
    run.publish()
