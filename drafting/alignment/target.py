"""Training of a target: from interactions and a catalog to a model directory that `atspeed serve` can load.

Invariant: `training.json` in the directory holds every setting, the hashes of the data, the version of the catalog and the final metrics.
LoRA weights are merged into the model, so it is loaded like any other.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from transformers import set_seed

from drafting.alignment.bases import Base, load_base
from drafting.alignment.course import Course
from drafting.alignment.data.encoder_samples import EncoderSampleSet
from drafting.alignment.data.fit import FIT_TRAIN, learnt_part
from drafting.alignment.data.interactions import Interactions, Split
from drafting.alignment.data.loading import data_hashes, load_split
from drafting.alignment.data.met_labels import check_labels_are_new
from drafting.alignment.data.record import split_kind
from drafting.alignment.data.samples import SampleSet
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.data.windows import Windows, newest_windows, next_windows, packed_windows, prefix_windows
from drafting.alignment.dropout import add_dropout
from drafting.alignment.lora import add_lora, merged
from drafting.alignment.numbered_tokens import numbered_tokens
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import ListQuality, TargetSettings, TeacherSettings, TrainingError, TrainingMetrics
from drafting.alignment.target_loss import mark_normalisation, target_losses
from drafting.alignment.training import describe_base, open_run, quiet_library, read_metrics, train_model, versions
from drafting.alignment.validation import EpochValidation, Validate
from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from drafting.neighbours.candidates import CatalogNeighbours
from drafting.neighbours.model import NeighbourModel
from drafting.neighbours.source_check import check_source
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import PromptForm
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer


@quiet_library()
def train_target(
    data: Path,
    catalog: Catalog,
    base: str,
    out: Path,
    *,
    settings: TargetSettings | None = None,
    template: PromptForm | None = None,
    overwrite: bool = False,
    validate: Validate | None = None,
    neighbours: NeighbourModel | None = None,
) -> TrainingMetrics:
    """Train a target and write its model directory to `out`; continue from the last checkpoint of an interrupted run.

    With `settings.validate_users` and a fit beyond the training part, a first run on the training part finds the number of epochs, and a
    second one learns all that was asked for as long, on the same learning rates.

    Args:
        data: directory of interactions, see `load_split`.
        base: preset, `config.json` or model directory, see `load_base`.
        overwrite: replace the contents of `out`, and drop an interrupted run with other settings.
        validate: judges the lists of a model; needed where `settings.validate_users` says that it is done.
        neighbours: a model whose candidates are learnt as well; made from the same part of the data.

    Raises:
        SetupError: inputs or settings cannot be used; nothing was overwritten.
    """
    settings, template = settings or TargetSettings(), template or PromptTemplate()
    if settings.validate_users and validate is None:
        raise TrainingError("validate_users needs someone to judge the lists: pass validate.")
    run = RunDirectory(out)
    run.refuse_existing(overwrite)
    settings = msgspec.structs.replace(settings, split=split_kind(settings.split, data))
    rule = SplitRule(settings.split, settings.min_items, settings.label_kind)
    split = load_split(data, catalog, rule)
    if neighbours is not None:
        _check_neighbours(neighbours, settings)
        check_source(neighbours, data, rule)
    if settings.validate_users and not settings.keep_seen:
        check_labels_are_new(split)
    known = None if neighbours is None else CatalogNeighbours.of(neighbours, catalog)
    task = _Task(data, split, catalog, base, template, known)
    judge = validate if settings.validate_users else None
    if settings.fit == FIT_TRAIN or judge is None:
        return task.train(run, settings, judge, overwrite=overwrite)
    open_run(run, task.begun(settings)[1], overwrite)
    if (found := read_metrics(run.trial.out)) is None:
        found = task.train(run.trial, msgspec.structs.replace(settings, fit=FIT_TRAIN), judge, overwrite=overwrite)
    return task.train(run, settings, None, overwrite=overwrite, trial=found)


@dataclass(frozen=True, eq=False)
class _Task:
    """The inputs that all runs of a training share.

    Attributes:
        data: the directory that `split` was read from.
        base, template: as of `train_target`.
        neighbours: the model whose candidates are learnt as well; None for none.
    """

    data: Path
    split: Split
    catalog: Catalog
    base: str
    template: PromptForm
    neighbours: CatalogNeighbours | None

    def begun(self, settings: TargetSettings) -> tuple[Base, dict[str, Any]]:
        """The base, and the record of a run that begins with it."""
        set_seed(settings.seed)
        start = load_base(self.base, self.catalog, self.template, more_tokens=numbered_tokens(settings.add_tokens))
        mark_normalisation(start, settings)
        return start, self._record(start, settings)

    def train(
        self,
        run: RunDirectory,
        settings: TargetSettings,
        validate: Validate | None,
        *,
        overwrite: bool,
        trial: TrainingMetrics | None = None,
    ) -> TrainingMetrics:
        """Train the model of one run from its base.

        Args:
            validate: judges the model of each epoch; None to take that of the last.
            trial: the run that found the number of epochs; None where this one does.
        """
        start, record = self.begun(settings)
        learnt, valid = self._samples(start, settings)
        if settings.dropout is not None:
            add_dropout(start.model, settings.dropout)
        model = add_lora(start.model, settings) if settings.lora_rank else start.model
        losses = target_losses(start, self.catalog, settings, soft=self.neighbours is not None)
        validation = None
        if validate is not None:
            if not len(valid):
                raise TrainingError("No epoch can be judged: no user has a validation item and a history. Pass --validate-users 0.")
            validation = EpochValidation(run, settings.patience, lambda model: _judged(validate, model, self.split))
        labels = learnt.all_labels / math.ceil(len(learnt) / settings.batch_size)
        course = Course(*losses, validation, trial, labels, learnt.labels / learnt.all_labels)
        merge = merged if settings.lora_rank else None
        samples = learnt, valid
        return train_model(run, start, model, samples, settings, record, self.template, overwrite=overwrite, course=course, merge=merge)

    def _samples(self, start: Base, settings: TargetSettings) -> tuple[SampleSet, SampleSet]:
        """The training samples, and the first validation item of each user given the training items; there may be none."""
        identifiers = self.catalog.token_ids(start.tokenizer.get_vocab())
        builder = PromptBuilder(self.template, PromptTokenizer.of(start.tokenizer), self.catalog, start.start_token)
        kind = SampleSet if start.start_token is None else EncoderSampleSet
        learnt = learnt_part(self.split, settings.fit)
        windows = training_windows(learnt, builder, settings, packed=start.start_token is None and self.template.is_bare)
        common = builder, identifiers, start.pad_token_id
        soft = None
        if self.neighbours is not None:
            # It needs scipy, without which targets are trained and searched.
            from drafting.alignment.neighbour_labels import neighbour_labels

            soft = neighbour_labels(self.neighbours, learnt, windows.predicted)
        chosen: dict[str, Any] = {"left_out": settings.left_out, "seed": settings.seed, "soft": soft}
        train = kind(learnt, windows, *common, unknown_token=start.unknown_token, **chosen)
        joined, ahead = next_windows(self.split.train, self.split.valid, builder.max_items + 1)
        # What was learnt can't be validated on.
        ahead = ahead.part(slice(None if settings.fit == FIT_TRAIN else 0))
        return train, kind(joined, ahead, *common, unknown_token=start.unknown_token)

    def _record(self, start: Base, settings: TargetSettings) -> dict[str, Any]:
        """The inputs and settings of a run, as `training.json` stores them."""
        split = self.split
        record: dict[str, Any] = {
            "kind": "target",
            "base": describe_base(start),
            "catalog": {"version": self.catalog.version, "items": len(self.catalog)},
            "data": {
                "sha256": data_hashes(self.data),
                "users": len(split.train.users),
                "interactions": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
            },
            "prompt": self.template.contents(),
            "settings": msgspec.to_builtins(settings),
            "versions": versions(),
        }
        if self.neighbours is not None:
            model = self.neighbours.model
            record["neighbours"] = {"kind": model.kind, "fit": model.fit, "digest": model.digest}
        return record


def _judged(validate: Validate, model: Path, split: Split) -> ListQuality:
    """What `validate` finds of a model.

    Raises:
        TrainingError: the model's lists can't be made; the message says how to train without them, too.
    """
    try:
        return validate(model, split)
    except SetupError as error:
        raise TrainingError(f"No epoch can be judged: {error} Pass --validate-users 0 to train without that.") from error


def _check_neighbours(neighbours: NeighbourModel, settings: TargetSettings) -> None:
    """Check that a neighbour model knows no more than the target may.

    Raises:
        TrainingError: they do not fit.
    """
    if neighbours.fit != settings.fit:
        raise TrainingError(
            f"The neighbour model was made from {neighbours.fit}, but the target learns {settings.fit}: make it with "
            f"'atspeed neighbours build --fit {settings.fit}'."
        )
    if settings.fit != FIT_TRAIN and settings.validate_users:
        raise TrainingError(
            "The neighbour model knows the validation part, so no epoch can be judged by it: find the epochs with --fit train, then give "
            "them with --validate-users 0."
        )


def training_windows(learnt: Interactions, builder: PromptBuilder, settings: TargetSettings | TeacherSettings, packed: bool) -> Windows:
    """The windows of training data. Each holds all that a prompt may show of a user, who has one event more if it leaves some out.

    Args:
        builder: of the prompts; where these read what was asked, that is enough to predict a user's first item from.
        packed: with subsequences, score many items of a window in one sample; see `PromptTemplate.is_bare`.

    Raises:
        TrainingError: no user has two items.
    """
    max_items, asked = builder.max_items, "context" in builder.reads
    if not settings.subsequences:
        windows = newest_windows(learnt, max_items + 1, asked=asked)
    elif packed and learnt.labelled is None:
        windows = packed_windows(learnt, max_items, settings.stride or max(1, max_items // 2))
    else:
        windows = prefix_windows(learnt, max_items + 1, asked=asked)
    if not len(windows.last):
        kind = "" if settings.label_kind is None else f", the last of the kind {settings.label_kind!r},"
        raise TrainingError(f"There is nothing to learn from: no user has two items{kind} in the training data.")
    return windows
