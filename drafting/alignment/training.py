"""The training loop of targets and drafts.

Invariant: a run is determined by its samples, its settings and its loss; the same seed, data and number of threads give the same model,
even if the run was interrupted and continued.

The loop is transformers' `Trainer`, so `accelerate launch` scales a run to several devices or machines.
"""

import copy
import logging
import math
import platform
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import msgspec
import torch
import transformers
from accelerate import PartialState
from transformers import PreTrainedModel, Trainer, TrainingArguments
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as library_logging

from drafting.alignment.bases import Base
from drafting.alignment.course import Course, LogEpochEnds, RefuseNotFinite, StopAt, loss_of_last_epoch
from drafting.alignment.data.samples import Batch, LengthBucketSampler
from drafting.alignment.own_head import name_own_head
from drafting.alignment.progress import ProgressBar
from drafting.alignment.rotary import name_rotary_base
from drafting.alignment.runs import TRAINING_FILE, RunDirectory, checkpoint_step
from drafting.alignment.settings import LoopSettings, TrainingMetrics
from drafting.array_types import IntArray
from drafting.freed_memory import keep_freed_memory
from drafting.prompts.loading import PromptForm
from drafting.prompts.tokenizer_files import save_tokenizer

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
_STEPS_PER_LOG = 10

Write = Callable[[Trainer, Path], None]


class Samples(Protocol):
    """A training set: batches by index, and the length of each sample.

    Attributes:
        lengths: `[samples]`, number of tokens of each sample.
        bucket_lengths: `[samples]`, length by which samples are grouped into batches.
    """

    lengths: IntArray

    @property
    def bucket_lengths(self) -> IntArray: ...

    def __len__(self) -> int: ...

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch, for samples that differ between epochs."""


@contextmanager
def quiet_library() -> Iterator[None]:
    """Turn off transformers' progress bars and messages, which would break our progress bar."""
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
    """transformers' trainer with our order of samples and the losses of a course."""

    def __init__(self, order: LengthBucketSampler, course: Course, **options: Any) -> None:
        self._order = order
        self._course = course
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset[Batch] | None = None) -> LengthBucketSampler:
        return self._order

    def compute_loss(self, model: torch.nn.Module, inputs: Batch, *args: Any, **options: Any) -> Any:
        loss = self._course.loss if model.training else self._course.valid_loss
        found = super().compute_loss(model, inputs, *args, **options) if loss is None else loss(model, inputs)
        value, outputs = found if isinstance(found, tuple) else (found, {})
        value = self._course.weighted(value, inputs) if model.training else value
        return (value, outputs) if options.get("return_outputs") else value


def _identity(batch: Batch) -> Batch:
    return batch


