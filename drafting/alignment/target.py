"""Training the target: from interactions and a catalog to a model directory that `atspeed serve` takes as it is.

Invariant: the directory says how it came to be. `training.json` holds every setting, the hashes of the data, the catalog's version and the
final metrics; the same seed, data and number of threads give the same model, whether or not the run was interrupted on the way.

transformers' `Trainer` does the stepping, so `accelerate launch` scales a run to several devices or machines without code here.
"""

import logging
import math
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import torch
import transformers
from accelerate import PartialState
from transformers import Trainer, TrainingArguments, set_seed
from transformers.trainer_callback import PrinterCallback
from transformers.utils import logging as library_logging

from drafting.alignment.bases import Base, load_base
from drafting.alignment.interactions import Split, data_hashes, load_split
from drafting.alignment.progress import ProgressBar
from drafting.alignment.runs import TRAINING_FILE, RunDirectory, checkpoint_step
from drafting.alignment.samples import (
    Batch,
    LengthBucketSampler,
    SampleSet,
    newest_windows,
    next_windows,
    packed_windows,
    packs,
    prefix_windows,
)
from drafting.alignment.settings import TargetMetrics, TargetSettings, TrainingError
from drafting.catalog import Catalog
from drafting.prompt import PromptBuilder, PromptTemplate

logger = logging.getLogger(__name__)

KEPT_CHECKPOINTS = 2
_STEPS_PER_LOG = 10


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Keeps transformers' bars for every file that it reads or writes, and its remarks on them, from breaking into our bar."""
    shown, verbosity = library_logging.is_progress_bar_enabled(), library_logging.get_verbosity()
    library_logging.disable_progress_bar()
    library_logging.set_verbosity_error()
    try:
        yield
    finally:
        library_logging.set_verbosity(verbosity)
        if shown:
            library_logging.enable_progress_bar()


@_quiet_library()
def train_target(
    data: Path,
    catalog: Catalog,
    base: str,
    out: Path,
    *,
    settings: TargetSettings | None = None,
    template: PromptTemplate | None = None,
    overwrite: bool = False,
) -> TargetMetrics:
    """Trains a target and writes its model directory to `out`; goes on from the last checkpoint of an interrupted run.

    Args:
        data: a directory with the paper's three files or `interactions.jsonl`.
        base: a preset, a `config.json` or a model directory, see `load_base`.
        overwrite: replace what `out` holds, and drop an interrupted run with other settings.

    Raises:
        InteractionError, CatalogError, PromptError, BaseError, TrainingError: inputs or settings that cannot be used; nothing was written
            over.
    """
    settings, template = settings or TargetSettings(), template or PromptTemplate()
    run = RunDirectory(out)
    run.refuse_existing(overwrite)
    split = load_split(data, catalog)
    set_seed(settings.seed)
    start = load_base(base, catalog, template)
    identifiers = catalog.token_ids(start.tokenizer.get_vocab())
    builder = PromptBuilder(template, start.tokenizer, identifiers)
    train = training_samples(split, builder, identifiers, start.pad_token_id, settings)
    valid = validation_samples(split, builder, identifiers, start.pad_token_id)
    process = PartialState()
    record = _record(data, catalog, start, template, settings, split) | {"processes": process.num_processes}
    with process.main_process_first():
        run.open(record, overwrite)
    run.check_space(start.model.num_parameters(), KEPT_CHECKPOINTS)
    metrics = _fit(run, start, train, valid, settings)
    if process.is_main_process:
        _write(run, start, template, record, metrics)
    process.wait_for_everyone()
    return metrics


def training_samples(
    split: Split, builder: PromptBuilder, identifiers: npt.NDArray[np.int64], pad_token_id: int, settings: TargetSettings
) -> SampleSet:
    """The samples that a target learns from.

    Raises:
        TrainingError: no user has two items, so there is nothing to predict.
    """
    max_items = builder.template.max_items
    if not settings.subsequences:
        windows = newest_windows(split.train, max_items)
    elif packs(builder.template):
        windows = packed_windows(split.train, max_items, settings.stride or max(1, max_items // 2))
    else:
        windows = prefix_windows(split.train, max_items)
    if not len(windows.last):
        raise TrainingError("There is nothing to learn from: no user has two items in the training data.")
    return SampleSet(split.train, windows, builder, identifiers, pad_token_id)


def validation_samples(split: Split, builder: PromptBuilder, identifiers: npt.NDArray[np.int64], pad_token_id: int) -> SampleSet:
    """The first validation item of every user, given the user's training items; may be empty."""
    joined, windows = next_windows(split.train, split.valid, builder.template.max_items)
    return SampleSet(joined, windows, builder, identifiers, pad_token_id)


class _SampleTrainer(Trainer):  # type: ignore[misc]
    """The stock trainer, but with our order of samples."""

    def __init__(self, order: LengthBucketSampler, **options: Any) -> None:
        self._order = order
        super().__init__(**options)

    def _get_train_sampler(self, train_dataset: torch.utils.data.Dataset[Batch] | None = None) -> LengthBucketSampler:
        return self._order


def _as_it_is(batch: Batch) -> Batch:
    return batch


def _fit(run: RunDirectory, base: Base, train: SampleSet, valid: SampleSet, settings: TargetSettings) -> TargetMetrics:
    arguments = _arguments(run, settings)
    batches = math.ceil(len(train) / (settings.batch_size * arguments.world_size))
    arguments.logging_steps = max(1, min(_STEPS_PER_LOG, math.ceil(settings.epochs * batches) // 20))
    tokens = int(train.lengths.sum())
    tokens_per_step = tokens / batches
    trainer = _SampleTrainer(
        order=LengthBucketSampler(train.lengths, settings.batch_size, settings.seed),
        model=base.model,
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
    trainer.save_model(str(run.model))
    # The trainer's own mean over a run leaves out what was trained before an interruption.
    last_epoch = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry and entry["step"] > steps - batches]
    return TargetMetrics(
        train_loss=float(np.mean(last_epoch)),
        valid_loss=valid_loss,
        steps=steps,
        samples=len(train),
        tokens=tokens,
        seconds=round(seconds, 3),
        tokens_per_second=round((steps - resumed_from) * tokens_per_step / seconds, 1),
        resumed_from_step=resumed_from,
    )


def _arguments(run: RunDirectory, settings: TargetSettings) -> TrainingArguments:
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


def _record(data: Path, catalog: Catalog, base: Base, template: PromptTemplate, settings: TargetSettings, split: Split) -> dict[str, Any]:
    """What makes two runs the same run, and what `training.json` keeps of it."""
    return {
        "kind": "target",
        "base": {"name": base.name, "from_scratch": base.from_scratch, "config": msgspec.json.decode(base.model.config.to_json_string())},
        "catalog": {"version": catalog.version, "items": len(catalog)},
        "data": {
            "sha256": data_hashes(data),
            "users": len(split.train.users),
            "interactions": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        },
        "prompt": msgspec.to_builtins(template),
        "settings": msgspec.to_builtins(settings),
        "versions": {"python": platform.python_version(), "torch": str(torch.__version__), "transformers": transformers.__version__},
    }


def _write(run: RunDirectory, base: Base, template: PromptTemplate, record: dict[str, Any], metrics: TargetMetrics) -> None:
    base.tokenizer.save_pretrained(run.model)
    template.save(run.model)
    (run.model / "training_args.bin").unlink(missing_ok=True)
    contents = msgspec.json.encode(record | {"metrics": msgspec.to_builtins(metrics)})
    (run.model / TRAINING_FILE).write_bytes(msgspec.json.format(contents, indent=2) + b"\n")
    run.publish()
