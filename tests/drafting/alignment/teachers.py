"""Teacher data without a target: a make-believe one whose lists and distributions follow a rule, made in milliseconds."""

import json
from pathlib import Path

import msgspec
import numpy as np

from drafting.alignment.bases import scratch_tokenizer
from drafting.alignment.data.interactions import Interactions
from drafting.alignment.data.windows import packed_windows
from drafting.alignment.levels import LevelCodes
from drafting.alignment.teacher.data import (
    CATALOG_FILE,
    TEACHER_FILE,
    VALID_FILE,
    Provenance,
    TeacherManifest,
    shard_name,
    write_shard,
    write_windows,
)
from drafting.alignment.teacher.scores import TopCodes
from drafting.alignment.teacher.trees import list_trees, prompt_windows
from drafting.catalog.builder import catalog_of
from drafting.catalog.catalog import Catalog
from drafting.prompts.builder import PromptBuilder
from drafting.prompts.template import PromptTemplate
from drafting.prompts.tokenizer import PromptTokenizer
from drafting.trie.arrays import offsets_of
from drafting.trie.item_trie import ItemTrie
from tests.models import TINY_CONFIG

ITEMS = 12
STEP = 5
LISTS = 3
CATALOG = catalog_of([(str(item), [f"<a_{item // 4}>", f"<b_{item % 4}>"]) for item in range(ITEMS)])
TEMPLATE = PromptTemplate(max_items=6)


def histories(users: int, items_in_all: int) -> Interactions:
    """Users who always go STEP items further."""
    lengths = [4 + user % 5 for user in range(users)]
    items = [(user + time * STEP) % items_in_all for user, length in enumerate(lengths) for time in range(length)]
    return Interactions(tuple(map(str, range(users))), offsets_of(lengths), np.array(items, np.int32))


def write_teacher(folder: Path, users: int = 40, catalog: Catalog | None = None, visited: int = 0) -> Path:
    """Teacher data whose lists are the next item by the rule and the two items after it, and whose distributions say so.

    A draft's lists, `visited` of them, are the items before it.
    """
    folder.mkdir(parents=True)
    catalog = catalog or CATALOG
    tokenizer = scratch_tokenizer(catalog.tokens)
    identifiers = catalog.token_ids(tokenizer.get_vocab())
    trie, levels = ItemTrie.build(identifiers), LevelCodes.of(identifiers)
    builder = PromptBuilder(TEMPLATE, PromptTokenizer.of(tokenizer), catalog)
    data = histories(users, len(catalog))
    windows = packed_windows(data, TEMPLATE.max_items, 3)
    prompts = prompt_windows(data, windows, builder, identifiers, trees=2)
    following = np.array([[user.events[-1].item + STEP] for user in prompts.users], np.int64)
    lists, others = ((following + some) % len(catalog) for some in (np.arange(LISTS), -1 - 3 * np.arange(visited)))
    trees = list_trees(lists, others, trie, levels)
    nodes = TopCodes.empty(len(trees.trie_node), levels.widest, levels)
    taken = trees.taken.lists_with(np.broadcast_to(np.arange(levels.widest), (len(trees.trie_node), levels.widest)))
    # Where the target has no list, it is sure of the first code.
    taken[taken.sum(1) == 0, 0] = 1
    share = taken / taken.sum(1, keepdims=True)
    nodes.codes[:] = np.argsort(-share, axis=1, kind="stable")
    nodes.probabilities[:] = np.take_along_axis(share, nodes.codes.astype(np.int64), axis=1)
    answers = TopCodes.empty(int(prompts.answers.sum()), levels.widest, levels)
    answers.codes[:, 0], answers.probabilities[:, 0] = true_codes(prompts.tokens, prompts.token_offsets, prompts.answers, levels), 1.0
    write_shard(folder / shard_name(0), prompts, trees, lists, answers, nodes)
    write_windows(folder / VALID_FILE, prompt_windows(data, windows, builder, identifiers, trees=0))
    catalog.save(folder / CATALOG_FILE)
    tokenizer.save_pretrained(folder)
    made_from = Provenance("0123456789abcdef", "make-believe", catalog.version, {})
    manifest = TeacherManifest(made_from, {"beams": LISTS}, TEMPLATE.contents(), {"windows": len(windows.last)}, [shard_name(0)])
    (folder / TEACHER_FILE).write_bytes(msgspec.json.encode(manifest))
    (folder / "draft_config.json").write_text(json.dumps(TINY_CONFIG))
    return folder


def true_codes(tokens: np.ndarray, offsets: np.ndarray, answers: np.ndarray, levels: LevelCodes) -> np.ndarray:
    """The code of every answer token."""
    answered = np.concatenate([tokens[end - count : end] for end, count in zip(offsets[1:], answers, strict=True)])
    depth = len(levels.sizes)
    return np.stack([levels.codes(level, answered[level::depth]) for level in range(depth)], axis=1).reshape(-1)
