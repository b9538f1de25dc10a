"""Teacher data on the disk: one directory that holds all that a draft is trained from.

Invariant: the directory stands for itself. It has the windows as tokens, the target's lists and distributions, the validation samples, the
catalog, tokenizer and prompt, and in `teacher.json` the hashes of the target, the catalog and the interactions that it was made from; a
shard appears under its name only when it is whole.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from drafting.alignment.settings import TrainingError
from drafting.alignment.teacher.scores import TopCodes
from drafting.alignment.teacher.trees import ListTrees, PromptWindows
from drafting.prompt import PromptTemplate

IntArray = npt.NDArray[np.int64]

TEACHER_FILE = "teacher.json"
CATALOG_FILE = "catalog.jsonl"
VALID_FILE = "valid.safetensors"
WINDOW_ARRAYS = ("tokens", "token_offsets", "answers", "tree_offsets", "tree_root")


class Provenance(msgspec.Struct, frozen=True):
    """What teacher data was made from.

    Attributes:
        target: `model_hash` of the target.
        target_name: its directory's name.
        catalog: the catalog's version.
        data: SHA-256 of each file of interactions.
    """

    target: str
    target_name: str
    catalog: str
    data: dict[str, str]


class TeacherManifest(msgspec.Struct, frozen=True):
    """The contents of `teacher.json`.

    Attributes:
        provenance: what it was made from.
        settings: of the run that made it.
        prompt: the target's template.
        counts: windows, trees and nodes in all shards.
        shards: the files in order.
    """

    provenance: Provenance
    settings: dict[str, Any]
    prompt: PromptTemplate
    counts: dict[str, int]
    shards: list[str]


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"shard-{number:05d}.safetensors"


def write_windows(path: Path, prompts: PromptWindows, **more: npt.NDArray[Any]) -> None:
    """Write windows and whatever belongs to them; the file appears when it is whole."""
    unfinished = path.with_suffix(".unfinished")
    parts = (prompts.tokens, prompts.token_offsets, prompts.answers, prompts.tree_offsets, prompts.tree_root)
    arrays = {name: part.astype(np.int32) for name, part in zip(WINDOW_ARRAYS, parts, strict=True)}
    save_file(arrays | {name: np.ascontiguousarray(array) for name, array in more.items()}, unfinished)
    unfinished.rename(path)


def write_shard(path: Path, prompts: PromptWindows, trees: ListTrees, lists: IntArray, answers: TopCodes, nodes: TopCodes) -> None:
    """Write one shard.

    Args:
        lists: `[trees, beams]` catalog indices, -1 where there is none.
    """
    kept = nodes.codes.astype(np.int64)
    exists = kept < trees.taken.shape[1]
    taken = np.where(exists, np.take_along_axis(trees.taken, np.where(exists, kept, 0), axis=1), 0)
    write_windows(
        path,
        prompts,
        lists=lists.astype(np.int32),
        node_offsets=trees.offsets.astype(np.int32),
        node_trie=trees.trie_node.astype(np.int32),
        node_parent=trees.parent.astype(np.int32),
        node_taken=taken.astype(np.int16),
        answer_codes=answers.codes,
        answer_probabilities=answers.probabilities,
        node_codes=nodes.codes,
        node_probabilities=nodes.probabilities,
    )


def shard_bytes(tokens: int, answers: int, nodes: int, top: int) -> int:
    """What windows with so many tokens, answers and nodes take on the disk."""
    return 4 * tokens + answers * top * 4 + nodes * (8 + top * 6)


def is_whole(path: Path) -> bool:
    """Whether a shard is there and can be read."""
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


@dataclass(frozen=True)
class ShardFile:
    """A shard whose large arrays stay on the disk until rows of them are asked for."""

    path: Path

    @functools.cached_property
    def _file(self) -> Any:
        try:
            return safe_open(self.path, framework="np")
        except (SafetensorError, OSError) as error:
            raise TrainingError(
                f"The teacher's shard {self.path} is damaged or cut off ({error}): make the teacher data again with --overwrite."
            ) from error

    def read(self, name: str) -> npt.NDArray[Any]:
        """One whole array."""
        array: npt.NDArray[Any] = self._file.get_tensor(name)
        return array

    def rows(self, name: str, rows: slice) -> npt.NDArray[Any]:
        """Some rows of an array, without reading the others."""
        array: npt.NDArray[Any] = self._file.get_slice(name)[rows]
        return array


def read_manifest(directory: Path) -> TeacherManifest:
    """Read `teacher.json`.

    Raises:
        TrainingError: the directory holds no finished teacher data, or a shard is missing.
    """
    path = directory / TEACHER_FILE
    if not path.is_file():
        unfinished = directory.with_name(directory.name + ".partial").is_dir()
        hint = (
            "its run was interrupted: repeat `atspeed train teacher` to finish it" if unfinished else "make it with `atspeed train teacher`"
        )
        raise TrainingError(f"{directory} holds no teacher data: {hint}.")
    try:
        manifest = msgspec.json.decode(path.read_bytes(), type=TeacherManifest)
    except msgspec.DecodeError as error:
        raise TrainingError(f"{path} does not describe teacher data: {error}.") from error
    missing = [name for name in (*manifest.shards, VALID_FILE, CATALOG_FILE) if not (directory / name).is_file()]
    if missing:
        raise TrainingError(f"The teacher data in {directory} is not whole: {missing[0]} is missing.")
    return manifest


def check_provenance(manifest: TeacherManifest, directory: Path, target: str | None, catalog: str | None) -> None:
    """Check that teacher data was made from the target with this hash and the catalog of this version; None is not checked.

    Raises:
        TrainingError: it was made from others.
    """
    made = manifest.provenance
    if target is not None and target != made.target:
        raise TrainingError(
            f"The teacher data in {directory} was made with another target (hash {made.target}, now {target}): make it again, or give the "
            "target that it was made with."
        )
    if catalog is not None and catalog != made.catalog:
        raise TrainingError(
            f"The teacher data in {directory} was made with another catalog (version {made.catalog}, now {catalog}): make it again, or "
            "give the catalog that it was made with."
        )