def fit(
    run: RunDirectory, model: torch.nn.Module, samples: tuple[Samples, Samples], settings: LoopSettings, course: Course, write: Write
) -> TrainingMetrics:
    """Train `model` from the last checkpoint of the run, or from the start.

    Args:
        write: writes the model that the trainer holds to a directory.
    """
    train, valid = samples
    arguments = _arguments(run, settings)
    batches = math.ceil(len(train) / (settings.batch_size * arguments.world_size))
    arguments.logging_steps = max(1, min(_STEPS_PER_LOG, math.ceil(settings.epochs * batches) // 20))
    tokens = int(train.lengths.sum())
    tokens_per_step = tokens / batches
    trainer = _SampleTrainer(
        order=LengthBucketSampler(train.bucket_lengths, settings.batch_size, settings.seed, train.set_epoch),
        course=course,
        model=model,
        args=arguments,
        data_collator=_identity,
        train_dataset=train,
        callbacks=[ProgressBar(tokens_per_step)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(RefuseNotFinite())
    end = math.ceil(settings.epochs * batches)
    # A trainer that resumes in the middle of an epoch takes another step even where the run has ended.
    checkpoint = run.last_checkpoint(end - 1 if end % batches else end)
    resumed_from = checkpoint_step(checkpoint) if checkpoint else 0
    if checkpoint:
        logger.warning("Going on from step %d of an interrupted run.", resumed_from)
    _begin(trainer, course, batches, end, resumed_from, valid, write)
    if arguments.use_cpu:
        # Only now, as each step frees what the next one takes.
        keep_freed_memory()
    started = time.monotonic()
    steps = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None).global_step
    seconds = time.monotonic() - started
    best = None if course.validation is None else course.validation.best
    if best is None:
        write(trainer, run.model)
    elif PartialState().is_main_process and (kept := run.best(best.epoch)).exists():
        # It is the model's already where the run was interrupted behind this.
        shutil.rmtree(run.model, ignore_errors=True)
        kept.rename(run.model)
    return TrainingMetrics(
        train_loss=loss_of_last_epoch(trainer.state, batches) / course.predicted,
        valid_loss=_valid_loss(trainer, valid) if best is None else best.valid_loss,
        steps=steps,
        samples=len(train),
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_second=round((steps - resumed_from) * tokens_per_step / seconds, 1),
        resumed_from_step=resumed_from,
        threads=torch.get_num_threads(),
        best_epoch=course.best_epoch,
        validated=course.validated,
    )


def _begin(trainer: Trainer, course: Course, batches: int, end: int, done: int, valid: Samples, write: Write) -> None:
    """Prepare a trainer for its course, behind step `done` of `end`, in epochs of so many batches."""
    if (validation := course.validation) is not None:
        validation.begin(batches, end, done, lambda path: write(trainer, path), lambda: _valid_loss(trainer, valid))
        trainer.add_callback(validation)
    last = course.last_step(batches)
    if last is not None and last == done:
        # The checkpoint is that of the run's end: nothing is left to learn.
        trainer.args.max_steps = last
    elif course.trial is not None and last is not None:
        trainer.add_callback(StopAt(last))
    trainer.add_callback(LogEpochEnds(batches))


def _valid_loss(trainer: Trainer, valid: Samples) -> float | None:
    return float(trainer.evaluate(valid)["eval_loss"]) if len(valid) else None


def _arguments(run: RunDirectory, settings: LoopSettings) -> TrainingArguments:
    arguments = TrainingArguments(
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
        # Without this, bfloat16 is refused where there is no accelerator.
        use_cpu=not torch.accelerator.is_available(),
        seed=settings.seed,
        save_strategy="steps",
        save_steps=settings.checkpoint_steps,
        save_total_limit=KEPT_CHECKPOINTS,
        prediction_loss_only=True,
        remove_unused_columns=False,
        dataloader_pin_memory=torch.cuda.is_available(),
        ddp_find_unused_parameters=False,
        # A course weighs each batch by its own labels.
        average_tokens_across_devices=False,
        # Or a loss that is no number would be told as the mean of those before it, at the price of reading each from the device.
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
    )
    if arguments.n_gpu > 1:
        # Several GPUs are for several processes (`accelerate launch`): one that uses them all has batches and epochs of another size.
        arguments._n_gpu = 1
    return arguments


def describe_base(base: Base) -> dict[str, Any]:
    """The record of a base in `training.json`."""
    config = msgspec.json.decode(base.model.config.to_json_string())
    return {"name": base.name, "from_scratch": base.from_scratch, "config": config}


def read_metrics(model_dir: Path) -> TrainingMetrics | None:
    """The metrics of a finished run; None if there is no such run."""
    path = model_dir / TRAINING_FILE
    return msgspec.convert(msgspec.json.decode(path.read_bytes())["metrics"], TrainingMetrics) if path.is_file() else None


def versions() -> dict[str, str]:
    """The versions of the libraries that affect the result."""
    return {"python": platform.python_version(), "torch": str(torch.__version__), "transformers": transformers.__version__}


def open_run(run: RunDirectory, record: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Start or continue the run of a record in all processes; return the record with their number."""
    process = PartialState()
    record = record | {"processes": process.num_processes}
    with process.main_process_first():
        run.open(record, overwrite)
    return record


def train_model(
    run: RunDirectory,
    base: Base,
    model: torch.nn.Module,
    samples: tuple[Samples, Samples],
    settings: LoopSettings,
    record: dict[str, Any],
    template: PromptForm,
    *,
    overwrite: bool,
    course: Course | None = None,
    merge: Callable[[torch.nn.Module], PreTrainedModel] | None = None,
) -> TrainingMetrics:
    """Train a model and publish its directory with tokenizer, prompt and `training.json`; continue an interrupted run.

    Args:
        model: the model of `base`, or a wrapper of it with the same parameters.
        samples: training and validation samples.
        record: contents of `training.json` without the metrics; a run with another record is not continued.
        course: what the run does beside learning.
        merge: turns a trained wrapper into a plain model.
    """
    process, course = PartialState(), course or Course()
    record = open_run(run, record, overwrite)
    # The oldest checkpoint goes once a newer one is whole; and what the best epoch takes is no more than another.
    run.check_model_space(base.model.num_parameters(), KEPT_CHECKPOINTS + 1 + (course.validation is not None))

    def write(trainer: Trainer, path: Path) -> None:
        if merge is None:
            trainer.save_model(str(path))
        if process.is_main_process:
            if merge is not None:
                # Merging is for good, and between epochs the run goes on.
                merge(model if course.validation is None else copy.deepcopy(model)).save_pretrained(path)
            name_rotary_base(path)
            name_own_head(path)
            save_tokenizer(base.tokenizer, path)
            template.save(path)
            (path / "training_args.bin").unlink(missing_ok=True)

    metrics = fit(run, model, samples, settings, course, write)
    if process.is_main_process:
        contents = msgspec.json.encode(record | {"metrics": msgspec.to_builtins(metrics)})
        (run.model / TRAINING_FILE).write_bytes(msgspec.json.format(contents, indent=2) + b"\n")
        run.publish()
    process.wait_for_everyone()
    return metrics
