"""Teacher data on disk: a directory with everything that training a draft needs.

Invariant: the directory is self-contained. It has the windows as tokens, the target's lists and distributions, the validation samples, the
catalog, tokenizer and prompt, and in `teacher.json` the hashes of the target, the catalog and the interactions; a shard appears under its
name only when it is complete.
"""

import functools
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from drafting.alignment.settings import TrainingError
from drafting.alignment.teacher.scores import TopCodes
from drafting.alignment.teacher.trees import ListTrees
from drafting.alignment.tree_batch import TokenWindows
from drafting.array_types import IntArray
from drafting.undecodable import UNDECODABLE

TEACHER_FILE = "teacher.json"
CATALOG_FILE = "catalog.jsonl"
VALID_FILE = "valid.safetensors"
VISITS = "node_visits"


class Provenance(msgspec.Struct, frozen=True):
    """The inputs of teacher data.

    Attributes:
        target: `model_hash` of the target.
        target_name: name of the target's directory.
        catalog: version of the catalog.
        data: SHA-256 of each file of interactions, by file name.
    """

    target: str
    target_name: str
    catalog: str
    data: dict[str, str]


class TeacherManifest(msgspec.Struct, frozen=True):
    """The contents of `teacher.json`.

    Attributes:
        provenance: inputs of the data.
        settings: settings of the run.
        prompt: contents of the target's `prompt.json`.
        counts: numbers of windows, trees and nodes in all shards.
        shards: names of the shard files, in order.
    """

    provenance: Provenance
    settings: dict[str, Any]
    prompt: dict[str, Any]
    counts: dict[str, int]
    shards: list[str]


def shard_name(number: int) -> str:
    """The file name of a shard."""
    return f"shard-{number:05d}.safetensors"


def write_windows(path: Path, prompts: TokenWindows, **more: npt.NDArray[Any]) -> None:
    """Write windows and the arrays in `more`; the file appears under its name when it is complete."""
    unfinished = path.with_suffix(".unfinished")
    arrays = {field.name: vars(prompts)[field.name].astype(np.int32) for field in fields(TokenWindows)}
    save_file(arrays | {name: np.ascontiguousarray(array) for name, array in more.items()}, unfinished)
    unfinished.rename(path)


def write_shard(path: Path, prompts: TokenWindows, trees: ListTrees, lists: IntArray, answers: TopCodes, nodes: TopCodes) -> None:
    """Write one shard; how many other lists pass its nodes only where there are any.

    Args:
        lists: `[trees, beams]` catalog indices, -1 where there is none.
    """
    visits = {VISITS: trees.visits.astype(np.int16)} if trees.visits.any() else {}
    write_windows(
        path,
        prompts,
        **visits,
        lists=lists.astype(np.int32),
        node_offsets=trees.offsets.astype(np.int32),
        node_trie=trees.trie_node.astype(np.int32),
        node_parent=trees.parent.astype(np.int32),
        node_taken=trees.taken.lists_with(nodes.codes.astype(np.int64)).astype(np.int16),
        answer_codes=answers.codes,
        answer_probabilities=answers.probabilities,
        node_codes=nodes.codes,
        node_probabilities=nodes.probabilities,
    )


def shard_bytes(tokens: int, answers: int, nodes: int, top: int, node_top: int, code_bytes: int) -> int:
    """Bytes on disk of windows with so many tokens, answers and nodes, `top` codes per answer and `node_top` per node."""
    return 4 * tokens + answers * top * (code_bytes + 2) + nodes * (10 + node_top * (code_bytes + 4))


def is_whole(path: Path) -> bool:
    """True if the shard exists and can be read."""
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


@dataclass(frozen=True)
class ShardFile:
    """A shard; its arrays stay on disk until `read` or `rows` loads them."""

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
        """Read an array."""
        array: npt.NDArray[Any] = self._file.get_tensor(name)
        return array

    def has(self, name: str) -> bool:
        """True if there is an array of this name."""
        return name in set(self._file.keys())

    def rows(self, name: str, rows: slice) -> npt.NDArray[Any]:
        """Read some rows of an array."""
        array: npt.NDArray[Any] = self._file.get_slice(name)[rows]
        return array


def read_manifest(directory: Path) -> TeacherManifest:
    """Read `teacher.json`.

    Raises:
        TrainingError: the directory does not hold finished teacher data, or a shard is missing.
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
    except UNDECODABLE as error:
        raise TrainingError(f"{path} does not describe teacher data: {error}.") from error
    missing = [name for name in (*manifest.shards, VALID_FILE, CATALOG_FILE) if not (directory / name).is_file()]
    if missing:
        raise TrainingError(f"The teacher data in {directory} is not whole: {missing[0]} is missing.")
    return manifest


def check_provenance(manifest: TeacherManifest, directory: Path, target: str | None, catalog: str | None) -> None:
    """Check the hash of the target and the version of the catalog of teacher data; None is not checked.

    Raises:
        TrainingError: the data was made from another target or catalog.
    """
    made = manifest.provenance
    for name, kind, now, before in (("target", "hash", target, made.target), ("catalog", "version", catalog, made.catalog)):
        if now is not None and now != before:
            raise TrainingError(
                f"The teacher data in {directory} was made with another {name} ({kind} {before}, now {now}): make it again, or give the "
                f"{name} that it was made with."
            )
