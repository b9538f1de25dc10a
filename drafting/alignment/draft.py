"""Training a draft: from teacher data to a small model that guesses what the target will keep.

Invariant: a draft has the target's tokenizer and prompt and the teacher data's catalog, so it can be served beside the target as it is;
`training.json` names the target by its hash. Every objective sees the same windows in the same order for the same number of steps.
"""

from pathlib import Path
from typing import Any

import msgspec
from accelerate import PartialState
from transformers import AutoTokenizer, PreTrainedTokenizerBase, set_seed

from drafting.alignment.bases import Base, load_draft_base
from drafting.alignment.draft_loss import NEEDS, DraftLoss
from drafting.alignment.levels import LevelCodes
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import DraftSettings, TrainingError, TrainingMetrics
from drafting.alignment.teacher.data import CATALOG_FILE, TeacherManifest, check_provenance, read_manifest
from drafting.alignment.teacher.samples import TeacherSamples, validation_windows
from drafting.alignment.training import KEPT_CHECKPOINTS, describe_model, fit, quiet_library, versions, write_model
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.errors import first_line
from drafting.trie.item_trie import ItemTrie


@quiet_library()
def train_draft(teacher: Path, base: str, out: Path, *, settings: DraftSettings | None = None, overwrite: bool = False) -> TrainingMetrics:
    """Train a draft and writes its model directory to `out`; goes on from the last checkpoint of an interrupted run.

    Args:
        teacher: a directory that `atspeed train teacher` made.
        base: a preset, a `config.json`, or a model directory with the target's tokens.
        overwrite: replace what `out` holds, and drop an interrupted run with other settings.

    Raises:
        CatalogError, PromptError, BaseError, TrainingError: inputs or settings that cannot be used; nothing was written over.
    """
    settings = settings or DraftSettings()
    needs = NEEDS[settings.objective]
    run = RunDirectory(out)
    run.refuse_existing(overwrite)
    manifest = read_manifest(teacher)
    catalog = load_catalog(teacher / CATALOG_FILE)
    check_provenance(manifest, teacher, None, catalog.version)
    tokenizer = _load_tokenizer(teacher)
    set_seed(settings.seed)
    start = load_draft_base(base, catalog, manifest.prompt, tokenizer)
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    trie = ItemTrie.build(identifiers)
    shards = [teacher / name for name in manifest.shards]
    train = TeacherSamples(shards, trie, start.pad_token_id, answers=needs.answers or settings.compares_answers, trees=needs.trees)
    valid = validation_windows(teacher, trie, start.pad_token_id)
    process = PartialState()
    record = _record(manifest, catalog, start, settings) | {"processes": process.num_processes}
    with process.main_process_first():
        run.open(record, overwrite)
    run.check_model_space(start.model.num_parameters(), KEPT_CHECKPOINTS)
    metrics, trainer = fit(run, start.model, train, valid, settings, DraftLoss(settings, LevelCodes.of(identifiers), trie))
    trainer.save_model(str(run.model))
    if process.is_main_process:
        write_model(run, tokenizer, manifest.prompt, record, metrics)
    process.wait_for_everyone()
    return metrics


def _load_tokenizer(teacher: Path) -> PreTrainedTokenizerBase:
    try:
        return AutoTokenizer.from_pretrained(teacher)
    except (ValueError, OSError, KeyError) as error:
        raise TrainingError(f"The tokenizer in {teacher} cannot be read: {first_line(error)}") from error


def _record(manifest: TeacherManifest, catalog: Catalog, base: Base, settings: DraftSettings) -> dict[str, Any]:
    """What makes two runs the same run, and what `training.json` keeps of it."""
    return {
        "kind": "draft",
        "base": describe_model(base.model, base.name, base.from_scratch),
        "parameters": base.model.num_parameters(),
        "catalog": {"version": catalog.version, "items": len(catalog)},
        "teacher": msgspec.to_builtins(manifest.provenance) | {"settings": manifest.settings, "counts": manifest.counts},
        "prompt": msgspec.to_builtins(manifest.prompt),
        "settings": msgspec.to_builtins(settings),
        "versions": versions(),
    }
