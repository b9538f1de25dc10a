"""Teacher data: a target's beam lists over the training histories and what it says of every prefix in them, for drafts to learn from.

Invariant: the lists are those of this project's own engine under the catalog's trie, so a draft learns the very search that it will be
verified against. Work is done shard by shard, and a finished shard is never made again, so an interruption costs at most one.

It stands on this floor because the engine does; the format, the trees and the scoring belong to `drafting.alignment`, where drafts train.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import torch
from tqdm import tqdm

from drafting.alignment.data.hashes import model_hash
from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.loading import data_hashes, load_split
from drafting.alignment.data.record import split_kind
from drafting.alignment.data.samples import SampleSet
from drafting.alignment.data.splits import SplitRule
from drafting.alignment.data.windows import Windows, next_windows
from drafting.alignment.levels import LevelCodes
from drafting.alignment.runs import RunDirectory, training_record
from drafting.alignment.settings import TeacherSettings, TrainingError
from drafting.alignment.target import training_windows
from drafting.alignment.teacher.data import (
    CATALOG_FILE,
    TEACHER_FILE,
    VALID_FILE,
    Provenance,
    ShardFile,
    TeacherManifest,
    is_whole,
    shard_bytes,
    shard_name,
    write_shard,
    write_windows,
)
from drafting.alignment.teacher.scores import code_type, most_tokens, score_windows
from drafting.alignment.teacher.trees import PromptWindows, list_trees, most_nodes, most_taken, prompt_windows
from drafting.alignment.training import quiet_library
from drafting.alignment.tree_batch import TreeWindows
from drafting.array_types import IntArray
from drafting.catalog.catalog import Catalog
from drafting.model_files import ModelFiles
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.loading import load_prompt
from drafting.prompts.tokenizer_files import save_tokenizer
from drafting.prompts.user_state import UserState
from drafting.trie.item_trie import ItemTrie
from verification.hosts.adapter import load_model_config
from verification.hosts.checkpoint import has_encoder, load_tokenizer
from verification.hosts.transformers import TransformersHost
from verification.recommender import Recommender


@dataclass(frozen=True)
class Cost:
    """The expected size of a run, computed before it starts.

    Attributes:
        windows: stretches of histories.
        trees: prompts that lists are searched for.
        disk_bytes: at most.
    """

    windows: int
    trees: int
    disk_bytes: int


@quiet_library()
def make_teacher(
    target: Path,
    data: Path,
    catalog: Catalog,
    out: Path,
    *,
    base: Path | None = None,
    settings: TeacherSettings | None = None,
    draft: Path | None = None,
    draft_base: Path | None = None,
    kv_memory_gib: float = 0.5,
    overwrite: bool = False,
    announce: Callable[[Cost], None] = lambda cost: None,
) -> TeacherManifest:
    """Ask the target and write `out`; go on with the shards that an interrupted run has left.

    Args:
        base, draft_base: base models of a target and a draft that are adapters; by default those that their configurations name.
        draft: a draft with the same tokens, whose lists become nodes as well, so that the target also scores prefixes of drafts, and
            `atspeed-s`, `atspeed-r` and `atspeed-c` learn from them.
        announce: is told the cost before anything is searched.

    Raises:
        InteractionError, CatalogError, PromptError, HostError, TrainingError: inputs that cannot be used; nothing was written over.
    """
    settings = settings or TeacherSettings()
    run = RunDirectory(out, "directory of teacher data", TEACHER_FILE)
    run.refuse_existing(overwrite)
    files = ModelFiles.find(target, base)
    draft_files = None if draft is None else ModelFiles.find(draft, draft_base, "--draft-base")
    if has_encoder(load_model_config(files)):
        raise TrainingError(
            f"The target in {target} is an encoder-decoder model, which can't teach: train a smaller T5 as a target of its own on the same "
            "data, and serve it as the draft."
        )
    if files.renormalises:
        raise TrainingError(
            f"The target in {target} is normalised over the children of each prefix (--normalise children), but teacher data are "
            "distributions over all codes of a level, of which it says nothing: teach with a target that was trained without."
        )
    settings = msgspec.structs.replace(settings, split=split_kind(settings.split, data))
    _check_split(target, settings)
    split = load_split(data, catalog, SplitRule(settings.split, settings.min_items, settings.label_kind))
    template = load_prompt(files.prompt)
    if draft_files is not None and draft_files.base is not None:
        # An adapter without a prompt is refused here, where the flag that names its base is known.
        load_prompt(draft_files.prompt)
    teacher = _Teacher(files, draft_files, catalog, split.train, settings, kv_memory_gib)
    made_from = Provenance(model_hash(target, base), target.resolve().name, catalog.version, data_hashes(data))
    record = {
        "provenance": msgspec.to_builtins(made_from),
        "settings": msgspec.to_builtins(settings),
        "prompt": template.contents(),
    }
    try:
        windows = training_windows(split.train, teacher.builder, settings, template.is_bare)
        joined, ahead = next_windows(split.train, split.valid, teacher.builder.max_items + 1)
        teacher.check_prompts(split.train, windows)
        teacher.check_prompts(joined, ahead)
        run.open(record | {"draft": model_hash(draft, draft_base) if draft else None, "stored": teacher.stored}, overwrite)
        run.model.mkdir(exist_ok=True)
        cost = teacher.cost(windows)
        announce(cost)
        run.check_space(cost.disk_bytes, "teacher data")
        shards, counts = teacher.write_shards(run.model, windows)
    finally:
        teacher.close()
    write_windows(run.model / VALID_FILE, teacher.prompts(joined, ahead, 0))
    catalog.save(run.model / CATALOG_FILE)
    save_tokenizer(load_tokenizer(files.tokenizer), run.model)
    template.save(run.model)
    manifest = TeacherManifest(made_from, msgspec.to_builtins(settings), template.contents(), counts, shards)
    (run.model / TEACHER_FILE).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")
    run.publish()
    return manifest


def _check_split(target: Path, settings: TeacherSettings) -> None:
    """Refuse a split that would train a draft on interactions by which the target is evaluated."""
    trained = training_record(target).get("settings", {})
    asked = {"split": settings.split, "min_items": settings.min_items}
    if any(trained.get(name, value) != value for name, value in asked.items()):
        raise TrainingError(
            f"The target was trained with the split {trained['split']} of users with at least {trained['min_items']} interactions: teach "
            "with the same."
        )
    if trained and (kind := trained.get("label_kind")) != settings.label_kind:
        said = "interactions of all kinds, without label_kind" if kind is None else f"those of the kind {kind!r}, with label_kind {kind}"
        raise TrainingError(f"The target was trained to predict {said}: teach with the same.")


class _Teacher:
    """A target that searches lists and scores prefixes for one catalog."""

    def __init__(
        self,
        target: ModelFiles,
        draft: ModelFiles | None,
        catalog: Catalog,
        interactions: Interactions,
        settings: TeacherSettings,
        kv_gib: float,
    ) -> None:
        self._settings = settings
        self._interactions = interactions
        self._recommender = Recommender.load(target.directory, catalog, base=target.given_base, kv_memory_gib=kv_gib)
        self._draft = None if draft is None else Recommender.load(draft.directory, catalog, base=draft.given_base, kv_memory_gib=kv_gib)
        self._identifiers = catalog.token_ids(load_tokenizer(target.tokenizer).get_vocab())
        self._trie = ItemTrie.build(self._identifiers)
        self._levels = LevelCodes.of(self._identifiers)
        widest = self._recommender.prompts.max_tokens + self._trie.depth + settings.trees * most_nodes(self._trie, self._lists)
        dtype = "auto" if torch.cuda.is_available() else "float32"
        self._scorer = TransformersHost(target.directory, base=target.given_base, dtype=dtype, slots=most_tokens(widest))
        self._scorer.pack()

    @property
    def builder(self) -> PromptBuilder:
        """The target's prompts."""
        return self._recommender.prompts

    @property
    def stored(self) -> tuple[int, int]:
        """Codes that are stored per answer, and per node: there is room for all with which lists may continue."""
        top = min(self._settings.top, self._levels.widest)
        return top, max(top, most_taken(self._trie, self._settings.beams))

    @property
    def _lists(self) -> int:
        """Lists of a tree at most, a draft's among them."""
        return self._settings.beams * (1 if self._draft is None else 3)

    def prompts(self, interactions: Interactions, windows: Windows, trees: int) -> PromptWindows:
        """The windows written out."""
        return prompt_windows(interactions, windows, self._recommender.prompts, self._identifiers, trees)

    def check_prompts(self, interactions: Interactions, windows: Windows) -> None:
        """Write the prompts of windows before hours of searches: of a text, what some user lacks is found only so, and is named.

        Raises:
            PromptError: a user has no prompt.
        """
        SampleSet(interactions, windows, self.builder, self._identifiers, 0)

    def cost(self, windows: Windows) -> Cost:
        """The expected size of the run for these windows."""
        trees = int(np.minimum(windows.scored, self._settings.trees).sum())
        answers = int(windows.scored.sum()) * self._trie.depth
        tokens = len(windows.last) * self._recommender.prompts.max_tokens
        nodes = trees * most_nodes(self._trie, self._lists)
        stored = tokens + trees * self._settings.beams
        code_bytes = code_type(self._levels).itemsize
        return Cost(len(windows.last), trees, shard_bytes(stored, answers, nodes, *self.stored, code_bytes))

    def write_shards(self, folder: Path, windows: Windows) -> tuple[list[str], dict[str, int]]:
        """Write what is missing of all shards; return their names and what they hold."""
        names = []
        counts = {"windows": len(windows.last), "trees": 0, "nodes": 0}
        starts = range(0, len(windows.last), self._settings.shard_windows)
        with tqdm(total=len(windows.last), desc="teaching", unit="window") as bar:
            for number, start in enumerate(starts):
                part = slice(start, start + self._settings.shard_windows)
                path = folder / shard_name(number)
                if not is_whole(path):
                    self._write_shard(path, windows.part(part))
                names.append(path.name)
                offsets = ShardFile(path).read("node_offsets")
                counts["trees"] += len(offsets) - 1
                counts["nodes"] += int(offsets[-1])
                bar.update(len(windows.last[part]))
        return names, counts

    def _write_shard(self, path: Path, windows: Windows) -> None:
        prompts = self.prompts(self._interactions, windows, self._settings.trees)
        lists = find_lists(self._recommender, prompts.users, self._settings.beams)
        visited = lists[:, :0]
        if self._draft is not None:
            visited = find_lists(self._draft, prompts.users, 2 * self._settings.beams)
        trees = list_trees(lists, visited, self._trie, self._levels)
        asked = TreeWindows.of(prompts, trees.offsets, trees.trie_node, trees.parent, self._trie)
        answers, nodes = score_windows(self._scorer, asked, trees.taken, self._levels, *self.stored)
        write_shard(path, prompts, trees, lists, answers, nodes)

    def close(self) -> None:
        """Free the models."""
        self._scorer.close()
        self._recommender.close()
        if self._draft is not None:
            self._draft.close()


def find_lists(recommender: Recommender, users: list[UserState], beams: int) -> IntArray:
    """The `beams` best identifiers for each user, as the first item of each; `[users, beams]`, -1 where there are fewer.

    Short prompts are searched together with short ones, because a batch is as wide as its widest.
    """
    order = sorted(range(len(users)), key=lambda row: len(users[row].events))
    lists = np.full((len(users), beams), -1, np.int64)
    for row, result in zip(order, recommender.recommend((users[row] for row in order), beams, beams), strict=True):
        found = [item.item for item in result.firsts]
        lists[row, : len(found)] = found
    if (lists[:, 0] < 0).any():
        raise TrainingError("The target found no list for some histories: is the catalog empty?")
    return lists
