"""Training of a target: from interactions and a catalog to a model directory that `atspeed serve` can load.

Invariant: `training.json` in the directory holds every setting, the hashes of the data, the version of the catalog and the final metrics.
LoRA weights are merged into the model, so it is loaded like any other.
"""

from pathlib import Path
from typing import Any

import msgspec
from transformers import set_seed

from drafting.alignment.bases import Base, load_base
from drafting.alignment.data.encoder_samples import EncoderSampleSet
from drafting.alignment.data.interactions import Split
from drafting.alignment.data.loading import data_hashes, load_split
from drafting.alignment.data.record import split_kind
from drafting.alignment.data.samples import SampleSet
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.data.windows import Windows, newest_windows, next_windows, packed_windows, prefix_windows
from drafting.alignment.lora import add_lora, merged
from drafting.alignment.numbered_tokens import numbered_tokens
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import TargetSettings, TeacherSettings, TrainingError, TrainingMetrics
from drafting.alignment.training import describe_base, quiet_library, train_model, versions
from drafting.catalog.catalog import Catalog
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
) -> TrainingMetrics:
    """Train a target and write its model directory to `out`; continue from the last checkpoint of an interrupted run.

    Args:
        data: directory of interactions, see `load_split`.
        base: preset, `config.json` or model directory, see `load_base`.
        overwrite: replace the contents of `out`, and drop an interrupted run with other settings.

    Raises:
        SetupError: inputs or settings cannot be used; nothing was overwritten.
    """
    settings, template = settings or TargetSettings(), template or PromptTemplate()
    run = RunDirectory(out)
    run.refuse_existing(overwrite)
    settings = msgspec.structs.replace(settings, split=split_kind(settings.split, data))
    split = load_split(data, catalog, SplitRule(settings.split, settings.min_items, settings.label_kind))
    set_seed(settings.seed)
    start = load_base(base, catalog, template, more_tokens=numbered_tokens(settings.add_tokens))
    identifiers = catalog.token_ids(start.tokenizer.get_vocab())
    builder = PromptBuilder(template, PromptTokenizer.of(start.tokenizer), catalog, start.start_token)
    samples = SampleSet if start.start_token is None else EncoderSampleSet
    windows = training_windows(split, builder, settings, packed=start.start_token is None and template.is_bare)
    common = builder, identifiers, start.pad_token_id
    train = samples(split.train, windows, *common, unknown_token=start.unknown_token, left_out=settings.left_out, seed=settings.seed)
    # The first validation item of each user, given the user's training items; there may be none.
    joined, ahead = next_windows(split.train, split.valid, builder.max_items + 1)
    valid = samples(joined, ahead, *common, unknown_token=start.unknown_token)
    record = _record(data, catalog, start, template, settings, split)
    model = add_lora(start.model, settings) if settings.lora_rank else start.model
    merge = merged if settings.lora_rank else None
    return train_model(run, start, model, (train, valid), settings, record, template, overwrite=overwrite, merge=merge)


def training_windows(split: Split, builder: PromptBuilder, settings: TargetSettings | TeacherSettings, packed: bool) -> Windows:
    """The windows of the training data. Each holds all that a prompt may show of a user, who has one event more if it leaves some out.

    Args:
        builder: of the prompts; where these read what was asked, that is enough to predict a user's first item from.
        packed: with subsequences, score many items of a window in one sample; see `PromptTemplate.is_bare`.

    Raises:
        TrainingError: no user has two items.
    """
    max_items, asked = builder.max_items, "context" in builder.reads
    if not settings.subsequences:
        windows = newest_windows(split.train, max_items + 1, asked=asked)
    elif packed and split.train.labelled is None:
        windows = packed_windows(split.train, max_items, settings.stride or max(1, max_items // 2))
    else:
        windows = prefix_windows(split.train, max_items + 1, asked=asked)
    if not len(windows.last):
        kind = "" if settings.label_kind is None else f", the last of the kind {settings.label_kind!r},"
        raise TrainingError(f"There is nothing to learn from: no user has two items{kind} in the training data.")
    return windows


def _record(data: Path, catalog: Catalog, base: Base, template: PromptForm, settings: TargetSettings, split: Split) -> dict[str, Any]:
    """The inputs and settings of a run, as `training.json` stores them."""
    return {
        "kind": "target",
        "base": describe_base(base),
        "catalog": {"version": catalog.version, "items": len(catalog)},
        "data": {
            "sha256": data_hashes(data),
            "users": len(split.train.users),
            "interactions": {"train": len(split.train), "valid": len(split.valid), "test": len(split.test)},
        },
        "prompt": template.contents(),
        "settings": msgspec.to_builtins(settings),
        "versions": versions(),
    }
