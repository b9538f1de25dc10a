"""What the identifiers of a catalog have learnt, in a file beside the catalog, so that no list is judged by what made its identifiers.

Invariant: the record names the version of the catalog that it is about. If another version lies in that one's place, nothing is known of
it: its identifiers may be the same, as where only a title was edited, or others. Catalogs without a record (given ones, and those from
embeddings of one's own) are taken as they are.
"""

from dataclasses import dataclass
from pathlib import Path

import msgspec

from drafting.alignment.data.fit import FIT_ALL, FIT_TRAIN, has_learnt
from drafting.alignment.data.splits import SplitRule
from drafting.catalog.catalog import Catalog
from drafting.errors import SetupError
from drafting.neighbours.source import Source
from drafting.neighbours.source_check import source_of
from drafting.undecodable import UNDECODABLE


class LearntError(SetupError):
    """What a catalog's identifiers have learnt cannot be read; the message is a sentence."""


@dataclass(frozen=True)
class Learnt:
    """What identifiers were made from.

    Attributes:
        version: of the catalog.
        fit: the parts of the data whose interactions counted.
    """

    version: str
    fit: str
    source: Source


@dataclass(frozen=True)
class Doubt:
    """Why lists of identifiers would be judged by what these know.

    Attributes:
        sentence: for the user.
        sure: whether it is known, or only possible.
    """

    sentence: str
    sure: bool


def learnt_file(catalog: Path) -> Path:
    """The file of the record beside a catalog."""
    return catalog.with_suffix(".learnt.json")


def write_learnt(path: Path, learnt: Learnt) -> None:
    """Write a record; `path` is as `learnt_file` says, or will be."""
    path.write_bytes(msgspec.json.encode(learnt) + b"\n")


def learnt_copy(path: Path, out: Path) -> Path | None:
    """The file that the record beside a catalog is copied to, beside another file of the same catalog; None where there is no record, or
    it lies there already."""
    record, copy = learnt_file(path), learnt_file(out)
    return None if not record.is_file() or record.resolve() == copy.resolve() else copy


def copy_learnt(path: Path, out: Path) -> None:
    """Write the record beside a catalog beside another file of the same catalog, if there is one.

    Args:
        path: where the catalog was read from.

    Raises:
        LearntError: the record is damaged.
        OSError: it can't be written.
    """
    learnt, copy = _read(path), learnt_copy(path, out)
    if learnt is not None and copy is not None:
        write_learnt(copy, learnt)


def doubt_of(path: Path, catalog: Catalog, data: Path, rule: SplitRule, part: str) -> Doubt | None:
    """Why lists would be judged too well by a part of the data, "valid" or "test"; None where nothing speaks for it.

    Args:
        path: where the catalog was read from.

    Raises:
        LearntError: the record is damaged.
        InteractionError: the directory holds no interactions.
    """
    learnt = _read(path)
    if learnt is None:
        return None
    doubt = _doubt_of_record(learnt, path, data, rule, part)
    if doubt is None or learnt.version == catalog.version:
        return doubt
    changed = (
        f"{path} has changed since its identifiers were made (version {learnt.version}, now {catalog.version}), and they may be others."
    )
    return Doubt(f"{changed} If not: {doubt.sentence}", sure=False)


def _doubt_of_record(learnt: Learnt, path: Path, data: Path, rule: SplitRule, part: str) -> Doubt | None:
    here, subject = source_of(data, rule), f"The identifiers of {path} were made"
    if learnt.source.data != here.data:
        return Doubt(f"{subject} from other interactions than {data} holds: they may know what is held out here.", sure=False)
    if learnt.fit != FIT_ALL and learnt.source != here:
        return Doubt(f"{subject} with another split of {data}, and know some of what is held out here: build them with this.", sure=True)
    if not has_learnt(learnt.fit, part):
        return None
    made = f"from the part {part}, too (`atspeed catalog build --fit {learnt.fit}`)"
    return Doubt(f"{subject} {made}, so figures there would say little: build a catalog with --fit {FIT_TRAIN}.", sure=True)


def _read(catalog: Path) -> Learnt | None:
    path = learnt_file(catalog)
    if not path.is_file():
        return None
    try:
        return msgspec.json.decode(path.read_bytes(), type=Learnt)
    except (OSError, *UNDECODABLE) as error:
        raise LearntError(f"{path} cannot be read: {error}. Build the catalog again, or remove the file.") from error
