"""Training of a draft model for speculative decoding: from teacher data to a small model whose beams are close to the target's.

Invariant: a draft has the tokenizer and prompt of the target and the catalog of the teacher data, so it can be served with the target;
`training.json` names the target by its hash. All objectives train on the same windows in the same order for the same number of steps.
"""

import logging
from pathlib import Path
from typing import Any

import msgspec
from transformers import PreTrainedTokenizerBase, set_seed

from drafting.alignment.bases import Base, load_base
from drafting.alignment.course import Course
from drafting.alignment.draft_loss import DraftLoss
from drafting.alignment.levels import LevelCodes
from drafting.alignment.needs import NEEDS
from drafting.alignment.runs import RunDirectory
from drafting.alignment.settings import COMPARING, DraftSettings, TrainingError, TrainingMetrics
from drafting.alignment.teacher.data import CATALOG_FILE, TeacherManifest, check_provenance, read_manifest
from drafting.alignment.teacher.samples import TeacherSamples, validation_windows
from drafting.alignment.training import describe_base, quiet_library, train_model, versions
from drafting.alignment.tree_check import check_trees
from drafting.catalog.catalog import Catalog
from drafting.catalog.loading import load_catalog
from drafting.pretrained import UnreadableError, read_tokenizer
from drafting.prompts.loading import prompt_of
from drafting.trie.item_trie import ItemTrie

logger = logging.getLogger(__name__)


@quiet_library()
def train_draft(teacher: Path, base: str, out: Path, *, settings: DraftSettings | None = None, overwrite: bool = False) -> TrainingMetrics:
    """Train a draft and write its model directory to `out`; continue from the last checkpoint of an interrupted run.

    Args:
        teacher: directory of teacher data, made by `atspeed train teacher`.
        base: preset, `config.json`, or model directory with the target's tokens, see `load_base`.
        overwrite: replace the contents of `out`, and drop an interrupted run with other settings.

    Raises:
        SetupError: inputs or settings cannot be used; nothing was overwritten.
    """
    settings = settings or DraftSettings()
    needs = NEEDS[settings.objective]
    run = RunDirectory(out)
    run.refuse_existing(overwrite)
    manifest = read_manifest(teacher)
    catalog = load_catalog(teacher / CATALOG_FILE)
    check_provenance(manifest, teacher, None, catalog.version)
    _check_levels(catalog, settings)
    _check_beam(manifest, settings)
    tokenizer = _load_tokenizer(teacher)
    set_seed(settings.seed)
    form = prompt_of(manifest.prompt)
    start = load_base(base, catalog, form, tokenizer)
    if start.start_token is not None:
        raise TrainingError(
            f"The base {base} is an encoder-decoder model, which can't learn from teacher data: train it as a target of its own on the "
            "same data with `atspeed train target`, and serve it as the draft."
        )
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    trie = ItemTrie.build(identifiers)
    shards = [teacher / name for name in manifest.shards]
    train = TeacherSamples(shards, trie, start.pad_token_id, answers=needs.answers or settings.compares_answers, trees=needs.trees)
    if settings.objective in COMPARING and train.lacks_visits:
        logger.warning(
            "The teacher data in %s were made with --draft by an earlier version, so the prefixes of its lists teach nothing: make "
            "them again with --overwrite.",
            teacher,
        )
    if needs.trees:
        check_trees(start, int(train.bucket_lengths.max()), trie.depth)
    valid = validation_windows(teacher, trie, start.pad_token_id)
    record = _record(manifest, catalog, start, settings)
    loss = DraftLoss(settings, LevelCodes.of(identifiers), trie)
    return train_model(run, start, start.model, (train, valid), settings, record, form, overwrite=overwrite, course=Course(loss))


def _check_levels(catalog: Catalog, settings: DraftSettings) -> None:
    """Refuse an objective that would learn nothing of identifiers of one token."""
    if catalog.identifier_length > 1:
        return
    if settings.objective == "atspeed-c" or (settings.objective in COMPARING and not settings.last_level):
        raise TrainingError(
            f"The catalog's identifiers have one token, which is their last, and {settings.objective} learns nothing of the last: no draft "
            f"proposes it. To train one all the same, choose {' or '.join(COMPARING)} with --last-level, or another objective."
        )


def _check_beam(manifest: TeacherManifest, settings: DraftSettings) -> None:
    """Refuse to learn a beam that is wider than the target's lists: of what else it would keep, teacher data say nothing."""
    beams = manifest.settings["beams"]
    if settings.objective == "atspeed-c" and settings.beam_width > beams:
        raise TrainingError(
            f"The teacher data have {beams} lists a prompt, which do not say what a target's beam of {settings.beam_width} keeps: give a "
            f"beam_width of at most {beams}, or make teacher data with --beams {settings.beam_width}."
        )


def _load_tokenizer(teacher: Path) -> PreTrainedTokenizerBase:
    try:
        return read_tokenizer(teacher)
    except UnreadableError as error:
        raise TrainingError(f"The tokenizer in {teacher} cannot be read: {error}") from error


def _record(manifest: TeacherManifest, catalog: Catalog, base: Base, settings: DraftSettings) -> dict[str, Any]:
    """The inputs and settings of a run, as `training.json` stores them."""
    return {
        "kind": "draft",
        "base": describe_base(base),
        "parameters": base.model.num_parameters(),
        "catalog": {"version": catalog.version, "items": len(catalog)},
        "teacher": msgspec.to_builtins(manifest.provenance) | {"settings": manifest.settings, "counts": manifest.counts},
        "prompt": manifest.prompt,
        "settings": msgspec.to_builtins(settings),
        "versions": versions(),
    }
